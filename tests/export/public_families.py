"""One checkpoint of each family, in the layout that people have, and how it is built.

The default's is trained. No trained weights of the others are at hand: they are made from the tensors' names
by the rule of the golden recordings, which keeps activations in range; the last bias is set so that masks on
the photograph of the tests are neither empty nor full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from golden import Recording, rule
from public_files import Shapes, conv1s_shapes, deeplab_shapes, map_fusion_shapes
from torch import Tensor

from clickmask_models.checkpoints import save_checkpoint
from clickmask_models.presets import DEFAULT, NetworkConfig, build_network, preset
from clickmask_models.public_keys import CONV1S, HRNET, SPARSE_PROPAGATION, public_names

Writer = Callable[[Path, Path], list[Path]]

_DEEPLAB_BIAS, _HRNET_BIAS = "head.layers.2.bias", "feature_extractor.cls_head.bias"
# The gains of cdnet_res34's recording, for our own names.
_OURS = {
    "prefix": "",
    "running_var": 2.0,
    "gain": [
        ["theta.weight", 0.5],
        ["phi.weight", 0.5],
        ["destination_head.2.weight", 8.0],
        ["head.2.weight", 12.0],
        ["decoder.head.weight", 12.0],
    ],
    "shift": [["destination_head.2.bias", 4.0], ["head.2.bias", 0.0]],
}


class Family(NamedTuple):
    """One row of the table of families.

    Attributes:
        write: given a folder and the reference data, makes the file or, for two networks, both, the local
            one last.
        preset: the settings that its networks are used with.
        options: of the command, besides the files.
        test_size: input that the tests build it for.
    """

    write: Writer
    preset: str
    options: tuple[str, ...] = ()
    test_size: int = 64

    def arguments(self, checkpoints: list[Path], output: Path, sizes: tuple[int, ...]) -> list[str]:
        """Of ``build_engine.py``."""
        found = ["--checkpoint", str(checkpoints[0]), "--output", str(output), "--preset", self.preset]
        found += ["--size", *map(str, sizes), *self.options]
        return [*found, "--local-checkpoint", str(checkpoints[1])] if len(checkpoints) == 2 else found


def _recorded(bias: str, **shifts: float) -> Writer:
    """Recorded networks, by the stem of their files, their last bias shifted."""

    def write(folder: Path, shared: Path) -> list[Path]:
        paths = []
        for stem, shift in shifts.items():
            recording = Recording(shared, stem)
            tensors = recording.state_dict()
            tensors[bias] += shift
            paths.append(_save(folder / f"{stem}.pth", tensors, recording.keys["checkpoint"]["config"]))
        return paths

    return write


def _like(stem: str, **networks: tuple[NetworkConfig, dict[str, str], float]) -> Writer:
    """Public networks without stored settings: the layers of a recorded one, more of them or fewer."""

    def write(folder: Path, shared: Path) -> list[Path]:
        options = Recording(shared, stem).keys["weight_rule"]
        paths = []
        for name, (config, table, shift) in networks.items():
            with torch.device("meta"):
                ours = build_network(config).state_dict()
            public = public_names(ours, table)
            shapes = {public[key]: tuple(value.shape) for key, value in ours.items()}
            tensors = _by_rule(shapes, options | {"prefix": f"{name}/"})
            tensors[_HRNET_BIAS] += shift
            paths.append(_save(folder / f"{name}.pth", tensors))
        return paths

    return write


def _deeplab(depth: int, fusion: Shapes, shift: float) -> Writer:
    """A public DeepLabV3+, without stored settings, as f-BRS wrote its files."""

    def write(folder: Path, shared: Path) -> list[Path]:
        options = Recording(shared, "cdnet_res34").keys["weight_rule"]
        tensors = _by_rule({**fusion, **deeplab_shapes(depth, 128)}, options)
        tensors[_DEEPLAB_BIAS] += shift
        return [_save(folder / "deeplab.pth", tensors)]

    return write


def _own(name: str, shift: float, bias: str = "head.2.bias") -> Writer:
    """A checkpoint of ours with a preset's network."""

    def write(folder: Path, _: Path) -> list[Path]:
        network = build_network(preset(name)).eval()
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        tensors = _by_rule(shapes, _OURS)
        tensors[bias] += shift
        network.load_state_dict(tensors)
        save_checkpoint(folder / f"{name}.safetensors", network)
        return [folder / f"{name}.safetensors"]

    return write


def _by_rule(shapes: Mapping[str, tuple[int, ...]], options: dict) -> dict[str, Tensor]:
    return {
        name: torch.tensor(1)
        if name.endswith("num_batches_tracked")
        else torch.from_numpy(rule(name, list(shape), options))
        for name, shape in shapes.items()
    }


def _save(path: Path, tensors: dict[str, Tensor], config: dict | None = None) -> Path:
    torch.save(tensors if config is None else {"state_dict": tensors, "config": config}, path)
    return path


def _shipped(_folder: Path, _shared: Path) -> list[Path]:
    return [Path(__file__).parents[2] / "engines" / "default.safetensors"]


_RITM = HRNET | CONV1S
_CSFP = _RITM | SPARSE_PROPAGATION
_SMALL_CSFP = replace(preset("csfp_official"), backbone="hrnet18s", channels=16)

FAMILIES: dict[str, Family] = {
    "default, trained": Family(_shipped, DEFAULT, test_size=256),
    "CDNet, public code": Family(_recorded(_DEEPLAB_BIAS, cdnet_res34=-3.0), "official"),
    "CDNet, paper": Family(_own("paper_resnet34", 6.0), "paper_resnet34"),
    "CDNet, paper, sparse": Family(
        _own("paper_resnet34", 6.0), "paper_resnet34", ("--fdm", "sparse"), test_size=96
    ),  # windows of 9 cells leave none of the 8 x 8 of a 64 px input over
    "RITM HRNet-18s": Family(_recorded(_HRNET_BIAS, ritm_hrnet18s=-3.5), "ritm_hrnet18s"),
    "RITM HRNet-18": Family(
        _like("ritm_hrnet18s", hrnet18=(preset("ritm_hrnet18"), _RITM, -24.0)), "ritm_hrnet18"
    ),
    "RITM HRNet-32": Family(
        _like("ritm_hrnet18s", hrnet32=(preset("ritm_hrnet32"), _RITM, -45.0)), "ritm_hrnet32"
    ),
    "RITM DeepLabV3+": Family(_deeplab(34, conv1s_shapes(), -0.5), "ritm_resnet34"),
    "f-BRS DeepLabV3+": Family(_deeplab(50, map_fusion_shapes(), 2.6), "fbrs_resnet50"),
    "CSFP HRNet-18, public code": Family(
        _recorded(_HRNET_BIAS, csfpn_hrnet18_coarse=-7.5, csfpn_hrnet18_fine=-8.0), "csfp_official"
    ),
    "CSFP DeepLabV3+, paper": Family(_own("csfp_paper_resnet50", -3.0), "csfp_paper_resnet50"),
    "CSFP, encode once": Family(
        _own("encode_once_csfp", -6.0, "decoder.head.bias"), "encode_once_csfp", test_size=128
    ),
}
# Those that tests take through the whole path: each layer once. CSFP's two networks are small ones there, and
# the dense bundle of the paper's CDNet would prove less than the sparse, which is compared with it in torch.
_LEFT_TO_THE_TABLE = (
    "CDNet, paper",
    "RITM HRNet-18",
    "RITM HRNet-32",
    "CSFP HRNet-18, public code",
    "CSFP DeepLabV3+, paper",
)
TESTED = {name: family for name, family in FAMILIES.items() if name not in _LEFT_TO_THE_TABLE} | {
    "CSFP HRNet-18s, public layout": Family(
        _like("csfpn_hrnet18_coarse", coarse=(_SMALL_CSFP, _CSFP, 6.0), fine=(_SMALL_CSFP, _CSFP, -11.0)),
        "csfp_official",
    )
}
