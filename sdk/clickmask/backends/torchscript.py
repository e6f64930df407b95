"""TorchScript: how an application that already carries torch gets FP16 on CUDA without TensorRT.

The one file of the run time that touches torch, and only inside functions. A TorchScript archive is a
program: open only bundles whose maker is trusted (docs/bundle.md).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BackendError, BackendUnavailableError
from ..manifest import Artefact, Manifest
from . import host
from .base import Backend
from .cuda_memory import DeviceArray
from .device_diffusion import GRAPH, Call, DeviceDiffusion
from .diffusion import Choice, Place, choose
from .lanes import Lanes
from .torch_lane import TorchLane


class TorchScriptBackend(Backend):
    """TorchScript graphs on torch; ``open`` makes one. On CUDA each call has a ``TorchLane`` to itself."""

    def __init__(
        self,
        manifest: Manifest,
        modules: dict[str, Any],
        device: str,
        reason: str,
        choice: Choice | None = None,
        threads: int | None = None,
    ) -> None:
        """Take over one loaded module for each graph that runs; applications call ``open``."""
        super().__init__("torchscript", device, reason, manifest, choice, threads)
        self._modules = modules
        self._lanes: Lanes[TorchLane] | None = None
        if device != "cpu":
            import torch

            self._lanes = Lanes(lambda: self._guard(TorchLane, torch, _place(device)))
            self.takes_device_arrays = True

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        artefact: Artefact,
        device: str = "cpu",
        threads: int | None = None,
        reason: str = "asked for",
        pixel_diffusion: Place = "auto",
    ) -> TorchScriptBackend:
        """Load an artefact.

        Args:
            bundle: A checked bundle.
            artefact: One of its "torchscript" artefacts; fp16 ones need CUDA.
            device: "cpu", "cuda" or "cuda:N".
            threads: CPU threads. torch has one setting per process, which this changes; None leaves it.
            reason: Kept for the reader.
            pixel_diffusion: As for ``open_backend``.

        Raises:
            BackendUnavailableError: torch, the device or the kernel asked for cannot be used; the message has
                the command to run.
            BackendError: torch refuses a graph.
            BundleError: a file was changed since the bundle was loaded.
        """
        if artefact.precision == "fp16" and device == "cpu":
            raise BackendUnavailableError(
                "expected CUDA for an fp16 TorchScript artefact, got device 'cpu'; use device='cuda', or "
                "add an fp32 "
                "artefact to the bundle."
            )
        torch = _import_torch(device)
        choice = choose(bundle.manifest, pixel_diffusion, device)
        if threads is not None:
            torch.set_num_threads(threads)
        modules: dict[str, Any] = {}
        for graph in filter(choice.opens, bundle.manifest.graphs):
            file = artefact.files[graph]
            archive = io.BytesIO(bundle.read(file))
            try:
                with warnings.catch_warnings():  # torch deprecates TorchScript as a whole; known and accepted
                    warnings.simplefilter("ignore", DeprecationWarning)
                    modules[graph] = torch.jit.load(archive, map_location=_place(device)).eval()
            except Exception as exc:
                raise BackendError(f"torch {torch.__version__} does not load {file.path!r}: {exc}") from exc
        if choice.device_kernel is not None:
            names = [tensor.name for tensor in bundle.manifest.graphs[GRAPH].inputs]
            modules[GRAPH] = _kernel_module(torch, choice.device_kernel, names)
        return cls(bundle.manifest, modules, device, reason, choice, threads)

    def warmup(self, batches: Sequence[int] = (1,)) -> None:
        """Run every shape and, on CUDA, capture it in every lane; see :meth:`Backend.warmup`."""
        if self._lanes is None:
            super().warmup(batches)
            return
        self._lanes.warm_up(lambda: super(TorchScriptBackend, self).warmup(batches))

    def close(self) -> None:
        """Drop the modules; see :meth:`Backend.close`."""
        super().close()
        if self._lanes is not None:
            self._lanes.close()
        self._modules = {}

    @contextmanager
    def _call(self) -> Iterator[None]:
        import torch

        with torch.inference_mode():
            lane = self._lane
            if self._lanes is None:
                yield
            elif lane is not None:  # warming: the lane is this thread's already
                with torch.cuda.stream(lane.stream):
                    yield
                    lane.finish()
            else:
                with self._lanes.lent() as lane, torch.cuda.stream(lane.stream):
                    yield

    @property
    def _lane(self) -> TorchLane | None:
        return None if self._lanes is None else self._lanes.mine

    def _upload(self, array: np.ndarray | DeviceArray) -> Any:
        import torch

        if self._lane is not None:
            return self._lane.upload(array)
        assert isinstance(array, np.ndarray)  # without lanes no other is taken
        # torch warns of read-only memory, which it could write to; a copy is safe, and rare.
        return torch.from_numpy(array if array.flags.writeable else array.copy())

    def _keep(self, features: dict[str, Any]) -> dict[str, Any]:
        if self._lane is None:
            return features
        return {name: tensor.clone() for name, tensor in features.items()}

    def _download(self, array: Any) -> Any:
        return array.numpy() if self._lane is None else self._lane.download(array)

    def _leave(self, logits: Any) -> list[DeviceArray]:
        parts = self._items(logits)
        return [DeviceArray(part.data_ptr(), tuple(part.shape), "float32", part) for part in parts]

    def _finite_later(self, name: str, array: Any) -> Callable[[], bool]:
        return super()._finite_later(name, array) if self._lane is None else self._lane.finite_later(array)

    def _stack(self, arrays: Sequence[Any]) -> Any:
        import torch

        whole = torch.cat([self._upload(one) if isinstance(one, DeviceArray) else one for one in arrays])
        if isinstance(arrays[0], DeviceArray):  # images yet to be encoded
            return DeviceArray(whole.data_ptr(), tuple(whole.shape), arrays[0].dtype, whole)
        return whole

    def _items(self, array: Any) -> list[Any]:
        return [part.clone() for part in array.split(1)]

    def _run(self, graph: str, feeds: dict[str, Any]) -> dict[str, Any]:
        import torch

        spec, module = self.manifest.graphs[graph], self._modules[graph]
        arguments = [feeds[tensor.name] for tensor in spec.inputs]  # positional, in the manifest's order
        given = (np.ndarray, DeviceArray)
        tensors = tuple(self._upload(a) if isinstance(a, given) else a for a in arguments)
        outputs = module(*tensors) if self._lane is None else self._lane.run(graph, module, tensors)
        if isinstance(outputs, torch.Tensor):
            outputs = (outputs,)
        names = [tensor.name for tensor in spec.outputs]
        if len(outputs) != len(names):
            raise BackendError(
                f"graph {graph!r}: expected the outputs {names}, got {len(outputs)} tensor(s)."
            )
        return dict(zip(names, outputs, strict=True))


def _kernel_module(torch: Any, kernel: DeviceDiffusion, names: Sequence[str]) -> Callable[..., Any]:
    """The kernel as a module of the graph whose place it takes: tensors in the order of ``names``, one out.

    All memory is torch's, so that a CUDA graph that is captured has it to itself.
    """

    def diffused(*tensors: Any) -> Any:
        given = {name: tensor.float().contiguous() for name, tensor in zip(names, tensors, strict=True)}
        image, clicks, logits = (given[name] for name in ("image", "clicks", "logits"))
        (batch, slots, _), size = clicks.shape, image.shape[-1]
        out = torch.empty_like(logits)
        scratch = torch.empty(kernel.scratch_bytes(size), dtype=torch.uint8, device=logits.device)
        call = Call(
            image.data_ptr(),
            clicks.data_ptr(),
            logits.data_ptr(),
            out.data_ptr(),
            scratch.data_ptr(),
            batch,
            slots,
            size,
        )
        kernel.run(call, torch.cuda.current_stream(out.device).cuda_stream)
        return out

    return diffused


def _place(device: str) -> str:
    """torch's name of a device: to torch a bare "cuda" is what each thread has made current."""
    kind, index = host.split_device(device)
    return f"{kind}:{index}" if kind == "cuda" else kind


def _import_torch(device: str) -> Any:
    """The torch module, when it can serve the device."""
    try:
        import torch
    except ModuleNotFoundError as exc:
        raise BackendUnavailableError(
            'expected torch, got no module of that name; run: pip install "clickmask[torchscript]"'
        ) from exc
    except (ImportError, OSError) as exc:
        raise BackendUnavailableError(
            f"expected torch to import, got: {exc}; run: pip install --force-reinstall torch"
        ) from exc
    if not hasattr(torch, "jit"):
        raise BackendUnavailableError(
            f"expected torch, got a module without jit from {host.location(torch)}: half an installation, or "
            "another folder of that name; rename that folder or run: pip install --force-reinstall torch"
        )
    kind, index = host.split_device(device)
    if kind == "cpu":
        return torch
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        raise BackendUnavailableError(
            f"expected torch with {device}, got torch {torch.__version__} with {count} CUDA device(s); "
            "check nvidia-smi, "
            "then install a torch build with CUDA"
        )
    return torch
