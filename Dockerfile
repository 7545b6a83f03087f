# syntax=docker/dockerfile:1
# CPU:  docker build --tag corewarding:cpu .
# GPU:  docker build --tag corewarding:gpu --build-arg TORCH=torch==2.13.0 --build-arg EXTRAS=vllm .
# Run:  docker run --shm-size 8g --volume "$PWD/runs:/work/runs" corewarding:cpu train cpu
FROM python:3.11-slim

# The first torch decides: on an index of CPU builds it is small; plain `torch==2.13.0` brings CUDA.
ARG TORCH=torch==2.13.0
ARG PIP_ARGS=""
# Extras of pyproject.toml, separated by commas: vllm, sweep, wandb, mlflow, trackio, second-opinion.
ARG EXTRAS=sweep

# A compiler: engines and torch build kernels at their first use.
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential git && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir ${PIP_ARGS} "${TORCH}"

WORKDIR /opt/corewarding
COPY pyproject.toml README.md LICENSE ./
COPY corewarding corewarding
COPY actors actors
COPY configs configs
COPY dataflow dataflow
COPY evals evals
COPY launch launch
COPY learner learner
COPY models models
COPY questions questions
COPY rewards rewards
COPY weights weights
RUN pip install --no-cache-dir ${PIP_ARGS} ".[${EXTRAS}]"

# Ray and the recipes need no root; runs/ is where a volume belongs.
RUN useradd --create-home --uid 1000 user && mkdir --parents /work/runs && chown --recursive user /work
USER user
WORKDIR /work
ENV OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
ENTRYPOINT ["corewarding"]
CMD ["doctor"]
