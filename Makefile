# Every target builds what it needs, on a machine with Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_COMPILE_BYTECODE ?= 1
unexport PYTHONDONTWRITEBYTECODE
UV := $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python
BIN := $(VENV)/bin
# Without a local build of torch, ask for the one without CUDA.
TORCH_BACKEND := $(if $(strip $(UV_FIND_LINKS)),,--torch-backend cpu)
WORKERS ?= 2

.PHONY: demo test test-all check fix docs wheel peers clean lint
.DEFAULT_GOAL := demo

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Comity needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	@echo "building $(VENV) (about half a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

$(VENV)/.demo: $(VENV)/.uv pyproject.toml
	@$(UV) -e '.[demo]'
	@$(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml
	@$(UV) $(TORCH_BACKEND) torch==2.13.0
	@$(UV) -e '.[dev]'
	@$(BIN)/python -m compileall -q src
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## four hospitals train one model and answer one question
	@$(BIN)/comity demo

test: $(VENV)/.dev  ## the tests, 10 minutes at most on two cores
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-all: $(VENV)/.dev $(PEERS)/.peers  ## the slow matrices too, beside Flower with Ray
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint  ## format, lint, types, contracts, tests with coverage
	$(BIN)/python -m coverage erase
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" --cov --cov-report=
	$(BIN)/python -m coverage report --include='src/comity/core/*' --fail-under=100
	$(BIN)/python -m coverage report --fail-under=95

fix: $(VENV)/.dev  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev  ## the documentation site, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: $(VENV)/.dev  ## the wheel, in dist/
	$(BIN)/python -m hatchling build --target wheel

peers: $(PEERS)/.peers  ## Flower with Ray, for the benchmarks
$(PEERS)/.peers: $(VENV)/.uv benchmarks/peers.txt
	@$(PYTHON) -m venv $(PEERS)
	@$(VENV)/bin/uv pip install --quiet --python $(PEERS)/bin/python $(TORCH_BACKEND) torch==2.13.0
	@$(VENV)/bin/uv pip install --quiet --python $(PEERS)/bin/python -r benchmarks/peers.txt
	@touch $@

clean:  ## everything that a target made
	rm -rf $(VENV) $(PEERS) dist build site comity-demo .coverage* .mypy_cache .ruff_cache .hypothesis
