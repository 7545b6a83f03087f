# make train | make test | make lint | make clean
PYTHON ?= python3
VENV ?= .venv
# Installed first: a plain `torch` pulls gigabytes of CUDA on Linux. With a GPU, TORCH="torch" takes the CUDA build; to take
# the CPU build from an index of your own, PIP_ARGS="--index-url ...".
TORCH ?= torch==2.13.0
PIP_ARGS ?=
CONFIG ?= configs/cpu.yaml
ARGS ?=

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
BIN := $(VENV)/bin

.PHONY: train test test-unit lint clean

train: $(VENV)/.installed
	$(BIN)/corewarding train $(CONFIG) $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/unit tests/integration $(ARGS)

test-unit: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/unit $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy dataflow rewards learner/loss.py learner/settings.py launch/config.py

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "corewarding needs Python 3.11 or newer; $(PYTHON) is older. Set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_ARGS) "$(TORCH)"
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
