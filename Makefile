# Thin: each target is one or two commands that can be typed by hand once .venv exists.
PYTHON ?= python3
VENV := .venv/bin
DATA ?= ../shared/data

.PHONY: demo test check accuracy clean

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

clean:
	rm -rf .venv out build dist
