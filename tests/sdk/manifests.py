"""Manifests as JSON values, to change in one place and read again."""

from __future__ import annotations

import copy
import json
from typing import Any

from clickmask.backends.fake import fake_manifest
from clickmask.manifest import Manifest


def document(**options: Any) -> Any:
    """A valid manifest as JSON values."""
    return json.loads(fake_manifest(**options).to_json())


def with_value(path: str, value: Any, **options: Any) -> Any:
    """A valid manifest with one place changed; the path is as in the messages, without the ``$.``."""
    changed = copy.deepcopy(document(**options))
    *parents, last = path.replace("[", ".[").split(".")
    place = changed
    for key in parents:
        place = place[int(key[1:-1])] if key.startswith("[") else place[key]
    if last.startswith("["):
        place[int(last[1:-1])] = value
    else:
        place[last] = value
    return changed


def read(value: Any) -> Manifest:
    return Manifest.from_json(json.dumps(value))
