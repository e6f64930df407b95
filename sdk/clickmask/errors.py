"""Every exception that clickmask raises on purpose.

::

    ClickmaskError
    ├── InvalidInputError (also a ValueError)   an image, click, mask or option that cannot be used
    ├── SessionStateError                       not possible in this state: nothing to undo, no such click
    ├── BundleError                             an engine bundle that is missing, damaged or of another schema
    └── BackendError                            the inference runtime failed
        └── BackendUnavailableError             the runtime or device asked for is not usable on this host

Each message says what was expected, what came and, where there is one, the remedy.
Foreign exceptions of a runtime are kept as ``__cause__``.
"""

from __future__ import annotations


class ClickmaskError(Exception):
    """Base of every exception below: catch this one to catch them all."""


class InvalidInputError(ClickmaskError, ValueError):
    """An argument cannot be used: wrong type, shape, range or value. Nothing was changed."""


class SessionStateError(ClickmaskError):
    """The call is sound but not in this state, such as undo on a fresh session. Nothing was changed."""


class BundleError(ClickmaskError):
    """An engine bundle is missing, damaged, of an unknown schema, or does not match what needs it."""


class BackendError(ClickmaskError):
    """An inference runtime failed; the runtime's own exception is the ``__cause__``."""


class BackendUnavailableError(BackendError):
    """The requested backend or device cannot be used on this host; the message names what is missing."""
