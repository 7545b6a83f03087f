"""These tests need a GPU and skip without one. CW_GPU_DEVICE=cpu runs the same code on the CPU, to try the tests themselves."""

import os

import pytest
import torch

DEVICE = os.environ.get("CW_GPU_DEVICE", "cuda")


@pytest.fixture(scope="session")
def device() -> str:
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU is visible")
    return DEVICE
