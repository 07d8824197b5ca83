# Every target works on a bare machine with python3.11, pip, venv, make and git: it builds .venv when it must.
# CUDA=1 installs the CUDA build of torch (remembered; CUDA=0 goes back). PYTHON=, JOBS= (test processes; 0: one,
# without xdist), COVERAGE=1 (of branches by the fast tests, at least 90 %) and ARGS= (for pytest) may be given too.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
CUDA ?= $(if $(wildcard .venv/.installed-cuda),1)
KIND := $(if $(filter-out 0,$(CUDA)),cuda,cpu)
STAMP := .venv/.installed-$(KIND)
JOBS ?= 2
ARGS ?=

# One thread per test process: small tensors gain nothing from more, and the processes share the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
COVER := $(if $(filter-out 0,$(COVERAGE)),--cov --cov-report=term --cov-fail-under=90)
GPU := $(shell command -v nvidia-smi)

.PHONY: help install demo test test-slow test-all torture lint format types bench lock clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(STAMP)  ## build .venv with trainctl in it (CUDA=1: with the CUDA build of torch)

# The lock names every package: pip resolves nothing, so a release made tomorrow cannot change what is installed.
$(STAMP): requirements/$(KIND).txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@rm -f .venv/.installed-*
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --quiet --no-deps --require-hashes \
	    -r requirements/$(KIND).txt || { cat requirements/TROUBLE.txt >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-index --no-build-isolation -e .
	@touch $@

demo: $(STAMP)  ## train a small network on the table that ships with trainctl
	$(BIN)/trainctl train model=mlp data=tabular

test: $(STAMP)  ## the fast tests (minutes; COVERAGE=1: with coverage)
	$(PYTEST) -n $(JOBS) $(COVER) $(ARGS)

test-slow: $(STAMP)  ## the tests that take more than some seconds each, GPU tests where there is a GPU
	$(PYTEST) -n $(JOBS) -m "slow and not torture$(if $(GPU), or gpu, and not gpu)" $(ARGS)

test-all: test test-slow  ## all tests but the torture

torture: $(STAMP)  ## hundreds of kills and faults (long)
	$(PYTEST) -m torture $(ARGS)

lint: $(STAMP)  ## ruff
	$(BIN)/ruff check .

format: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .

types: $(STAMP)  ## mypy --strict
	$(BIN)/mypy

bench: $(STAMP)  ## the measurements of experiments/benchmarks, side by side
	bash experiments/benchmarks/run.sh

lock:  ## write requirements/*.txt again (UPGRADE=1: with newer versions)
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/python -m pip install --quiet "pip-tools>=7.5"
	.venv/lock/bin/python requirements/lock.py $(if $(UPGRADE),--upgrade)

clean:  ## remove .venv, caches and build products; runs/ and data/ stay
	rm -rf .venv build dist *.egg-info .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
