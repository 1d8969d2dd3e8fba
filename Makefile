# `make help` lists what there is. Every target sets up .venv by itself when it is missing or stale.
PYTHON ?= python3
# More words for pip, such as an index of CPU builds of PyTorch.
PIP_FLAGS ?=
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
LOGS ?= logs
# Two processes of one thread each: tiny models gain nothing from more threads.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo data test test-all check format tensorboard screenshots clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); lit_t6 needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up $(VENV): PyTorch, Lightning and the rest; a minute or more ..."
	@test -x $(PY) && $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet $(PIP_FLAGS) -c constraints.txt --config-settings editable_mode=compat -e '.[dev]' || \
	  { echo "error: pip could not install the packages of pyproject.toml; see its message above. Is there a network?" >&2; exit 1; }
	@touch $@

demo: $(STAMP) ## train a small T6 on Shakespeare's plays, validate it, let it write
	@$(PY) -m experiments.shakespeare.run

data: $(STAMP) ## fetch and prepare the demo's text only, for runs of your own with configs/quickstart.yaml
	@$(PY) -m experiments.shakespeare.run data

test: $(STAMP) ## the tests, at most 10 minutes on 2 cores
	$(PYTEST) -m "not slow"

test-all: test ## the tests and the slow ones: several processes, whole command lines
	$(PYTEST) -m "slow and not alone"
	$(PY) -m pytest -m alone

check: $(STAMP) ## lint, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(STAMP) ## mend what lint and format can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

tensorboard: $(STAMP) ## open TensorBoard on the runs in logs/ (LOGS=folder for others)
	$(PY) -m tensorboard.main --logdir $(LOGS)

screenshots: $(STAMP) ## take the pictures in docs/ again (needs chromium and chromium-driver)
	@mkdir -p docs
	LIT_T6_SCREENSHOTS=docs $(PY) -m pytest tests/test_tensorboard.py tests/sweeps/test_report_pages.py

clean: ## remove .venv and caches; runs and prepared data stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
