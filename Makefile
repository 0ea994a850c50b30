# EPI Factory. Each target works on a fresh clone: it makes its own .venv, and builds the engine once a machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WEB := orchestrator/web
EXTRAS := node,surgeon,meter,meter-parquet,orchestrator,telegram
DEV_EXTRAS := $(EXTRAS),dev,docs,provision
# Everything comes in the version, and with the hash, that requirements/ names (made by `make lock`).
comma := ,
locks = $(foreach extra,$(subst $(comma), ,$(1)),-r requirements/$(extra).txt)
PIP := $(BIN)/pip --quiet --disable-pip-version-check
LOCKED := $(PIP) install --no-build-isolation --require-hashes
OURS := $(PIP) install --no-build-isolation --no-deps
# What the test suite needs besides: program -> Debian package.
TEST_TOOLS := curl:curl openssl:openssl chromium:chromium systemd-analyze:systemd rsync:rsync sshd:openssh-server \
    ssh:openssh-client certutil:libnss3-tools
DEMO_ARGS ?=
PICTURES_ARGS ?=
N8N_VERSION := 1.123.81

.PHONY: web web-dev install-dev test-tools test-train test-n8n demo test test-slow check bench docs pictures install lock wheel \
    clean
.DEFAULT_GOAL := demo

demo: install  ## run the whole 25-configuration campaign on this machine
	$(BIN)/epi demo $(DEMO_ARGS)

test: install-dev test-tools  ## the test suite; what the unit tests cover is printed
	$(BIN)/coverage run -m pytest -q -m "not slow" tests/unit
	@echo "lines covered by unit tests: $$($(BIN)/coverage report --format=total) %"
	$(BIN)/pytest -q -m "not slow" --ignore=tests/unit --ignore=tests/train --ignore=tests/n8n

test-slow: install-dev test-tools  ## the long suites (crash matrix, fuzzing, simulation)
	$(BIN)/pytest -q -m slow --ignore=tests/train --ignore=tests/n8n

test-train: install-dev  ## tests of the demo model's recipe; installs PyTorch (the `train` extra)
	$(LOCKED) -r requirements/train.txt
	$(BIN)/pytest -q tests/train

test-n8n: install-dev .n8n/.installed  ## the shipped workflow in the real n8n, which is installed here (2 GB)
	$(BIN)/pytest -q tests/n8n

# Without the packages' own scripts: only the database driver needs to be built.
.n8n/.installed:
	npm install --prefix .n8n --ignore-scripts --no-audit --no-fund --loglevel=error n8n@$(N8N_VERSION)
	npm rebuild --prefix .n8n sqlite3
	@touch $@

check: install-dev  ## style, types and layers of Python and JavaScript
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(WEB)/node_modules/.bin/tsc -p $(WEB)
	cd $(WEB) && node_modules/.bin/eslint static/js
	$(BIN)/lint-imports

bench: install-dev  ## the figures, as ratios in one run
	$(BIN)/python -m tests.bench

docs: install-dev  ## the documentation site, into site/; nothing is loaded from elsewhere
	$(BIN)/mkdocs build --quiet --strict

pictures: install-dev web  ## the README's pictures, from the newest finished demo campaign in results/ or a new one
	$(BIN)/python -m docs.pictures $(PICTURES_ARGS)

install: $(VENV)/.installed web

install-dev: $(VENV)/.installed-dev web-dev

test-tools:
	@missing=""; for pair in $(TEST_TOOLS); do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair##*:}"; done; \
	  [ -z "$$missing" ] || { echo "error: the tests need more; do: sudo apt-get install -y$$missing"; exit 1; }

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older; do: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "error: cannot make a virtual environment; do: sudo apt-get install -y python3-venv"; exit 1; }
	@touch $@

# The engine is compiled for this machine and cached outside the tree; it and the project itself have no hash to name.
$(VENV)/.installed: $(VENV)/.python pyproject.toml shared/llama/engine_wheel.py $(wildcard requirements/*.txt)
	@wheel=$$($(BIN)/python shared/llama/engine_wheel.py) && echo "engine: $$wheel" && \
	  $(LOCKED) -r requirements/build.txt && $(LOCKED) $(call locks,$(EXTRAS)) && $(OURS) "$$wheel" && $(OURS) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(LOCKED) $(call locks,$(DEV_EXTRAS))
	@touch $@

wheel: install-dev  ## a wheel with dashboard and demo in dist/; pip needs the engine's wheel beside it
	rm -rf build dist
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

lock: install-dev  ## pin the newest version of everything that pyproject.toml asks for, by hash
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python requirements/lock.py $(LOCK_ARGS)

# The dashboard's pinned packages, by the machine's npm or by the Node.js that PyPI carries; checking it needs more.
web: $(WEB)/node_modules/.installed

web-dev: $(WEB)/node_modules/.installed-dev

$(WEB)/node_modules/.installed: NPM_OMIT := --omit=dev
$(WEB)/node_modules/.installed $(WEB)/node_modules/.installed-dev: $(WEB)/package-lock.json | $(VENV)/.python
	@if command -v npm >/dev/null; then npm=npm; else \
	  $(LOCKED) -r requirements/npm.txt && npm=$(BIN)/npm; fi; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" $$npm ci $(NPM_OMIT) --ignore-scripts --no-audit --no-fund --loglevel=error --prefix $(WEB)
	@touch $(WEB)/node_modules/.installed $@

clean:  ## remove everything that make made here (the engine's cache stays)
	rm -rf $(VENV) .n8n $(WEB)/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info build dist
