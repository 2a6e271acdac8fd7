.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# DeepSpeed compiles its ops with the ninja that is installed beside it.
export PATH := $(abspath $(BIN)):$(PATH)
# Installed first and by exact version, so that no dependency's range pulls a newer build.
TORCH ?= torch==2.13.0

.PHONY: help setup demo test faults study lint types tables bench clean

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip setuptools wheel
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q --no-build-isolation -e '.[dev]'
	@touch $(STAMP)

setup: $(STAMP)  ## virtual environment with everything the targets below need

demo: $(STAMP)  ## Math -> Law -> Code on a tiny model, plain and with SFA, side by side
	$(BIN)/sfa-hf demo

test: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -m "not slow" -n 2

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy
	$(BIN)/mypy

tables: $(STAMP)  ## the tables of keys in docs/configuration.md
	$(BIN)/python docs/write_tables.py

faults: $(STAMP)  ## kill runs on every engine, fill disks, damage files: minutes
	$(BIN)/python -m tests.faults.survive --kills 30 plain
	$(BIN)/python -m tests.faults.survive --kills 10 ddp zero1 zero2 zero3
	$(BIN)/python -m pytest -m "slow or not slow" -s tests/faults

study: $(STAMP)  ## every method on the demo's tasks, 3 seeds, tables and plots: an hour
	$(BIN)/sfa-hf compare demo

bench: $(STAMP)  ## what a merge costs on each engine, next to the recipes in use today
	$(BIN)/python benchmarks/merge_engines.py

clean:  ## remove the virtual environment, caches and runs
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
