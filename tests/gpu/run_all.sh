#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: a fresh environment, everything that is only checked there, and the figures.
# Usage: tests/gpu/run_all.sh [folder for the environment]
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=${1:-.venv-gpu}

if ! command -v nvidia-smi > /dev/null || ! nvidia-smi > /dev/null; then
  echo "run_all.sh: expected an NVIDIA GPU with its driver (r580 or newer, for CUDA 13), got none: check nvidia-smi" >&2
  exit 1
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv

"${PYTHON:-python3}" -m venv "$environment"
python=$environment/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
  "torch==2.13.*" "onnxruntime-gpu==1.31.*" "tensorrt==11.4.0.106" "cuda-python==13.4.*" "onnx==1.23.*" \
  -e ".[gpu,tensorrt,torchscript,export,evaluation,examples,dev]"

"$python" - << 'CHECK'
import sys
import onnxruntime, torch
from clickmask.backends.host_facts import host_facts
facts = host_facts()
print(facts)
if not facts.gpus or not torch.cuda.is_available():
    sys.exit(f"run_all.sh: expected a CUDA device, got driver {facts.cuda}, torch {torch.__version__}; check the driver")
if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
    sys.exit("run_all.sh: expected ONNX Runtime with CUDA, got the CPU build: is onnxruntime installed beside -gpu?")
CHECK

CLICKMASK_REQUIRE_GPU=1 "$python" -m pytest tests/gpu tests/sdk tests/native -ra
echo "Figures: docs/benchmarks/gpu-*.md"
