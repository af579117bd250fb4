# edgeprune: every target makes its own .venv first. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
# Extra words for pip. PyPI's torch for Linux brings CUDA; for the small CPU build:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
BIN := $(VENV)/bin
# Tests and the demo run single-threaded processes side by side; more threads only get in each other's way.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check extras clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: $(VENV)/.installed ## Make .venv from requirements.lock

$(VENV)/.installed: requirements.lock requirements-tflite-micro.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --pre $(PIP_ARGS) -r requirements-tflite-micro.lock || { \
	  echo ""; \
	  echo "!! tflite-micro could not be installed: its nightly builds leave the package index after a while."; \
	  echo "!! edgeprune works without it, but every report will say that parity with TFLite Micro was NOT checked,"; \
	  echo "!! and the tests that need it fail. Put a newer build into requirements-tflite-micro.lock."; \
	  echo ""; }
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## Train a small LITE net, compile it for a Cortex-M4 board, run and measure its firmware
	$(BIN)/edgeprune train --arch lite --data calibration_data/ItalyPowerDemand.npz --epochs 300 --output build/demo/model.pt
	$(BIN)/edgeprune compile build/demo/model.pt --target nucleo-l4r5zi

test: install ## Run the default tests (a few minutes)
	$(BIN)/pytest -q -n 2 --durations=15 -m "not slow"

test-slow: extras ## Run the long proofs too: fuzz, TensorFlow, built wheel (half an hour)
	EDGEPRUNE_REQUIRE_EXTRAS=1 $(BIN)/pytest -q -n 2 --durations=25 -m slow

extras: install ## Add the optional extras: aeon (ucr:NAME) and TensorFlow (second converter)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements-extras.lock

check: install ## Lint, types, quick tests: run it before each commit
	tools/check

clean: ## Remove what was built (not .venv)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
