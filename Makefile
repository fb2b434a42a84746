# One door to everything. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3# any Python from 3.11 on; used once, to make the environment
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.forestay-ready
UV_VERSION := 0.13.9
TORCH_VERSION := 2.13.0
ARGS ?=# further arguments for run, demo, test and bench
TESTS ?= tests
PROCESSES ?= 2# test processes; each module's tests stay in one
# What a model process imports. It never writes bytecode itself, and uv installs none, so it stands ready from setup on:
# a process with diffusers starts in half the processor time.
MODEL_IMPORTS := accelerate, fal, onnxruntime, peft, scipy.stats, sklearn.linear_model, \
	diffusers.models.unets.unet_1d, diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img

# Some images set it; every process of the platform and of the tests would then compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## make .venv with everything that demo, tests and checks need

$(STAMP): requirements.lock pyproject.toml tools/install_torch.py tests/acceptance/js/package-lock.json
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Forestay needs Python 3.11 or newer; {sys.executable} is {v.major}.{v.minor}. Say: make PYTHON=python3.12")'
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/uv --version 2>/dev/null | grep -q ' $(UV_VERSION)' || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/python tools/install_torch.py $(TORCH_VERSION)
	@echo "installing the locked packages"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@echo "writing bytecode: ours, and that of the model libraries"
	@$(BIN)/python -m compileall -q src || true
	@$(BIN)/python -c "import $(MODEL_IMPORTS)" 2> /dev/null || echo "not written: models start slower, nothing else"
	@$(BIN)/python tools/install_node_packages.py tests/acceptance/js
	@touch $@
	@echo "ready: make demo"

.PHONY: demo
demo: $(STAMP) ## the tour: one story in four minutes, every promise kept, results under demo-output/
	@$(BIN)/forestay demo $(ARGS)

.PHONY: run
run: $(STAMP) ## start the platform with the example fleet and keep it running
	@$(BIN)/forestay up --data-dir .forestay --fleet examples/fleet.yaml $(ARGS)

.PHONY: test
test: $(STAMP) ## every test but the slow ones
	@$(BIN)/pytest -m "not slow" -n $(PROCESSES) --dist loadscope $(TESTS) $(ARGS)

.PHONY: test-all
test-all: $(STAMP) ## every test, the slow ones too
	@$(BIN)/pytest -n $(PROCESSES) --dist loadscope $(TESTS) $(ARGS)

.PHONY: check
check: $(STAMP) ## style, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/basedpyright -p tests
	@$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## put every file into the house form
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

.PHONY: bench
bench: $(STAMP) ## one benchmark against its targets: make bench ARGS=submit
	@$(BIN)/python -m bench $(ARGS)

.PHONY: docs
docs: $(STAMP) ## write the generated reference pages anew
	@$(BIN)/python tools/write_reference.py

.PHONY: lock
lock: ## resolve every dependency anew into requirements.lock
	@test -x $(BIN)/uv || $(MAKE) --no-print-directory setup
	@$(BIN)/uv pip compile pyproject.toml tools/lock-torch-needs.txt --all-extras --group dev --upgrade --quiet \
		--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --overrides tools/lock-overrides.txt --output-file requirements.lock
	@echo "requirements.lock: $$(grep -c '^[a-z]' requirements.lock) packages"

.PHONY: clean
clean: ## remove the environment, caches and what demo and run left behind
	@rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache .forestay demo-output build \
		tests/acceptance/js/node_modules
