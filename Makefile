# `make demo` and `make test` are all the set-up there is; both work on a fresh machine.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.dev
ARGS ?=

.PHONY: install demo test retest lint format bench testbed package locks clean

install: $(STAMP)  ## pra-agent in .venv

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[all]'
	touch $@

$(DEV): $(STAMP) tests/requirements.txt packaging/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
	touch $@

demo: install  ## back up, destroy, restore, verify: on an embedded repository
	$(BIN)/pra-agent demo

testbed: $(DEV)  ## install the real servers that the tests run (root), or say which are missing
	bash tests/testbed/install.sh

test: testbed  ## everything, real servers included
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

retest: testbed  ## only what failed last time, one after another
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/codespell agent tests docs packaging README.md Makefile .ci
	$(BIN)/shellcheck --external-sources .ci/run $$(git ls-files '*.sh')

format: $(DEV)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: testbed  ## against the system's restic, in the same run
	$(BIN)/python -m tests.bench $(ARGS)

package: $(DEV)  ## .deb and .rpm of every target, wheel, sdist, bill of materials, checksums: into dist/
	PYTHON=$(BIN)/python packaging/build.sh $(ARGS)

locks: $(DEV)  ## lock the dependencies anew, for each Python that there are packages for
	UV=$(BIN)/uv packaging/lock.sh --upgrade

clean:
	rm -rf $(VENV) build dist
