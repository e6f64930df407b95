"""What the manifest says of plans, from the choices and the machine they are built with and on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clickmask.backends.host_facts import Gpu, host_platform
from clickmask.engine_facts import EngineFacts
from clickmask_export.errors import BuildError
from clickmask_export.tensorrt_options import MEBIBYTE, PlanOptions

_NUMBERS = re.compile(r"\d+(\.\d+){2,3}")  # of "10.14.1.48.post1", what the manifest holds


def engine_facts(version: str, gpu: Gpu, options: PlanOptions, sizes: Sequence[int]) -> EngineFacts:
    """Everything but what is proven of the built plans.

    Args:
        version: of TensorRT.
        gpu: that the plans are built on.
        options: what was chosen.
        sizes: of the network's input.
    """
    numbers = _NUMBERS.match(version)
    if numbers is None:
        raise BuildError(f"expected a version of TensorRT such as 11.4.0.106, got {version!r}")
    return EngineFacts(
        tensorrt=numbers[0],
        # Weights are read with the ONNX parser, which the lean runtime has not.
        flavour="lean" if options.version_compatible and not options.strip_weights else "full",
        platform=host_platform(),
        gpu_name=gpu.name,
        compute_capability=".".join(map(str, gpu.compute_capability)),
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        lean_runtime_inside=options.version_compatible and options.lean_runtime,
        stripped=options.strip_weights,
        flags=options.flags,
        profiles=options.profiles(sizes),
        workspace_bytes=options.workspace_mib * MEBIBYTE,
        half_share=0.0,
        fp32_layers={},
    )
