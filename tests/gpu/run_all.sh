#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: a fresh environment, everything that is only checked there, and the figures.
# Usage: tests/gpu/run_all.sh [folder for the environment]
#
# It needs the driver, Python 3.11 or newer with its headers and a C++ compiler. What else is missing comes from pip: nvcc
# and cmake, too. Where TensorRT, CuPy, PyCUDA or Polygraphy cannot be installed its tests fail, and the rest is measured
# all the same. It builds some twenty bundles: plan an hour.
set -euo pipefail
cd "$(dirname "$0")/../.."

stop() {
  echo "run_all.sh: $*" >&2
  exit 1
}

if ! command -v nvidia-smi > /dev/null || ! nvidia-smi > /dev/null; then
  stop "expected an NVIDIA GPU with its driver (r580 or newer, for CUDA 13), got none: check nvidia-smi"
fi
command -v c++ > /dev/null || stop "expected a C++ compiler, which nvcc calls, got none: install g++"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv

"${PYTHON:-python3}" -m venv "${1:-.venv-gpu}"
environment=$(cd "${1:-.venv-gpu}" && pwd)
export PATH=$environment/bin:$PATH
install() { python -m pip install --quiet --disable-pip-version-check "$@"; }

command -v cmake > /dev/null || install cmake
install "torch==2.13.*" "onnxruntime-gpu==1.31.*" "cuda-python==13.4.*" "onnx==1.23.*" \
  -e ".[gpu,torchscript,export,evaluation,examples,dev]"
wish() { install "$@" || echo "run_all.sh: $1 is not installed: its tests will fail" >&2; }

wish "tensorrt==11.4.0.106"
wish "tensorrt-lean==11.4.0.106"
wish "polygraphy==0.53.6"
wish "cupy-cuda13x==14.2.*"

python - << 'CHECK'
import sys
import onnxruntime, torch
from clickmask.backends.host_facts import host_facts
facts = host_facts()
print(facts)
if not facts.gpus:
    sys.exit(f"run_all.sh: expected a CUDA device, got none with a driver for CUDA {facts.cuda}; check the driver")
if not torch.cuda.is_available():
    sys.exit(f"run_all.sh: expected torch with CUDA, got {torch.__version__}: pip's index may have builds for the "
             "processor only; install one with CUDA into the environment and run this again")
if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
    sys.exit("run_all.sh: expected ONNX Runtime with CUDA, got the CPU build: is onnxruntime installed beside -gpu?")
CHECK

if ! command -v nvcc > /dev/null; then  # pip's, of the CUDA that torch brought
  toolkit=$environment/$(cd "$environment" && ls -d lib/python3*/site-packages/nvidia/cu13)
  cuda=$(python -c "from importlib.metadata import version; print(version('nvidia-cuda-runtime').rpartition('.')[0])")
  install "nvidia-cuda-nvcc==$cuda.*" "nvidia-cuda-crt==$cuda.*" "nvidia-nvvm==$cuda.*" "nvidia-cuda-cccl==$cuda.*" \
    "nvidia-cuda-profiler-api==$cuda.*"
  ln -sfn lib "$toolkit/lib64"  # where nvcc looks
  export PATH=$toolkit/bin:$PATH
fi
# PyCUDA is compiled against the toolkit, and two libraries by the names that a linker looks for: of the driver's a stub
# will do, whose symbols are found when the driver's own is loaded.
toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
links=$environment/lib/pycuda
mkdir -p "$links"
echo | c++ -shared -x c++ -Wl,-soname,libcuda.so.1 -o "$links/libcuda.so" -
curand=$(find "$toolkit/" "$environment/lib" -name 'libcurand.so.10' -print -quit)
ln -sfn "${curand:-libcurand.so.10}" "$links/libcurand.so"
export CPPFLAGS=-I$toolkit/include
export LDFLAGS="-Wl,--no-as-needed -L$links -Wl,-rpath,$(dirname "${curand:-/usr/lib/x}")"
wish "pycuda==2026.1"
unset CPPFLAGS LDFLAGS

cmake -S . -B build/gpu -DCLICKMASK_CUDA=ON -DCLICKMASK_TESTS=OFF
cmake --build build/gpu --target clickmask_native_cuda
cmake --install build/gpu --prefix sdk/clickmask --component cuda

# A warning that a library has for this machine alone is shown, and fails nothing.
status=0
CLICKMASK_REQUIRE_GPU=1 python -m pytest tests/gpu tests/native -m gpu -ra -W default || status=$?
echo "Figures: $(ls docs/benchmarks/gpu-*.md 2> /dev/null || echo none)"
exit "$status"
