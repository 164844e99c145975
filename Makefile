# Two commands: `make demo` sets up and runs the main job, `make test` sets up and passes the tests.
# Everything stays in this tree: .venv (and .venv-tflite-runtime, where Python has that wheel), runs/.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The alternative interpreter needs numpy 1 and Python 3.11 or older, so it gets an environment of its own.
TFLITE_VENV := .venv-tflite-runtime

.PHONY: demo test lint bench clean

demo: $(VENV)/.device
	$(BIN)/edge-app demo

test: $(VENV)/.dev $(TFLITE_VENV)/.done
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.device
	$(BIN)/edge-app bench

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.device: setup.cfg constraints.txt | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/.dev: setup.cfg constraints.txt | $(BIN)/python
	$(PIP) -e ".[dev]"
	touch $@ $(VENV)/.device

$(TFLITE_VENV)/.done: setup.cfg
	if $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then \
	  $(PYTHON) -m venv $(TFLITE_VENV) && \
	  $(TFLITE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[tflite-runtime]" "opencv-python-headless<4.12"; \
	else mkdir -p $(TFLITE_VENV); echo "tflite-runtime has no wheel for this Python: its cross-check is skipped"; fi
	touch $@

clean:
	rm -rf $(VENV) $(TFLITE_VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
