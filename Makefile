# Everything runs in .venv, which is made on first use; pip runs again only when pyproject.toml changes.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_VERSION ?= 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
DEMO_ARGS ?=
# Markers of the tests that need more than Python packages, or packages that few need.
DEPLOYMENT := cluster or s3
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is made when a module is first imported; most of what is installed never is.
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo experiments test test-cluster test-ui ui report docs bench clean clean-demo distclean

help:
	@echo "make demo        install, train the demo catalog, run everything on it (DEMO_ARGS=--full for more)"
	@echo "make experiments train and label the full and the larger catalog, run every experiment, write docs/results.md"
	@echo "make test        install what the tests need; ruff, mypy, pytest"
	@echo "make test-cluster the tests of a deployment: PostgreSQL, object storage, docker/, Ray, Kubernetes"
	@echo "make test-ui     a browser drives the UI"
	@echo "make ui          Dagster UI on the results, on this machine only"
	@echo "make report      tables and figures of the results"
	@echo "make docs        regenerate docs/tables.md"
	@echo "make bench       the benchmarks"
	@echo "make clean       remove caches; clean-demo: also demo/, data/, studies/ and Dagster's history; distclean: also .venv"

demo: $(VENV)/.installed-demo
	$(BIN)/simmerge demo $(DEMO_ARGS)

experiments: $(VENV)/.installed-demo
	$(BIN)/simmerge demo --preset full --out studies/full/demo --data studies/full/data --dagster-home studies/full/dagster
	$(BIN)/simmerge demo --preset larger --out studies/larger/demo --data studies/larger/data --dagster-home studies/larger/dagster
	$(BIN)/simmerge experiments --out docs

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not ($(DEPLOYMENT) or ui)"

test-cluster: $(VENV)/.installed-cluster
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { echo "PostgreSQL's server is needed: apt-get install postgresql"; exit 1; }
	$(BIN)/python -m pytest -m "$(DEPLOYMENT)"

test-ui: $(VENV)/.installed-ui
	@test -n "$${SIMMERGE_CHROMIUM:-$$(command -v chromium)}" || { echo "Chromium is needed: apt-get install chromium, or name one with SIMMERGE_CHROMIUM=…"; exit 1; }
	$(BIN)/python -m pytest -m ui

ui: $(VENV)/.installed-demo
	$(BIN)/simmerge ui

report: $(VENV)/.installed-demo
	$(BIN)/simmerge report

docs: $(VENV)/.installed-demo
	$(BIN)/python -m simmerge_core.tables.document docs/tables.md

bench: $(VENV)/.installed-demo
	$(BIN)/python benchmarks/startup.py --json
	$(BIN)/python benchmarks/selection.py --json

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find simmerge_core simmerge_pipeline simmerge_cli tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

clean-demo: clean
	rm -rf demo data studies
	find dagster_home -mindepth 1 ! -name dagster.yaml -delete

distclean: clean-demo
	rm -rf $(VENV)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: install it, or name one with PYTHON=…"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed, not " + sys.version.split()[0] + ": name one with PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

# PyTorch first: without an NVIDIA GPU a plain install would fetch gigabytes of CUDA libraries that nothing uses.
# Tried in turn: a CPU wheel from the configured sources, PyTorch's own CPU index, whatever the sources have.
$(VENV)/.installed-torch: pyproject.toml | $(BIN)/python
	@if $(BIN)/python -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null; then \
	  echo "PyTorch is installed already."; \
	elif command -v nvidia-smi >/dev/null 2>&1; then \
	  echo "Installing PyTorch (an NVIDIA driver is there)"; \
	  $(PIP) install --no-compile "torch==$(TORCH_VERSION)"; \
	else \
	  echo "Installing PyTorch (CPU)"; \
	  $(PIP) install --no-compile "torch==$(TORCH_VERSION)+cpu" \
	  || $(PIP) install --no-compile "torch==$(TORCH_VERSION)" --index-url "$(TORCH_CPU_INDEX)" \
	  || $(PIP) install --no-compile "torch==$(TORCH_VERSION)"; \
	fi
	@touch $@

$(VENV)/.installed-demo: pyproject.toml $(VENV)/.installed-torch
	$(PIP) install --no-compile -e '.[demo]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/.installed-torch
	$(PIP) install --no-compile -e '.[test]'
	@touch $@

$(VENV)/.installed-cluster: pyproject.toml $(VENV)/.installed-torch
	$(PIP) install --no-compile -e '.[test,postgres,ray,kubernetes,s3,test-s3,test-docker]'
	@touch $@

$(VENV)/.installed-ui: pyproject.toml $(VENV)/.installed-torch
	$(PIP) install --no-compile -e '.[test,ui]'
	@touch $@
