# Thin: each target is one or two commands that can be typed by hand once .venv exists.
PYTHON ?= python3
VENV := .venv/bin
DATA ?= ../shared/data

.PHONY: demo test check accuracy parity native bench clean

# Everything below needs the environment; it is made once and again when its inputs change.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(VENV)/python -m pip install --quiet --disable-pip-version-check \
		-e ".[cpu,export,train,evaluation,examples,dev]"
	touch $@

demo: .venv/ready  ## build the default engine from the shipped checkpoint and segment a real photo
	$(VENV)/python export/build_engine.py --checkpoint engines/default.safetensors --output out/engine --force
	$(VENV)/python examples/01_segment_a_photo/segment.py --bundle out/engine --output out/demo

test: .venv/ready  ## the whole suite
	$(VENV)/python -m pytest

check: .venv/ready  ## style and types
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

accuracy: .venv/ready  ## docs/benchmarks/accuracy.md, from the benchmark folders below $(DATA)/eval
	$(VENV)/clickmask evaluate default --root $(DATA)/eval --dataset grabcut berkeley davis coco_mval_dev \
		--markdown docs/benchmarks/accuracy.md

parity: .venv/ready  ## docs/benchmarks/parity.md, from a bundle of every family built here; half an hour
	PYTHONPATH=tests/models $(VENV)/python tests/export/parity_table.py --shared $(DATA)/..

build/native/CMakeCache.txt:
	cmake -S . -B build/native

native: build/native/CMakeCache.txt  ## the compiled Pixel Diffusion beside the package, and its ctest
	cmake --build build/native --parallel 2
	cmake --install build/native --prefix sdk/clickmask --component library
	ctest --test-dir build/native --output-on-failure

bench: .venv/ready native  ## times of Pixel Diffusion, side by side; on a quiet machine
	$(VENV)/python sdk/native/bench/pixel_diffusion.py --json out/bench/pixel_diffusion.json \
		--bandwidth build/native/sdk/native/tests/read_bandwidth

clean:
	rm -rf .venv out build dist
