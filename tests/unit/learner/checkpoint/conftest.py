"""A base model, and no process group that outlives a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM

from tests.tiny_models import write_model
from tests.unit.learner.conftest import write_tokenizer


@pytest.fixture(autouse=True)
def no_group() -> Iterator[None]:
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bfloat16 model of sizes that three ranks do not divide."""
    folder = tmp_path_factory.mktemp("base")
    write_model(folder / "float32", vocab=53)
    model = AutoModelForCausalLM.from_pretrained(folder / "float32", dtype=torch.float32).bfloat16()
    model.save_pretrained(folder / "model")
    write_tokenizer(folder / "model")
    return folder / "model"
