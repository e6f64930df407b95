"""Measures dense and sparse Feature Diffusion side by side: ``python export/benchmark_fdm.py --help``.

Both forms of one module are exported, and run in turn on the same inputs in one process, so that whatever
else the machine does meets both.
"""

from __future__ import annotations

import argparse
import copy
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim

_ROOT = Path(__file__).resolve().parents[1]
for _room in ("export", "models", "sdk"):  # a clone works without being installed
    sys.path.insert(0, str(_ROOT / _room))

from clickmask.backends.click_rows import by_label  # noqa: E402
from clickmask.backends.onnxruntime import session_options  # noqa: E402
from clickmask.encode import click_slots  # noqa: E402
from clickmask.whole_files import write_whole  # noqa: E402
from clickmask_export.onnx_graph import OPSET, quiet  # noqa: E402
from clickmask_export.profiling.figures import summary  # noqa: E402
from clickmask_export.profiling.machine import load, machine_facts  # noqa: E402
from clickmask_export.profiling.pages import cell, paragraph, written  # noqa: E402
from clickmask_export.profiling.turns import take_turns  # noqa: E402
from clickmask_models.click_maps import ClickMapConfig, click_maps  # noqa: E402
from clickmask_models.feature_diffusion import FeatureDiffusion, FeatureDiffusionConfig  # noqa: E402

_SIDE, _CHANNELS = 64, 128  # 512 px at stride 8: 4096 positions
_CLICKS = (1, 2, 5, 10, 20, 50)
_SPREAD = 5.0  # standard deviation of the affinities: at which a click outweighs some hundred positions
_TEXT = """\
# Feature Diffusion: dense and sparse

`build_engine.py --fdm sparse` against the dense form: the whole module (auxiliary head, projections, both
branches) at {positions} positions of {channels} channels, as at 512 px and stride 8, its affinities with a
standard deviation of {spread:g}. Both forms in ONNX Runtime, in turn, {rounds} rounds, in one process.

{written}

Half of the clicks are positive, at random places. Keys of the sparse form are, for each branch, the cells of
the 9 x 9 windows around the rows of its own clicks (1, 2, 3, 4, 6, 8, ... of either label, as many as the
more frequent needs) and one that stands for all other cells; the dense form has {positions}. Errors are the
largest, of what the module adds to its input, relative to the root mean square of that, from the explicit
matrices in float64, where S is not cut off at the windows.

| clicks | rows | keys | dense, ms: median (least) | sparse, ms | faster | error, dense | error, sparse |
|--:|--:|--:|--:|--:|--:|--:|--:|
{rows}

Keys grow with the rows, so the gain shrinks with the clicks; beyond 32 rows windows list more cells than
there are positions. `--fdm` decides at export; nothing switches by itself (decision 0014).
"""


class _Block(nn.Module):
    """Feature Diffusion with its sources drawn from clicks in cells."""

    def __init__(self, module: FeatureDiffusion) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, clicks: Tensor) -> Tensor:
        if clicks.ndim == 4:  # by label, for the sparse form
            clicks = torch.cat(clicks.unbind(dim=1), dim=1)
        sources = click_maps(clicks, x.shape[2], x.shape[3], ClickMapConfig("gaussian", 1.0))
        return self.module(x, sources.to(x.dtype), clicks).features


class _Row(NamedTuple):
    """`summary` of the milliseconds, and largest error, of the dense form and of the sparse one."""

    clicks: int
    rows: int
    times: list[dict[str, Any]]
    errors: tuple[float, float]


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=_ROOT / "docs/benchmarks/fdm.md")
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime")
    parser.add_argument("--rounds", type=int, default=30)
    options, machine = parser.parse_args(), machine_facts()
    block, sessions = _make(options.threads)
    x = torch.randn(1, _CHANNELS, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    rows = [_measure(sessions, block, x, count, options.rounds) for count in _CLICKS]
    machine["load_average_after"] = load()
    text = _TEXT.format(
        positions=_SIDE**2,
        channels=_CHANNELS,
        spread=_SPREAD,
        rounds=options.rounds,
        written="\n".join(paragraph(written("python export/benchmark_fdm.py", options.threads, machine))),
        rows="\n".join(map(_line, rows)),
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.output, text.encode())
    return 0


def _make(threads: int) -> tuple[_Block, list[onnxruntime.InferenceSession]]:
    """The dense block, and a session of it and of its sparse form."""
    torch.manual_seed(0)
    module = FeatureDiffusion(_CHANNELS, FeatureDiffusionConfig()).eval()
    with torch.no_grad():  # of unit features: affinities of the wanted spread
        for layer in (module.theta, module.phi):
            layer.weight.normal_(std=(_SPREAD / _CHANNELS**0.5) ** 0.5 / _CHANNELS**0.5)
    sparse = copy.deepcopy(module)
    sparse.use_sparse_keys()
    blocks = [_Block(module), _Block(sparse)]
    return blocks[0], [_session(block, threads) for block in blocks]


def _session(block: _Block, threads: int) -> onnxruntime.InferenceSession:
    shape = (1, 2, 5, 3) if block.module.sparse else (1, 5, 3)
    example = (torch.randn(1, _CHANNELS, _SIDE, _SIDE), torch.rand(shape))
    with torch.no_grad(), quiet():
        dimensions = {len(shape) - 2: Dim("M", min=1, max=128)}
        program = torch.export.export(block, example, dynamic_shapes=({}, dimensions))
        model = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=["x", "clicks"], verbose=False
        )
    options = session_options(onnxruntime, threads)
    data = model.model_proto.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _measure(
    sessions: list[onnxruntime.InferenceSession], block: _Block, x: Tensor, count: int, rounds: int
) -> _Row:
    clicks = torch.full((1, click_slots(count, 128), 3), -1.0)
    clicks[0, :count, :2] = torch.rand(count, 2, generator=torch.Generator().manual_seed(count)) * (_SIDE - 1)
    clicks[0, :count, 2] = 1 - torch.arange(count) % 2
    apart = by_label(clicks.numpy())
    runs = [
        partial(session.run, None, {"x": x.numpy(), "clicks": given})
        for session, given in zip(sessions, (clicks.numpy(), apart), strict=True)
    ]
    exact = _exact(block.module, x, clicks)
    errors = [np.abs(run()[0] - x.numpy() - exact).max() for run in runs]
    times = take_turns(dict(zip(("dense", "sparse"), runs, strict=True)), rounds)
    size = np.sqrt(np.square(exact).mean())
    figures = [summary(found) for found in times.values()]
    return _Row(count, apart.shape[2], figures, (errors[0] / size, errors[1] / size))


def _exact(module: FeatureDiffusion, x: Tensor, clicks: Tensor) -> np.ndarray:
    """What the module adds to its input, (1, C, h, w), by Eq. 1-4 with every matrix, in float64."""
    wide, x = copy.deepcopy(module).double(), x.double()
    sources = click_maps(clicks, _SIDE, _SIDE, ClickMapConfig("gaussian", 1.0)).double()
    with torch.no_grad():
        theta, phi, g = (getattr(wide, name)(x)[0].flatten(1) for name in ("theta", "phi", "g"))
        affinity = theta.T @ phi
        destination = torch.sigmoid(wide.destination_head(x))
        added = torch.zeros_like(x)
        for branch, rows in enumerate((destination, 1 - destination)):
            weights = torch.softmax(affinity * sources[0, branch].flatten(), dim=1)
            message = (weights @ g.T).T.reshape_as(x) * rows
            added += wide.project[branch](message)
    return added.numpy()


def _line(row: _Row) -> str:
    ratio = row.times[0]["p50"] / row.times[1]["p50"]
    cells = [str(row.clicks), str(row.rows), str(81 * row.rows + 1), *map(cell, row.times), f"{ratio:.1f}"]
    return f"| {' | '.join([*cells, *(f'{error:.1e}' for error in row.errors)])} |"


if __name__ == "__main__":
    sys.exit(main())
