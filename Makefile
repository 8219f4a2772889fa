# make demo: the main job on images it renders itself.   make test: all tests.   make check: lint, types and tests.
# Each works from a clean clone, in any order, with Python >= 3.11, make and a C compiler; they share one .venv,
# which grows as needed and is left alone while pyproject.toml and constraints.txt don't change.
# A CPU-only torch on Linux: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
SAY := @printf '\n== %s\n'

.PHONY: help demo test check lint types format clean

help:
	@sed -n '1,4s/^# //p' Makefile

demo: $(VENV)/.train
	$(SAY) 'The demo: renders road signs, trains a small MobileNet on them, writes a report'
	$(VENV)/bin/mobilenets demo

test: $(VENV)/.dev
	$(SAY) 'Tests (real material: $(or $(MOBILENETS_TEST_DATA),none, set MOBILENETS_TEST_DATA))'
	$(PY) -m pytest -n auto --maxprocesses 8 --dist worksteal

lint: $(VENV)/.dev
	$(SAY) 'Lint'
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.dev
	$(SAY) 'Types'
	$(PY) -m mypy

check: lint types test

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	$(SAY) 'Removing the virtual environment, caches and what the demo wrote'
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	$(SAY) 'Making a virtual environment in $(VENV)'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo '$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.train: $(VENV)/.made pyproject.toml constraints.txt
	$(SAY) 'Installing mobilenets with what learning needs (torch among it: a few minutes the first time)'
	$(INSTALL) -e '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	$(SAY) 'Installing what tests need'
	$(INSTALL) -e '.[train,cc,app,dev]'
	$(INSTALL) --no-deps 'timm>=1.0.11'
	@touch $@
