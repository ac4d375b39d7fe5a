# Two commands matter: `make demo` and `make test`. `make help` lists the others.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TOOLS  := collector/tools/build

.DEFAULT_GOAL := help
.PHONY: help demo test test-python test-e2e test-servers check bench matrix e2e-tools clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/demo.stamp ## one conversation with seven models of a fake Bedrock, and what it tells
	@$(BIN)/otel-bedrock demo

test: test-python test-e2e ## every test; the end-to-end ones where Go is there

test-python: $(VENV)/test.stamp test-servers
	@$(BIN)/python -m pytest --ignore=tests/e2e

# Without Go there is no collector to test against, which is said and not hidden.
# OTEL_BEDROCK_REQUIRE_E2E=1 makes it a failure.
test-e2e: $(VENV)/test.stamp test-servers
	@if command -v go >/dev/null 2>&1; then \
	  $(TOOLS) && $(BIN)/python -m pytest tests/e2e; \
	elif [ "$$OTEL_BEDROCK_REQUIRE_E2E" = 1 ]; then \
	  echo "The end-to-end tests are required, and need Go to build the collector: install Go 1.26 or newer." >&2; exit 1; \
	else \
	  echo; echo "LEFT OUT: the end-to-end tests with the real collector, Jaeger and Prometheus."; \
	  echo "To have them: install Go 1.26 or newer, then make test again (it builds them once)."; \
	fi

# Redis: on PATH, or from Debian's package, unpacked beside the other tools.
test-servers:
	@tests/debian >/dev/null || if [ "$$OTEL_BEDROCK_REQUIRE_E2E" = 1 ]; then exit 1; else \
	  echo "LEFT OUT: the tests that need the servers named above."; fi

check: $(VENV)/check.stamp ## formatting, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: $(VENV)/bench.stamp ## what a call costs: each layer, then the table of targets (fails where one is missed)
	@$(BIN)/python -m pytest tests/bench/layers.py -q -p no:cacheprovider --benchmark-columns=median,iqr,rounds --benchmark-sort=fullname
	@$(BIN)/python tests/bench/compare.py

matrix: ## the Python tests with the oldest and the newest versions of everything
	@tests/matrix

e2e-tools: ## build the collector, Jaeger and Prometheus (once per version)
	@$(TOOLS)

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "otel-bedrock needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo not there)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "Setting up $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/demo.stamp: $(VENV)/python.stamp pyproject.toml
	@$(BIN)/python -m pip install --quiet --editable '.[cli]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	@$(BIN)/python -m pip install --quiet --group test --group schemas
	@touch $@

$(VENV)/bench.stamp: $(VENV)/test.stamp
	@$(BIN)/python -m pip install --quiet --group bench
	@touch $@

$(VENV)/check.stamp: $(VENV)/test.stamp
	@$(BIN)/python -m pip install --quiet --group check
	@touch $@

clean: ## remove what make set up
	rm -rf $(VENV) .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis
