# Each target works on a fresh machine that has python3 (3.11 or newer) with pip
# and venv; what a target needs is installed into .venv the first time.
PYTHON ?= python3
BIN := .venv/bin
# Stamps: what setup.py asked for when they were made is installed.
DEFAULT := .venv/installed-default
ALL := .venv/installed-all

.PHONY: setup run test bench bench-gpu docs lint

setup: $(ALL)

run: $(DEFAULT)
	$(BIN)/dopamine-jax train dqn_cartpole

test: $(ALL)
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations 40

# A choice of jobs and peers: make bench ARGS='--jobs A B-valid --peers sb3'.
bench: $(ALL)
	$(BIN)/python -m benchmarks $(ARGS)

# On an NVIDIA GPU: what this needs besides is installed into the user's cache.
# All of it on a CPU, smaller: make bench-gpu ARGS=--tenth.
bench-gpu: $(DEFAULT)
	$(BIN)/python -m benchmarks --gpu $(ARGS)

# Into site/; to see it while you write: .venv/bin/python -m mkdocs serve.
docs: $(ALL)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(ALL)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) \
	  else "This needs Python 3.11 or newer, and \"$(PYTHON)\" is %d.%d. Name \
	another one: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv

$(DEFAULT): setup.py | .venv/bin/pip
	@echo 'Installing into .venv: about 1.1 GB, a few minutes the first time.'
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(ALL): setup.py | .venv/bin/pip
	@echo 'Installing into .venv: about 1.4 GB, a few minutes the first time.'
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	@touch $(DEFAULT) $@
