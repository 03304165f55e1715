PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: demo test test-all test-browser gpu-check wheel-check lint setup

demo: setup
	$(VENV)/bin/emm run digits-width --out results/digits-width

# a file of tests is run by one process; some start clusters, of which more than two at once wait for each other
PYTEST := $(VENV)/bin/python -m pytest
# files in their order: by the number of their tests the slowest file would be the last
test: setup
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder

test-all: setup
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not browser"

# in a real browser: apt-get install chromium chromium-driver; its screenshots go to results/screenshots
test-browser: setup
	$(PYTEST) -m browser

# what a GPU gives, in ten minutes; needs torch and this directory only, so that it also runs without `setup`
gpu-check:
	$(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,$(PYTHON)) -m benchmarks.gpu_check --json gpu.json

# a wheel, installed where nothing else is, finds two EMMs
wheel-check:
	rm -rf build/wheel && $(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel/dist .
	build/wheel/bin/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) build/wheel/dist/*.whl
	cd build/wheel && bin/emm run digits-width --out results --quiet

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

setup: $(STAMP)

# torch and torchvision are asked for together, so that pip chooses a pair that match;
# CONSTRAINTS=constraints.txt takes the versions that were tested together
PIP_INSTALL := $(VENV)/bin/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(PIP_INSTALL) "torch>=2.9" "torchvision>=0.24"
	$(PIP_INSTALL) --editable ".[dev]"
	touch $(STAMP)
