# Paths are relative and quoted by design: the folder's own path may contain spaces.
# Tools are called as `python -m ...`, so nothing depends on the first line of a script.
PY := .venv/bin/python
PYTHON ?=
export PYTHON
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help venv quickstart test lint format bench docs clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

venv: ## Create or refresh .venv with the development tools (PYTHON=/path/to/python3.11)
	@bash scripts/setup.sh dev

quickstart: ## From raw text to a model that answers, on this machine
	@bash scripts/setup.sh runtime
	@$(PY) -m modelwright run quickstart

test: venv ## Run the tests, two files at a time (ARGS="-k name" chooses, WORKERS=1: one)
	@$(PY) -m pytest $(if $(filter-out 0 1,$(WORKERS)),-n $(WORKERS) --dist loadfile) $(ARGS)

lint: venv ## Style, types, layers, file lengths, banned calls: all are run, any may fail
	@status=0; \
	for tool in '-m ruff check .' '-m ruff format --check .' '-m mypy' \
		'.venv/bin/lint-imports' 'scripts/check_tree.py'; do \
		echo "lint: $$tool"; $(PY) $$tool || status=1; \
	done; exit $$status

format: venv ## Rewrite the code in the house style
	@$(PY) -m ruff check --fix-only .
	@$(PY) -m ruff format .

bench: venv ## Compare with peers: NAME=x [QUICK=1] runs benchmarks/x
	@$(PY) -m benchmarks "$(NAME)" $(if $(filter-out 0,$(QUICK)),--quick)

docs: venv ## Check links and references to code in the documents, the map and the recipe reference
	@$(PY) scripts/check_docs.py && $(PY) scripts/make_map.py --check && \
		$(PY) scripts/make_recipe_reference.py --check

clean: ## Remove .venv, caches and build output; runs are kept
	@rm -rf .venv .venv-unfinished build dist .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis src/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
