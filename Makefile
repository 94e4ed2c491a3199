# The four things a newcomer wants: `make bench`, `make test`, `make check`, `make perf`.
# All of them set up what they need in .venv. Another Python: make test PYTHON=python3.13

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
# Apart from results/, which already holds these cells: here they are run, not found.
QUICKSTART ?= quickstart-results
# One thread a process: workers run side by side, and one thread makes a re-run bit-identical.
export OMP_NUM_THREADS ?= 1

.PHONY: bench test check perf gpu format clean help
.DEFAULT_GOAL := help

help: ## show the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

bench: $(VENV)/.core ## set up, run the quickstart matrix and build its page
	$(BIN)/bench run --matrix quickstart --jobs $(JOBS) --results $(QUICKSTART)
	$(BIN)/bench leaderboard build --results $(QUICKSTART)

test: check browser ## set up, then run every check and every test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not perf and not gpu"

check: $(VENV)/.dev ## format, lint, types, architecture, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

perf: $(VENV)/.dev ## measure speed with pytest-benchmark
	$(BIN)/python -m pytest tests/perf -m perf --benchmark-only -p no:xdist

gpu: $(VENV)/.dev ## check that a CUDA device gives the numbers of the CPU
	$(BIN)/python -m pytest -m gpu -p no:xdist

format: $(VENV)/.dev ## rewrite the code in its one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and all caches of tools
	rm -rf $(VENV) $(QUICKSTART) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info

.PHONY: browser
browser: ## install the browser that the page tests drive, where it is missing
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	  { echo "Installing chromium for the page tests (Debian)"; apt-get update -q && apt-get install -qy --no-install-recommends chromium; }

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"AugMARL needs Python 3.11 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}. Use: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.core: pyproject.toml | $(VENV)/bin/python
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.core
