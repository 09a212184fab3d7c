# Everything runs in .venv, which is made on first use; the second call finds it ready.
#   make demo            make test            make PYTHON=python3.12 test

PYTHON ?= python3
BUDGET ?= 2.4MFLOPs
# Processes that share the tests, never more than there are cores. Each takes up to 3 GB, which is why more are asked for
# by name: make JOBS=8 test
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test conformance export-matrix bench lint format types clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## Run the embedded demo: install, search, report (no data to download)
	$(BIN)/restnet-search --space demo --budget $(BUDGET)

test: $(STAMP) ## Run all tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --durations 20

conformance: $(STAMP) ## Cut one model of every timm family (goes on where it stopped), stitch all pairs of the seed families
	$(BIN)/restnet-search conformance --out reports
	RESTNET_MATRIX=full $(BIN)/python -m pytest tests/matrix

export-matrix: $(STAMP) ## Export eight hybrids in every format that is installed (reports/export_matrix.md)
	$(BIN)/restnet-search export-matrix --out reports

bench: $(STAMP) ## Run all benchmarks (hours); goes on where it was cut off (reports/benchmarks/, training_choices.md)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.choices

lint: $(STAMP) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## Check types
	$(BIN)/pyright

clean: ## Remove caches and build outputs; .venv and reports/ stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find restnet_search tests -type d -name __pycache__ -prune -exec rm -rf {} +

# Written last, so that an installation that was cut off is taken up again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "restnet-search needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
