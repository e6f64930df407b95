"""Does a TensorRT plan load on this machine? Decided from facts alone, before TensorRT is touched.

TensorRT has no such check of its own, and without a driver its runtime crashes the process. The rules are
those of NVIDIA's compatibility pages for TensorRT 10.12 to 11.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .backends.host_facts import Gpu, HostFacts, Package
from .engine_facts import EngineFacts

_INSTALL = 'pip install "clickmask[tensorrt]"'
_AMPERE = (8, 0)
_OLDEST, _FIRST_UNKNOWN = (10, 12), (12,)


@dataclass(frozen=True)
class Verdict:
    """Whether a plan loads.

    Attributes:
        loads: Whether it does.
        module: What to load it with, where it does.
        text: Why, or why not and what to do.
    """

    loads: bool
    module: Literal["tensorrt", "tensorrt_lean"] | None
    text: str


class _Refusal(Exception):
    """Carries the text of a verdict out of the rule that found it."""


def verdict(
    engine: EngineFacts, host: HostFacts, index: int = 0, *, trust_host_code: bool = False
) -> Verdict:
    """Decide for the plans of one artefact.

    Args:
        engine: What the bundle says of them.
        host: What this machine has.
        index: Number of the CUDA device.
        trust_host_code: Whether code that a plan carries may run in this process.
    """
    rebuild = "or rebuild here: python export/build_engine.py --target tensorrt"
    try:
        _check_machine(engine, host, index)
        _check_gpu(engine, host.gpus[index], rebuild)
        package, module = _runtime(engine, host, rebuild)
        _check_cuda(package, host)
        if engine.lean_runtime_inside and not trust_host_code:
            raise _Refusal(
                "expected trust_host_code=True for a plan that carries a lean runtime, which is code that "
                "this process would run, got trust_host_code=False; pass it if you trust the bundle's maker "
                "(--trust-host-code on the command line), or rebuild the plan without its lean runtime"
            )
        if host.foreign_context:
            raise _Refusal(
                "expected the device's primary CUDA context, got another one, as pycuda.autoinit makes; "
                "import pycuda.autoprimaryctx in its place"
            )
    except _Refusal as refusal:
        return Verdict(False, None, str(refusal))
    return Verdict(
        True,
        module,
        f"a plan of TensorRT {engine.tensorrt} for {engine.gpu_name}, with {package.name} {package.version} "
        f"on {host.gpus[index].name}",
    )


def _check_machine(engine: EngineFacts, host: HostFacts, index: int) -> None:
    if engine.platform != host.platform:
        raise _Refusal(
            f"expected a plan for {host.platform}, got one for {engine.platform}; rebuild it on this system"
        )
    if host.cuda is None:
        raise _Refusal(
            "expected an NVIDIA driver, got none that works; install one (r580 or newer for CUDA 13) and "
            "check nvidia-smi"
        )
    if index >= len(host.gpus):
        raise _Refusal(
            f"expected CUDA device {index}, got {len(host.gpus)} CUDA device(s); check nvidia-smi and "
            "CUDA_VISIBLE_DEVICES"
        )


def _check_gpu(engine: EngineFacts, gpu: Gpu, rebuild: str) -> None:
    here = f"{gpu.name} with compute capability {_dotted(gpu.compute_capability)}"
    built = f"{engine.gpu_name} with compute capability {engine.compute_capability}"
    fits = {
        "none": gpu.name == engine.gpu_name and _dotted(gpu.compute_capability) == engine.compute_capability,
        "same_compute_capability": _dotted(gpu.compute_capability) == engine.compute_capability,
        "ampere_plus": gpu.compute_capability >= _AMPERE,
    }[engine.hardware_compatibility]
    if not fits:
        wanted = {
            "none": f"the GPU of the plan, {built}",
            "same_compute_capability": f"the compute capability of the plan, built on {built}",
            "ampere_plus": "compute capability 8.0 or more, as the plan was built for ampere_plus",
        }[engine.hardware_compatibility]
        raise _Refusal(f"expected {wanted}, got {here}; use another artefact {rebuild}")


def _runtime(
    engine: EngineFacts, host: HostFacts, rebuild: str
) -> tuple[Package, Literal["tensorrt", "tensorrt_lean"]]:
    """The installed runtime that loads the plan, the full one where both do."""
    if host.tensorrt is None and host.tensorrt_lean is None:
        raise _Refusal(f"expected TensorRT {engine.tensorrt}, got none installed; run: {_INSTALL}")
    problems = []
    if host.tensorrt is not None:
        if (problem := _version_problem(engine, host.tensorrt)) is None:
            return host.tensorrt, "tensorrt"
        problems.append(problem)
    if host.tensorrt_lean is not None:
        if (problem := _lean_problem(engine, host.tensorrt_lean)) is None:
            return host.tensorrt_lean, "tensorrt_lean"
        problems.append(problem)
    cuda = "cu12" if "cu12" in (host.tensorrt or host.tensorrt_lean or Package("", "")).name else "cu13"
    raise _Refusal(f'{"; ".join(problems)}; run: pip install "tensorrt-{cuda}=={engine.tensorrt}" {rebuild}')


def _lean_problem(engine: EngineFacts, package: Package) -> str | None:
    if engine.stripped:
        return f"expected the full TensorRT for a plan without weights, got {package.name} {package.version}"
    if engine.flavour != "lean":
        return f"expected the full TensorRT for this plan, got {package.name} {package.version}"
    return _version_problem(engine, package)


def _version_problem(engine: EngineFacts, package: Package) -> str | None:
    """Why a runtime does not load the plan's version; None where it does."""
    plan, here = _numbers(engine.tensorrt), _numbers(package.version)
    got = f"got {package.name} {package.version}"
    if not _OLDEST <= here < _FIRST_UNKNOWN:
        return f"expected TensorRT 10.12 to 11, {got}"
    digits = min(len(plan), len(here))
    if plan[:digits] == here[:digits]:
        return None
    if not engine.version_compatible:
        return f"expected TensorRT {engine.tensorrt}, as the plan is not version-compatible, {got}"
    if here < plan:
        return f"expected TensorRT {engine.tensorrt} or later, as no plan loads on an earlier one, {got}"
    if not engine.lean_runtime_inside:
        return (
            f"expected TensorRT {engine.tensorrt}, as the plan carries no lean runtime for later ones, {got}"
        )
    if here[0] != plan[0] and (plan[0], here[0]) != (10, 11):
        return f"expected TensorRT {plan[0]}.x, {got}"
    return None


def _check_cuda(package: Package, host: HostFacts) -> None:
    driver = host.cuda or (0, 0)
    wanted, release = ((13, 0), "r580") if package.name.endswith("cu13") else ((12, 2), "r535")
    if driver < wanted:
        raise _Refusal(
            f"expected a driver for CUDA {_dotted(wanted)}, as {package.name} {package.version} needs, got "
            f"one for CUDA {_dotted(driver)}; install driver {release} or newer"
        )
    if host.cuda_bindings is None:
        raise _Refusal(f"expected cuda-python, got no installed distribution of it; run: {_INSTALL}")
    if _numbers(host.cuda_bindings)[0] > driver[0]:
        raise _Refusal(
            f"expected cuda-python {driver[0]}.x, as the driver serves CUDA {_dotted(driver)}, got "
            f'{host.cuda_bindings}; run: pip install "cuda-python=={driver[0]}.*"'
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "11.4.0.106.post1" to ``(11, 4, 0, 106)``."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
