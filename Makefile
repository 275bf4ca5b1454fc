# `make` lists the targets. A target creates .venv first and changes nothing else.
.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint types docs bench stress audit lock clean

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Options of the demo, e.g. make demo OPTIONS="seed=1 trainer.max_epochs=10"
OPTIONS ?=

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: .venv/dev ## Create .venv with the library (editable) and the development tools

.venv/run: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or make PYTHON=<path>"; exit 1; }
	@echo "Creating .venv (once; torch and its dependencies take a minute or more)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "cannot create a virtual environment: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@$(PIP) install -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/run
	@$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@

demo: .venv/run ## Pretrain on real 3D models in minutes, with a table and a report
	@$(BIN)/python -m recon.train experiment=pretrain_furniture $(OPTIONS)

test: .venv/dev ## Run the fast tests
	@$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow"

test-all: .venv/dev ## Run all tests, including slow ones
	@$(BIN)/python -m pytest -q -n auto --dist worksteal

lint: .venv/dev ## Check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: .venv/dev ## Check types
	@$(BIN)/mypy

docs: .venv/dev ## Build the documentation site: site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/run ## Benchmark against reference implementations: outputs/bench.json, half an hour
	@$(BIN)/python scripts/bench/run.py $(OPTIONS)

stress: .venv/dev ## Inject faults into trainings and preparations, and count lost items
	@OMP_NUM_THREADS=1 $(BIN)/python scripts/stress/faults.py

audit: .venv/dev ## Check installed versions for known vulnerabilities, if the network allows
	@$(BIN)/python scripts/audit.py

lock: .venv/dev ## Pin all installed versions in constraints.txt
	@{ echo "# All versions that the tests ran with, written by \`make lock\` and used by \`make install\`."; \
		echo "# The package itself allows ranges."; \
		$(BIN)/python -m pip list --disable-pip-version-check --format=freeze --exclude recon-pointcloud --exclude pip --exclude setuptools; } > constraints.new
	@sed 's/+.*//' constraints.new > constraints.txt # a local build has the same version
	@rm constraints.new

clean: ## Remove .venv, builds and caches; outputs/ is kept
	@rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
