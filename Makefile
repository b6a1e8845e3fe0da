# What readers, teachers and CI run; `make help` lists it. Settings go on the command line: make reproduce NOTEBOOK=02

# An interpreter of Python 3.11 to 3.13; it is only asked to create .venv.
PYTHON ?= python3
# Exact versions of every package; empty takes what the index offers.
CONSTRAINTS ?= constraints.txt
# A package index for torch alone, such as its vendor's index of CPU builds.
TORCH_INDEX ?=
# For reproduce: which notebook (number or name), how much work, which data.
NOTEBOOK ?= all
PROFILE ?= auto
DATA ?= auto
# For test: the notebooks changed since this commit are run; empty takes the fork from main, or the last commit.
BASE ?=
# For test: how many tests run at once, each in a process that takes up to 1 GB; 0 is one by one, in one process.
WORKERS ?= auto

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PINNED := $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
READY := .venv/ready
# worksteal gives each process a run of neighbours, which share what they set up, and later the rest of a slower one;
# loadfile keeps the cells of a notebook in one kernel.
MANY := --numprocesses $(WORKERS) --dist

NEEDS := fusionlab needs Python 3.11, 3.12 or 3.13, and
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
NO_TORCHVISION := import importlib.util, sys; sys.exit(importlib.util.find_spec("torchvision") is not None)

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test bench notebooks student lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## create .venv with everything in it (once; again when the requirements change)

$(READY): pyproject.toml $(CONSTRAINTS)
	@test ! -x $(BIN)/python || $(BIN)/python -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "$(NEEDS) .venv is not; remove it with make clean, then name one: make setup PYTHON=python3.13" >&2; \
		exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		$(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { \
			echo "$(NEEDS) $(PYTHON) is not; name one: make setup PYTHON=python3.13" >&2; \
			exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "$(PYTHON) cannot create environments with pip; install its venv package (Debian, Ubuntu: python3-venv)" >&2; \
			exit 1; }; \
		$(PYTHON) -m venv --clear .venv; }
	@echo "Installing into .venv: about 2 GB, some minutes the first time."
	$(if $(TORCH_INDEX),$(PIP) install --quiet $(PINNED) --no-deps --index-url $(TORCH_INDEX) torch)
	$(PIP) install --quiet $(PINNED) --editable '.[course,dev]'
	$(PIP) install --quiet $(PINNED) --no-deps lpips
	@$(BIN)/python -c '$(NO_TORCHVISION)' || { \
		echo "torchvision came into .venv, where a build unfit for torch breaks imports; remove it: $(BIN)/pip uninstall torchvision" >&2; \
		exit 1; }
	@touch $@

reproduce: setup ## run the notebooks and write runs/<stamp>/index.html
	$(BIN)/fusionlab run $(filter-out all,$(NOTEBOOK)) --profile $(PROFILE) --data "$(DATA)"

test: export FUSIONLAB_PROFILE := smoke
test: export OMP_NUM_THREADS := 1
test: setup ## lint, types, tests, and notebook 00 with the changed notebooks at smoke
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest $(MANY) worksteal --durations=15
	base=$${BASE:-$$(git merge-base HEAD origin/main 2>/dev/null || echo HEAD~1)}; \
	changed=$$(git diff --name-only --diff-filter=d "$$base" -- 'notebooks/*.ipynb' 2>/dev/null); \
	$(BIN)/python -m pytest $(MANY) loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=120 --durations=15 \
		$$(printf '%s\n' notebooks/00_start_here.ipynb $$changed | sort -u)

# Without the limit of ten minutes a test, which a busy machine would break.
bench: setup ## measure speed; prints, judges only ratios
	$(BIN)/python -m pytest -s --timeout 0 tests/benchmarks

notebooks: setup ## execute the notebooks on scenes at laptop and store their outputs
	$(BIN)/python -m fusionlab.tools.edition build

student: setup ## write the student edition, without solutions
	$(BIN)/python -m fusionlab.tools.edition student

lock: setup ## rewrite constraints.txt from the versions in .venv
	@{ echo "# Exact versions that were tested together; written by make lock."; \
		$(PIP) freeze --all --exclude-editable --exclude pip | sed 's/+.*//' | LC_ALL=C sort -f; } > constraints.new
	@if grep ' @ ' constraints.new; then echo "no version: installed from a file" >&2; rm constraints.new; exit 1; fi
	@mv constraints.new constraints.txt && touch $(READY)

clean: ## remove .venv, caches and builds; runs/ stays
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find fusionlab tests -name __pycache__ -prune -exec rm -rf {} +
