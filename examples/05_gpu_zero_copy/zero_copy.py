"""A picture that is on the GPU already stays there: a PyCUDA array in, the mask in a PyCUDA array out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from clickmask import BackendUnavailableError, Segmenter
from clickmask.backends.device_kernels import view_kernels

CLICKS = [(220, 120, True), (230, 330, True), (60, 250, False)]


def refusal(bundle: Path | None) -> str | None:
    """Why this machine cannot run the example, and what would help; None where it can."""
    try:
        # Not pycuda.autoinit, which makes a context of its own, where nothing of ours can be used.
        import pycuda.autoprimaryctx  # noqa: F401
    except ModuleNotFoundError as error:
        return f"expected PyCUDA, got: {error}; run: pip install pycuda (it needs the CUDA toolkit to build)"
    except Exception as error:  # no driver, no device: PyCUDA has an exception for each
        return f"expected a CUDA device, got: {error}; check nvidia-smi"
    try:
        view_kernels()
        Segmenter.load(bundle, device="cuda").close()
    except BackendUnavailableError as error:
        return str(error)
    return None


def run(bundle: Path | None, output: Path) -> None:
    """Segments, and lets a kernel of the application cut the object out."""
    from pycuda import elementwise, gpuarray

    picture = gpuarray.to_gpu(data.astronaut())  # stands for a camera's or a decoder's frame
    mask = gpuarray.empty(picture.shape[:2], np.uint8)
    with Segmenter.load(bundle, device="cuda") as segmenter:
        session = segmenter.session(picture)  # no copy: crops are cut from it where it is
        session.replay(CLICKS)
        session.device_mask(out=mask)  # 0 and 1, ready for the next kernel
    darken = elementwise.ElementwiseKernel(
        "unsigned char *out, const unsigned char *picture, const unsigned char *mask",
        "out[i] = mask[i / 3] ? picture[i] : picture[i] / 4",
        "darken",
    )
    cutout = gpuarray.empty_like(picture)
    darken(cutout, picture, mask)
    output.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(output / "cutout.png"), cutout.get()[..., ::-1])
    print(f"{int(gpuarray.sum(mask, np.int64).get())} object pixels; wrote {output / 'cutout.png'}")


def main() -> int:
    """Runs the example, or says why it cannot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="engine bundle (default: the one that ships)")
    parser.add_argument(
        "--output", type=Path, default=Path("out/gpu_zero_copy"), help="folder for the picture"
    )
    parser.add_argument("--check", action="store_true", help="only say whether this machine can run it")
    arguments = parser.parse_args()
    problem = refusal(arguments.bundle)
    if problem is not None:
        print(problem, file=sys.stdout if arguments.check else sys.stderr)
        return 0 if arguments.check else 1
    if arguments.check:
        print("this machine can run it")
    else:
        run(arguments.bundle, arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
