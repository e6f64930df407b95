"""The settings that a public checkpoint stores beside its tensors, and whether they are ours to compute.

RITM's code and those built on it (ClickSEG, CSFPN) save the constructor's arguments with the weights:
``{"class": path, "params": {name: {"value": ...}}}``. The class path does not tell architectures apart and is
not read. Arguments that tensors show as well must agree with them; the others must have values that our
networks compute, since nothing else would reveal a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clickmask_models.click_maps import ClickMapConfig

# Arguments with one value that our networks compute.
_REQUIRED = {
    "use_leaky_relu": True,
    "clicks_groups": None,  # another radius for the first clicks
    "binary_prev_mask": False,
    "conv_extend": False,
    "norm_mean_std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "net_mode": "",
}
# Those that need a kind of norm whose evaluation is batch norm's (SyncBatchNorm's is).
_NORMS = ("norm_layer", "backbone_norm_layer")
# Those of training and speed alone.
_UNUSED = ("backbone_lr_mult", "cpu_dist_maps", "with_aux_output", "feature_stride")
# Those that this module reads.
_READ = ("use_disks", "norm_radius", "aspp_dropout")


def public_settings(config: object) -> dict[str, Any]:
    """The constructor's arguments by name; none where ``config`` is None.

    Raises:
        ValueError: ``config`` has another form.
    """
    if config is None:
        return {}
    params = config.get("params") if isinstance(config, Mapping) else None
    if not isinstance(params, Mapping) or not all(
        isinstance(entry, Mapping) and "value" in entry for entry in params.values()
    ):
        raise ValueError(
            "its 'config' is not of the form {'params': {name: {'value': ...}}} that RITM's code saves; a "
            "file with the 'state_dict' alone is read as a released network"
        )
    return {str(name): _plain(entry["value"]) for name, entry in params.items()}


def check_settings(settings: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Checks that the settings agree with the tensors and ask for nothing that our networks lack.

    Args:
        settings: of ``public_settings``.
        shown: arguments as the tensors show them.

    Raises:
        ValueError: settings that do not, all of them by name.
    """
    expected = {**_REQUIRED, **shown}
    problems = []
    for name, value in settings.items():
        if name in expected:
            if value != expected[name]:
                source = "by its tensors" if name in shown else "of what clickmask computes"
                problems.append(f"{name}={value!r}, expected {expected[name]!r} {source}")
        elif name in _NORMS:
            if value is not None and "BatchNorm" not in str(value):
                problems.append(f"{name}={value!r}, expected a batch norm")
        elif name not in _UNUSED and name not in _READ:
            problems.append(f"{name}={value!r}, which clickmask does not know")
    if problems:
        raise ValueError(f"its settings are not those of a network that clickmask has: {'; '.join(problems)}")


def click_map(settings: Mapping[str, Any], released: ClickMapConfig) -> ClickMapConfig:
    """How clicks are drawn: disks, or distances in the older form; as released where nothing is stored.

    Raises:
        ValueError: a radius that is not a positive number.
    """
    if "use_disks" not in settings:
        return released
    radius = settings.get("norm_radius", released.size)
    if isinstance(radius, bool) or not isinstance(radius, int | float):
        raise ValueError(f"norm_radius: expected a number of pixels, got {radius!r}")
    return ClickMapConfig("disk" if settings["use_disks"] else "distance", float(radius))


def dropout(settings: Mapping[str, Any], channels: int) -> float:
    """After ASPP, for training; released networks have 0.5 at 256 channels and 0.2 below.

    Raises:
        ValueError: not a probability.
    """
    value = settings.get("aspp_dropout", 0.5 if channels >= 256 else 0.2)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"aspp_dropout: expected a number from 0 to below 1, got {value!r}")
    return float(value)


def _plain(value: Any) -> Any:
    """Values that can be compared: lists become tuples, and anything but lists, numbers and text its text."""
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
