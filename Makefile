# make run: set everything up and open the explorer. make test: set everything up and test it.

PYTHON ?= python3
PORT ?= 8501
VENV := .venv
BIN := $(VENV)/bin
# The stamp carries the checksum of the pins, so set-up repeats exactly when they change.
STAMP := $(VENV)/.installed-$(shell cksum < requirements.txt | tr -d ' ')

RAY := $(VENV)/.ray-$(shell cksum < requirements-ray.txt | tr -d ' ')

.PHONY: help setup run test lint check
.DEFAULT_GOAL := help

help:
	@echo "make run    set up, fetch the demo pictures, serve on http://localhost:$(PORT)"
	@echo "make test   set up and run every test"
	@echo "make check  set up, lint, check types and run every test"
	@echo "PORT=9000 chooses another port, PYTHON=/path/to/python3 another interpreter."

setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Python 3.11 or newer is needed: name one with PYTHON=/path/to/python3.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --requirement requirements.txt
	@rm -f $(VENV)/.installed-*
	@touch $@

# Without the demo pictures (exit code 2, one sentence) other workspaces still work.
run: setup
	@$(BIN)/python -m explorer demo || [ $$? -eq 2 ]
	@$(BIN)/python -m explorer serve --port $(PORT)

# Ray is for tests alone; where it cannot be had, its tests are skipped.
$(RAY): $(STAMP)
	@$(BIN)/pip install --disable-pip-version-check --quiet --requirement requirements-ray.txt \
	  && touch $@ || echo "Ray cannot be installed here: its tests are skipped."

test: setup $(RAY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test
