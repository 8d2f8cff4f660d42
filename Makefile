# `make help` lists the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help

.PHONY: help
help:  ## Show this list
	@awk -F ':.*## ' '/^[a-zA-Z_-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: setup
setup: $(VENV)/.installed  ## Create .venv with kfnas and every locked dependency in it

.PHONY: lock
lock:  ## Resolve pyproject.toml again into requirements/dev.txt (needs uv)
	uv pip compile pyproject.toml --group dev --constraint requirements/constraints.txt --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 --output-file requirements/dev.txt
