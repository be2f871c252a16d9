# Two commands for newcomers: `make serve` and `make test`. `make help` lists the rest.
PYTHON ?= python3
# Optional parts to serve with: `make serve EXTRAS=torch` adds the PyTorch engine (CPU and CUDA).
EXTRAS ?=
# Flags for the service, as in `make serve FLAGS="--port 9000"`.
FLAGS ?=
# What takes docker's arguments: `make container-test CONTAINER=podman`.
CONTAINER ?= docker
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help serve test extras-test container-test screenshots lint format train evaluate lock clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

serve: $(VENV)/.installed-$(or $(EXTRAS),base) ## set up and start the service on http://127.0.0.1:8000
	@exec $(BIN)/python -m app $(FLAGS)

test: $(VENV)/.installed-dev ## set up and run the whole test suite
	$(BIN)/python -m pytest

screenshots: $(VENV)/.installed-dev ## take the pictures of the page in tests/screenshots anew
	SCREENSHOTS=tests/screenshots $(BIN)/python -m pytest tests/app/api/test_page.py -k screenshots

extras-test: ## install each optional part alone and try it; `train` where $MNIST is its folder
	$(PYTHON) tests/extras_alone.py $(FLAGS)

container-test: ## build the image with $(CONTAINER), run it read-only and try it
	$(PYTHON) deploy/container_test.py $(CONTAINER)

lint: $(VENV)/.installed-dev ## ruff, mypy --strict, import contracts and hadolint
	$(BIN)/hadolint Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy app model
	$(BIN)/lint-imports --no-cache --no-logo

format: $(VENV)/.installed-dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

train: $(VENV)/.installed-train ## train the shipped model anew: FLAGS="--data FOLDER"
	@exec $(BIN)/perceiver train $(FLAGS)

evaluate: $(VENV)/.installed-train ## measure the shipped checkpoint anew: FLAGS="--data FOLDER"
	@exec $(BIN)/perceiver evaluate weights/perceiver-mnist $(FLAGS)

lock: $(VENV)/.installed-dev ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--no-annotate --custom-compile-command 'make lock' --upgrade --quiet \
		--output-file requirements.lock

clean: ## remove the environment and caches
	rm -rf $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# One stamp per set of extras; the lock and the project's metadata make it stale.
$(VENV)/.installed-%: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
		sys.exit(None if (3, 11) <= v <= (3, 13) else \
		"Python 3.11 to 3.13 is needed, this is %d.%d: try make PYTHON=python3.11" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint requirements.lock --editable '.$(patsubst %,[%],$(filter-out base,$*))'
	@touch $@
