# `make serve`: set up, build the book and serve it with live kernels.   `make test`: set up and run every check.
# Needs git, make and Python >= 3.11. Everything is done again only when what it comes from has changed.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# As many tests at once as there are cores; tests/conftest.py says which stay together.
PYTEST := $(BIN)/python -m pytest -n auto

# `make serve ARGS="--port 9000"`
ARGS ?=

.PHONY: help install book serve check unit browser test zoo bench clean

help:
	@echo "make serve    build the course and serve it with live kernels (ARGS=\"--port 9000 --no-browser\")"
	@echo "make book     build the course only"
	@echo "make test     run every check: lint, types, build, unit and browser tests"
	@echo "make check    lint and types           make unit     unit tests"
	@echo "make browser  tests of the built book  make install  set up .venv only"
	@echo "make zoo      shrink the architectures of other libraries, in an environment of its own (minutes)"
	@echo "make bench    every benchmark beside its peers, as one table (minutes; wants an idle machine)"
	@echo "make clean    remove what was built (the environment stays)"

install: $(BIN)/.book-installed

book: install
	@$(BIN)/python -m prunelab build

serve: book
	@$(BIN)/python -m prunelab serve $(ARGS)

check: $(BIN)/.test-installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

unit: $(BIN)/.test-installed
	@$(PYTEST) --ignore=tests/book

browser: $(BIN)/.browser-looked-for book
	@$(PYTEST) tests/book

# One pytest for the unit and the browser tests, so that its last line counts them all.
test: check $(BIN)/.browser-looked-for book
	@$(PYTEST)

# Apart from .venv: torchvision breaks what else is there where torch is a build for the CPU (see zoo/from_torchvision.py).
zoo: .venv-zoo/.installed
	@.venv-zoo/bin/python -m pytest zoo

# fasterai and backpack without their dependencies: fastai would bring torchvision, and what is measured needs neither.
bench: $(BIN)/.test-installed .venv-zoo/.installed
	@$(PIP) --no-deps fasterai fastcore backpack-for-pytorch einops
	@for name in magnitude selection hold correlation information macs layerwise second_order minilm monks lottery; do \
		echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	@echo "== surgery"; .venv-zoo/bin/python benchmarks/surgery.py
	@echo "== all that has a bar"; $(BIN)/python benchmarks/summary.py

clean:
	rm -rf _build artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is %s; name another: make PYTHON=python3.12" % sys.version.split()[0])'
	@$(PYTHON) -m venv .venv

$(BIN)/.book-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the library and the book's tools into .venv ..."
	@$(PIP) -e ".[book]"
	@touch $@

$(BIN)/.test-installed: $(BIN)/.book-installed
	@echo "installing the test tools into .venv ..."
	@$(PIP) -e ".[book,test]"
	@touch $@

.venv-zoo/.installed: zoo/requirements.txt pyproject.toml
	@echo "installing the zoo's libraries into .venv-zoo ..."
	@$(PYTHON) -m venv .venv-zoo
	@.venv-zoo/bin/python -m pip install --quiet --disable-pip-version-check -r zoo/requirements.txt -e .
	@touch $@

# A browser for the tests: the one found here, or one fetched. Without any, they are skipped, or fail where CI=true.
$(BIN)/.browser-looked-for: $(BIN)/.test-installed
	@$(BIN)/python tests/book/chromium.py
	@touch $@
