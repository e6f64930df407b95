"""What can go wrong in a build.

::

    BuildError                    every failure a user can act on; the message is one line
    ├── RecipeError               checkpoint, preset and options do not fit together
    ├── TargetUnavailableError    this machine cannot build or verify the artefact asked for
    ├── LintError                 an exported graph has a fault that would surface in production
    ├── VerificationError         an artefact does not compute what the checkpoint does
    └── OutputError               the bundle cannot be written where it was asked for
"""

from __future__ import annotations


class BuildError(Exception):
    """Base of every failure of a build that is not a bug; nothing was written."""


class RecipeError(BuildError):
    """The checkpoint, the preset and the options do not fit together."""


class TargetUnavailableError(BuildError):
    """This machine cannot build or verify an artefact; the message names what is missing."""


class LintError(BuildError):
    """An exported graph has a fault; the message names node, cause and fix."""


class VerificationError(BuildError):
    """An artefact differs from the checkpoint's network by more than its precision explains."""


class OutputError(BuildError):
    """The bundle's folder cannot be written."""
