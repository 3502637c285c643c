# make demo      a data set, five networks, one table: the whole job in minutes (CPU is enough)
# make ladder    every method on the toy city, three seeds each: tables and a chart; about an hour
# make benchmark training, loader and evaluation beside the plain way; docs/performance.md; half an hour
# make torture   runs of every objective, killed and resumed, compared bit by bit: docs/torture.json; some minutes
# make test      the test suite
# make check     formatter, linter, type checker and tests
# make install   only the environment, in .venv

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CODE := uda experiments scripts tests train_uda.py eval_single.py pseudo_label.py predict.py setup.py

.PHONY: install demo ladder benchmark torture test test-slow lint check clean

install: $(VENV)/.installed

# Remade when the dependencies change; left alone otherwise.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "error: Python %d.%d came, 3.11 or newer is needed: make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "error: this Python has no venv module: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install
	$(RUN) scripts/demo.py

ladder: install
	$(RUN) scripts/ladder.py

benchmark: install
	$(RUN) scripts/benchmark.py --markdown docs/performance.md --json docs/performance.json

torture: install
	$(RUN) scripts/torture.py --json docs/torture.json

test: install
	$(RUN) -m pytest -n auto --maxprocesses 4

test-slow: install
	$(RUN) -m pytest -m slow -n 2

lint: install
	$(RUN) -m ruff format --check $(CODE)
	$(RUN) -m ruff check $(CODE)
	$(RUN) -m mypy

check: lint test

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache uda.egg-info
