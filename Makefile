# Thin: each target is one or two commands that can be typed by hand once .venv exists.
PYTHON ?= python3
VENV := .venv/bin
DATA ?= ../shared/data

.PHONY: demo test check accuracy parity native native-arm bench test-gpu clean

# Everything below needs the environment; it is made once and again when its inputs change.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(VENV)/python -m pip install --quiet --disable-pip-version-check \
		-e ".[cpu,export,train,evaluation,examples,debug,dev,bindings]"
	touch $@

demo: .venv/ready  ## build the default engine from the shipped checkpoint and segment a real photo
	$(VENV)/python export/build_engine.py --checkpoint engines/default.safetensors --output out/engine --force
	$(VENV)/python examples/01_segment_a_photo/segment.py --bundle out/engine --output out/demo

test: .venv/ready  ## the whole suite
	$(VENV)/python -m pytest --numprocesses 2 --dist loadfile

check: .venv/ready  ## style and types
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

BENCHMARKS := --root $(DATA)/eval --dataset grabcut berkeley davis coco_mval_dev --protocol-size --workers 2

# Built once: reports go on with the very bundle that they began with.
out/default-with-flips/manifest.json: engines/default.safetensors models/clickmask_models/presets.py | .venv/ready
	$(VENV)/python export/build_engine.py --checkpoint $< --flip --output $(@D) --force

accuracy: .venv/ready out/default-with-flips/manifest.json  ## accuracy.md and accuracy-with-flips.md in docs/benchmarks
	$(VENV)/clickmask evaluate default $(BENCHMARKS) --anchor grabcut random_walker --anchor-on grabcut berkeley \
		--json out/accuracy.json --markdown docs/benchmarks/accuracy.md
	$(VENV)/clickmask evaluate out/default-with-flips $(BENCHMARKS) \
		--json out/accuracy-with-flips.json --markdown docs/benchmarks/accuracy-with-flips.md

parity: .venv/ready  ## docs/benchmarks/parity.md, from a bundle of every family built here; an hour or two
	PYTHONPATH=tests/models $(VENV)/python tests/export/parity_table.py --shared $(DATA)/..

build/native/CMakeCache.txt:
	cmake -S . -B build/native

native: build/native/CMakeCache.txt  ## the compiled Pixel Diffusion beside the package, and its ctest
	cmake --build build/native --parallel 2
	cmake --install build/native --prefix sdk/clickmask --component library
	ctest --test-dir build/native --output-on-failure

native-arm:  ## the same for 64-bit Arm, its ctest under qemu (Debian: g++-aarch64-linux-gnu qemu-user-static)
	cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=sdk/native/cmake/aarch64-linux.cmake
	cmake --build build/aarch64 --parallel 2
	ctest --test-dir build/aarch64 --output-on-failure

bench: .venv/ready native  ## docs/benchmarks/cpu.md: the default bundle on this CPU, side by side; ten quiet minutes
	$(VENV)/python export/benchmark_cpu.py --json out/bench/cpu.json --output docs/benchmarks/cpu.md \
		--bandwidth build/native/sdk/native/tests/read_bandwidth

test-gpu:  ## on a machine with an NVIDIA GPU: sets up .venv-gpu, runs all, writes docs/benchmarks/gpu-<device>.md
	tests/gpu/run_all.sh

clean:
	rm -rf .venv .venv-gpu out build dist
