# `make demo` and `make test` need nothing but Python 3.11: they make .venv when it is missing or outdated.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# onnxruntime and onnxruntime-gpu overwrite each other; only x86-64 has a wheel of the latter, which also runs on CPU.
ENGINE ?= $(if $(filter x86_64,$(shell uname -m)),gpu,cpu)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-hosts backend hostile check docs format bench bench-planning bench-agreement bench-wire faults chaos soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything (two minutes, 2.4 GB)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  for name in python3.11 python3 python; do \
	    if $$name -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	  done; \
	  if [ -z "$$python" ]; then echo 'make: Python 3.11 is needed; none of python3.11, python3, python is one' >&2; exit 1; fi; \
	  if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "make: $$python cannot make virtual environments: install the package python3-venv" >&2; exit 1; fi; \
	  $$python -m venv --clear $(VENV); \
	fi
	@echo 'setting up $(VENV) (a minute)'
	@$(PY) -m pip install --quiet --no-compile --disable-pip-version-check --progress-bar off \
	  -c constraints.txt -e '.[$(ENGINE),planner,launch,serve,demo,docs,dev]'
	@echo 'compiling the planner (most of a minute)'
	@$(PY) -m distredge.control.precompile
	@touch $@

demo: $(STAMP) ## detect text on a scanned page over three unequal local peers; pictures into demo-output/
	@$(PY) -m distredge.demo

test: $(STAMP) ## run the tests
	@$(PY) -m pytest

backend: $(STAMP) ## the whole ONNX backend test suite over two local peers (a few minutes)
	@BACKEND_EVERY=1 $(PY) -m pytest tests/runtime/test_backend.py -q

hostile: $(STAMP) ## hostile input against running peers and decoders; SECONDS=60 each, SEED=1
	@HOSTILE_SECONDS=$(or $(SECONDS),60) HOSTILE_SEED=$(or $(SEED),1) $(PY) -m pytest tests/hostile -s

test-hosts: $(STAMP) ## from a hosts file to answers on four emulated hosts, and the guide's steps; as root (some minutes)
	@DISTREDGE_TEST_HOSTS=1 $(PY) -m pytest tests/launch/test_four_hosts.py

check: $(STAMP) ## lint, formatting, types, import contracts, documented error messages
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m pytest -q --no-header tests/docs/test_troubleshooting.py

docs: $(STAMP) ## build the documentation into site/; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

format: $(STAMP) ## put imports and formatting in order
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

bench: $(STAMP) ## measure overhead, latency and throughput; results and tables (ten minutes)
	@$(PY) -m benchmarks
	@$(PY) -m benchmarks.latency --docs
	@$(PY) -m benchmarks.streaming --docs

bench-planning: $(STAMP) ## compare policies over the grid; tables and picture into docs/benchmarks.md (40 minutes)
	@$(PY) -m benchmarks.planning_rate
	@$(PY) -m benchmarks.planning
	@$(PY) -m benchmarks.planning_links
	@$(PY) -m benchmarks.osds --again
	@$(PY) -m benchmarks.planning_tables

bench-agreement: $(STAMP) ## as root: predicted against measured latency on emulated hosts; table into docs/benchmarks.md
	@$(PY) -m benchmarks.agreement --docs

bench-wire: $(STAMP) ## as root: what coding rows on the wire gains over slow links; tables into docs/benchmarks.md (12 minutes)
	@$(PY) -m benchmarks.wire --docs

SEEDS ?= 20000
faults: $(STAMP) ## run the state machines on a virtual clock SEEDS=20000 times, with everything going wrong
	@$(PY) -m benchmarks.faults --seeds $(SEEDS)

chaos: $(STAMP) ## kill and stop local peers at random under a stream of frames (three minutes)
	@$(PY) -m benchmarks.chaos

soak: $(STAMP) ## stream at full load, memory and open files must stay as they are; MINUTES=30
	@$(PY) -m benchmarks.soak --minutes $(or $(MINUTES),30)

clean: ## remove .venv, caches and outputs
	rm -rf $(VENV) site demo-output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
