# `make` lists what there is. Every target makes its own .venv first; nothing else is touched.
.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint types docs bench stress audit lock clean

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Options of the demo's training, e.g. make demo OPTIONS="seed=1 trainer.max_epochs=10"
OPTIONS ?=

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: .venv/dev ## Make .venv with the library, editable, and the tools to work on it

.venv/run: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or make PYTHON=<path>"; exit 1; }
	@echo "Setting up .venv (once; torch and what it needs take a minute or more)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "cannot make a virtual environment: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@$(PIP) install -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/run
	@$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@

demo: .venv/run ## Pretrain on real 3D models, minutes on a laptop: a table and a page of pictures
	@$(BIN)/python -m recon.train experiment=pretrain_furniture $(OPTIONS)

test: .venv/dev ## Run the fast tests
	@$(BIN)/python -m pytest -q -n auto -m "not slow"

test-all: .venv/dev ## Run all tests, the slow ones too
	@$(BIN)/python -m pytest -q -n auto

lint: .venv/dev ## Check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: .venv/dev ## Check types
	@$(BIN)/mypy

docs: .venv/dev ## Build the documentation as a site, strictly: site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/run ## Time the hot paths against their plain definitions: outputs/bench.json, half an hour
	@$(BIN)/python scripts/bench/run.py $(OPTIONS)

stress: .venv/dev ## Kill, starve and damage trainings and preparations; print what it cost
	@OMP_NUM_THREADS=1 $(BIN)/python scripts/stress/faults.py

audit: .venv/dev ## Compare installed versions with known vulnerabilities, where the network allows
	@$(BIN)/python scripts/audit.py

lock: .venv/dev ## Pin the versions that are installed, all of them, in constraints.txt
	@{ echo "# Versions that the tests ran with, of everything that is installed: made by \`make lock\`, used by"; \
		echo "# \`make install\`. The package itself allows ranges."; \
		$(BIN)/python -m pip list --disable-pip-version-check --format=freeze --exclude recon-pointcloud --exclude pip --exclude setuptools; } > constraints.new
	@sed 's/+.*//' constraints.new > constraints.txt # a build for one device alone is of the same version
	@rm constraints.new

clean: ## Remove .venv and everything that was built or cached; outputs/ stays
	@rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
