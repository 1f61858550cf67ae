# Two commands do everything on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two processes, each with whole files; the same order of sets in both, as they must agree on the tests' names.
TESTS := PYTHONHASHSEED=0 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint benchmark clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv and install Foretune with its tested versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Foretune needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP) ## fine-tune the bundled MiniLM on the example messages and print the report
	rm -rf runs/demo
	$(BIN)/foretune fit examples/support_tickets.csv --output runs/demo

test: $(STAMP) ## run lint and the tests (under 12 minutes on 2 cores)
	$(MAKE) --no-print-directory lint
	$(TESTS)

test-all: $(STAMP) ## run every test, the slow ones too
	$(MAKE) --no-print-directory lint
	$(TESTS) -m ''

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: $(STAMP) ## measure speed against Hugging Face Trainer (long)
	$(BIN)/python benchmarks/throughput.py

clean: ## remove the environment and runs
	rm -rf $(VENV) runs
