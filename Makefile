# `make help` lists the targets. `make demo` and `make test` set up all they need.
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
setup: $(VENV)/.installed  ## Create .venv with kfnas and every locked dependency in it, and fetch the two data sets of the examples
	@scripts/fetch_fashion_mnist.sh
	@scripts/fetch_animal_shapes.sh

.PHONY: demo
demo: setup  ## Search on Fashion-MNIST for about seven minutes, end to end; then open the report it names
	$(BIN)/kfnas run examples/fashion_mnist.yaml --set store=runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: try
try: setup  ## One random architecture through every stage, in about a minute
	$(BIN)/kfnas try examples/fashion_mnist.yaml

.PHONY: lint
lint: $(VENV)/.installed  ## Style, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: test
test: setup lint  ## Lint, then every test: unit, contracts on real servers, pipelines, end to end
	$(BIN)/pytest --numprocesses 2 --dist worksteal

.PHONY: test-quick
test-quick: setup  ## The tests that need no server and take no time
	$(BIN)/pytest --numprocesses 2 -m "not slow and not server"

.PHONY: golden
golden: setup  ## Rewrite the compiled pipelines that the tests compare with
	UPDATE_GOLDEN=1 $(BIN)/pytest tests/pipelines

.PHONY: lock
lock:  ## Resolve pyproject.toml again into requirements/dev.txt (needs uv)
	uv pip compile pyproject.toml --group dev --constraint requirements/constraints.txt --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 --output-file requirements/dev.txt

.PHONY: clean
clean:  ## Remove .venv and caches; searches under runs/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
