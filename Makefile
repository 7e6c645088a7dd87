# Every target sets up what it needs by itself; a second call installs nothing.
SHELL  := /bin/bash
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LOCK   := requirements.lock
# The first of these that runs and is new enough; `make PYTHON=/path/to/python …` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' 2>/dev/null && { echo $$p; break; }; done)
# TORCH=cpu installs PyTorch without its gigabytes for NVIDIA GPUs (from PyTorch's own package index).
TORCH  ?=
CHAPTERS ?= $(sort $(wildcard nbs/*.ipynb))

# Tools that like to write to the home folder write here.
export MPLCONFIGDIR      := $(CURDIR)/$(VENV)/home/matplotlib
export IPYTHONDIR        := $(CURDIR)/$(VENV)/home/ipython
export JUPYTER_CONFIG_DIR  := $(CURDIR)/$(VENV)/home/jupyter
export JUPYTER_DATA_DIR    := $(CURDIR)/$(VENV)/home/jupyter
export JUPYTER_RUNTIME_DIR := $(CURDIR)/$(VENV)/home/jupyter
export NO_ALBUMENTATIONS_UPDATE := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help

# `make results-gpu` installs nothing: it takes the Python that you name, or .venv's, or one that has PyTorch.
MEASURE = $(or $(if $(filter command line,$(origin PYTHON)),$(PYTHON)),$(if $(wildcard $(READY)),$(BIN)/python),$(shell for p in python3 python; do $$p -c 'import torch' 2>/dev/null && { echo $$p; break; }; done),$(PYTHON))

# TIME=seconds interrupts the runs after so long; the last epoch is kept, and the next call continues.
STOP = $(if $(TIME),timeout -s INT $(TIME))

# Where packages cannot be installed: one line, and the whole output in a file.
SAY_WHY = { echo "packages could not be installed: $$(grep -E '[a-z]' $(VENV)/install.log | tail -1 | cut -c1-300) (is there a connection to the package index? all of it: $(VENV)/install.log)" >&2; exit 1; }

.PHONY: help setup demo train bench results-cpu results-gpu test test-kernels test-site check-site types dist test-wheel test-faults audit check run-chapters export readme badges docs slides preview lock lab clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(READY) ## install everything into .venv (the other targets do it when needed)

$(VENV)/.uv:
	@test -n "$(PYTHON)" || { echo "cifar_resnet needs Python 3.11.4 or newer, and found none; name one with make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep -m1 '^uv==' $(LOCK) || echo uv)" 2> $(VENV)/install.log || $(SAY_WHY)
	@touch $@

$(READY): $(LOCK) settings.ini setup.py | $(VENV)/.uv
	@echo "Setting up $(VENV): the first time this fills 6 GB on Linux (PyTorch with its GPU libraries); afterwards the package cache has it"
ifeq ($(TORCH),cpu)
	@grep -vE '^(nvidia-|cuda-|triton)' $(LOCK) > $(VENV)/cpu.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --torch-backend cpu -r $(VENV)/cpu.lock 2> $(VENV)/install.log || $(SAY_WHY)
else
	@$(BIN)/uv pip install -q --python $(BIN)/python -r $(LOCK) 2> $(VENV)/install.log || $(SAY_WHY)
endif
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e . 2> $(VENV)/install.log || $(SAY_WHY)
	@$(BIN)/python -c 'import torch, torchvision, cifar_resnet'
	@touch $@

demo: $(READY) ## the whole job on data that ships with it: find the rates, train, test, report; in runs/demo/
	@rm -rf runs/demo
	@$(BIN)/cifar_train --data digits --out runs/demo
	@$(BIN)/cifar_report runs/demo

train: $(READY) ## the whole job on CIFAR-10: 24 epochs of the full network (ARGS="--epochs 10 --out runs/mine")
	@$(BIN)/cifar_train $(ARGS)

bench: $(READY) ## images per second beside the plain way, on this CPU (about 3 minutes)
	@$(BIN)/python .ci/results.py bench

results-cpu: $(READY) ## make the recorded CPU runs that results/ lacks, most valuable first (TIME=seconds stops in good order)
	@$(STOP) $(BIN)/python .ci/results.py cpu

results-gpu: ## the same for a GPU; needs only torch, torchvision, NumPy, tqdm, safetensors and fastcore
	@$(STOP) $(MEASURE) .ci/results.py gpu

test: $(READY) ## run every chapter's cells and every test
	@$(BIN)/python tests/run.py

test-kernels: $(READY) ## run every notebook in a real Jupyter kernel, on digits, and the set-up cell as Colab does
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/kernels.py tests/colab.py

test-faults: $(READY) ## try every promise on many random cases: kills, full disks, damaged files (about 20 minutes)
	@$(BIN)/python tests/promises.py

audit: $(READY) ## ask the Python advisory database about every locked package (needs a network)
	@$(BIN)/uv tool run --from pip-audit pip-audit --no-deps --disable-pip -r $(LOCK)

types: $(READY) ## ask pyright how many of the public names have types (it comes into the package cache, and needs node or a network)
	@$(BIN)/uv tool run --from pyright $(BIN)/python -m pytest -q -rs tests/test_package.py

test-wheel: $(READY) ## install the built wheel as a user does, into a new environment, and run every command
	@$(BIN)/python -m pytest -q -rs tests/wheel.py

dist: $(READY) ## build the wheel and the source archive into dist/, and check what a package index would say
	@rm -rf dist && $(BIN)/uv build -q
	@$(BIN)/uv tool run twine check --strict dist/*

check: badges export readme ## is everything that is generated up to date and committed?
	@git diff --exit-code --stat -- nbs _quarto.yml cifar_resnet README.md CITATION.cff results/MODEL_CARD.md pyproject.toml || { echo "these files are generated, and differ from what is committed: commit them" >&2; exit 1; }
	@$(BIN)/uv pip check -q --python $(BIN)/python
	@$(BIN)/python .ci/check.py

run-chapters: $(READY) ## run chapters in a real kernel and keep their outputs (CHAPTERS="nbs/00_data.ipynb")
	@$(BIN)/python .ci/run_chapters.py $(CHAPTERS)
	@$(BIN)/nbdev_clean

export: $(READY) ## write cifar_resnet/ from the notebooks, and clean the notebooks
	@$(BIN)/nbdev_export && $(BIN)/nbdev_clean

readme: $(READY) ## write README.md from nbs/index.ipynb, CITATION.cff from settings.ini, and the model card from its record
	@$(BIN)/python .ci/readme.py

badges: $(READY) ## carry the owner in settings.ini into every chapter's badge and set-up cell
	@$(BIN)/python .ci/cells.py

docs: $(READY) ## build the site into _docs/ (with Quarto where it is installed)
	@$(BIN)/python .ci/docs.py

slides: $(READY) ## make slides of the chapters, one HTML file each, in _slides/ (CHAPTERS="nbs/00_data.ipynb")
	@$(BIN)/python .ci/slides.py $(if $(filter command line,$(origin CHAPTERS)),$(CHAPTERS))

preview: $(READY) ## show the site in a browser, and again after every change
	@$(BIN)/python .ci/docs.py preview

test-site: $(READY) ## build the site, try every page in a real browser, and measure how the first ones read
	@$(BIN)/python .ci/docs.py smalldocs
	@$(MAKE) --no-print-directory check-site

check-site: $(READY) ## the same for a site that is built already, by either builder (SITE=folder; _docs when not given)
	@CIFAR_RESNET_SITE=$(abspath $(or $(SITE),_docs)) $(BIN)/python -m pytest -q -rs -n auto tests/browser.py tests/reading.py tests/interactive_browser.py tests/try_browser.py

lab: $(READY) ## open the chapters in JupyterLab
	@$(BIN)/jupyter lab nbs

lock: | $(VENV)/.uv ## renew requirements.lock from settings.ini
	@echo 'torch!=2.13.0' | $(VENV)/.uv pip compile -q --upgrade --universal --python-version 3.11 --extra dev --no-annotate \
	    --custom-compile-command 'make lock' --constraints - setup.py -o $(LOCK)

clean: ## remove what was built (not .venv, not runs/)
	rm -rf _docs _pages _preview _proc _slides build dist *.egg-info nbs/nbdev.yml
