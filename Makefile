# Two commands matter: `make demo PROMPT="..."` draws a picture, `make test` checks the house.
# Both set everything up in .venv the first time and start at once afterwards.

PROMPT ?= a rocket over a castle
# The first Python that is 3.11 or newer; `make PYTHON=/path/to/python demo` chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable
TESTS ?= tests

export PROMPT  # handed on by the environment: a prompt may hold quotes, dollars, anything

.PHONY: help demo test lint format bench clean

help:
	@echo 'make demo PROMPT="a rocket over a castle"   draw a picture into out/'
	@echo 'make test                                   all checks and tests'
	@echo 'make lint | format | bench | clean'

demo: $(VENV)/.ready-demo
	@$(BIN)/opendalle generate --out out -- "$$PROMPT"

test: lint
	$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/.ready-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports
	$(BIN)/basedpyright
	$(BIN)/ruff check --preview --select DOC102,DOC501 src

format: $(VENV)/.ready-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.ready-dev
	@for bench in bench/*.py; do echo "== $$bench"; $(BIN)/python "$$bench" || exit 1; done

clean:
	rm -rf $(VENV) out build dist

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer was not found; install it, or name it: make PYTHON=/path/to/python'; exit 2; }
	$(PYTHON) -m venv $(VENV)

# A stamp is newer than what was installed from; the demo needs no test tools, and the tests include the demo's packages.
$(VENV)/.ready-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Setting up .venv (once; torch is large) ...'
	$(INSTALL) '.[serve]'
	@touch $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Setting up .venv for development (once) ...'
	$(INSTALL) '.[serve,dev]'
	@touch $@ $(VENV)/.ready-demo
