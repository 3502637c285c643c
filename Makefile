# make demo      a data set, four networks, one table: the whole job in minutes (CPU is enough)
# make ladder    every method on the toy city, three seeds each: tables and a chart; only what has changed is run (all: hours)
# make benchmark training, loader and evaluation next to a plain PyTorch loop; docs/performance.md; 40 minutes
# make torture   runs of every objective, killed and resumed, compared bit by bit: docs/torture.json; some minutes
# make test      the fast tests
# make test-slow the tests of half a minute and more
# make test-oldest  the fast tests in OLDEST_TESTS below, on the oldest versions that pyproject.toml admits
# make check     formatter, linter, type checker and tests
# make browser   Chromium for the tests that click through reports (they are slow tests; without it they are skipped)
# make install   only the environment, in .venv

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
OLDEST := .venv-oldest
OLDEST_PYTHON ?= $(shell command -v python3.11 || echo $(PYTHON))
# Rooms that use other packages most. Not all tests, for the sake of time: fuzzing, systems, scripts and
# experiments run on the newest versions only.
OLDEST_TESTS ?= $(addprefix tests/,adaptation augmentation checkpoints commands data evaluation labels models \
  objectives optim prediction reports training translation utilities)
CODE := uda experiments scripts tests train_uda.py eval_single.py pseudo_label.py predict.py setup.py

.PHONY: install demo ladder benchmark torture test test-slow test-oldest browser lint check clean

install: $(VENV)/.installed

# Rebuilt when the dependencies change.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "error: got Python %d.%d, 3.11 or newer is needed: make PYTHON=python3.12" % sys.version_info[:2])'
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
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist worksteal

test-slow: install
	$(RUN) -m pytest -m slow -n 2 --dist worksteal

browser: install
	$(RUN) -m pip install --quiet 'playwright>=1.49'
	$(RUN) -m playwright install chromium

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(OLDEST_TESTS)

# As large as the other environment: the download takes minutes.
$(OLDEST)/.installed: pyproject.toml scripts/oldest_versions.py
	$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python scripts/oldest_versions.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable '.[test]'
	@touch $@

lint: install
	$(RUN) -m ruff format --check $(CODE)
	$(RUN) -m ruff check $(CODE)
	$(RUN) -m mypy

check: lint test

clean:
	rm -rf $(VENV) $(OLDEST) build .mypy_cache .pytest_cache .ruff_cache uda.egg-info
