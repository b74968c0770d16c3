# The one way in, for people and CI alike. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := services quarterdeck

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint types test demo up bench chaos faults fuzz proto docs lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the virtual environment with the locked dependencies

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Quarterdeck needs Python 3.11 or newer; set PYTHON=… to one" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { echo "venv is missing: install your system's python3-venv package" >&2; exit 1; }
	@echo "Installing the locked dependencies into $(VENV) (once) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

fmt: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

lint: $(READY) ## Style, layers, dependencies, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/python proto/generate.py --check
	$(BIN)/python docs/generate_states.py --check
	$(BIN)/python docs/generate_asyncapi.py --check

types: $(READY) ## Strict static types
	$(BIN)/mypy

test: $(READY) ## Unit, integration, contract and acceptance tests
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not slow and not alone"
	$(BIN)/python -m pytest -m "alone and not slow"

demo: $(READY) ## Run the main job on three real repositories, then stop
	$(BIN)/python -m quarterdeck.demo

up: $(READY) ## Start the local stack in the foreground
	$(BIN)/quarterdeck up

bench: $(READY) ## Measure, print a table, write build/bench.json
	$(BIN)/python -m tests.bench

chaos: $(READY) ## Kill, freeze and restart everything under load, check what must hold (CHAOS="--seed 1 --kills 200")
	$(BIN)/python -m tests.chaos $(CHAOS)

faults: $(READY) ## The tests that wait for broken lines and lost leases; minutes
	$(BIN)/python -m pytest -m slow

fuzz: $(READY) ## Throw arbitrary inputs at every tool, and edits at a model of them (FUZZ="--minutes 5")
	$(BIN)/python -m tests.fuzz $(FUZZ)

proto: $(READY) ## Generate services/contracts from proto/
	$(BIN)/python proto/generate.py

docs: $(READY) ## Make the pages of docs/ that come from the code
	$(BIN)/python docs/generate_states.py
	$(BIN)/python docs/generate_asyncapi.py

lock: $(READY) ## Resolve the dependencies anew into requirements/*.txt
	$(BIN)/uv pip compile -q --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra embedded pyproject.toml -o requirements/runtime.txt
	$(BIN)/uv pip compile -q --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra embedded --group dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt

clean: ## Remove what make made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache *.egg-info
