"""A tiny random Qwen3 folder and batches for it."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from corewarding.dataflow.carriers import TrainingSample
from corewarding.dataflow.ids import AskedId, View
from tests.tiny_models import write_model

VOCAB = 50


def write_tiny_model(folder: Path) -> None:
    """A random two-layer Qwen3 with tied embeddings and a vocabulary of VOCAB words."""
    write_model(folder, vocab=VOCAB, spread=0.02)
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of VOCAB words."""
    vocabulary = {f"t{i}": i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t0").save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return str(folder)


def make_samples(
    num: int, *, seed: int = 0, views: Sequence[View] = ("original",), version: int = 0, group_size: int = 1
) -> tuple[TrainingSample, ...]:
    """num groups of group_size completions of one prompt, sorted by id; the views take turns."""
    rng = np.random.default_rng(seed)
    samples = []
    for index, sample_index in itertools.product(range(num), range(group_size)):
        view = views[index % len(views)]
        group = AskedId(question_id=f"q{index:03d}", epoch=0).group(view, "policy")
        length = int(rng.integers(2, 9))
        if sample_index == 0:
            prompt = rng.integers(1, VOCAB, rng.integers(3, 7))
        samples.append(
            TrainingSample(
                id=group.completion(sample_index),
                prompt_token_ids=prompt,
                token_ids=rng.integers(1, VOCAB, length),
                behavior_logprobs=np.full(length, -3.9),
                token_versions=np.full(length, version),
                advantage=float(rng.normal()),
                loss_mask=np.ones(length, bool),
                temperature=1.0,
                truncated=False,
            )
        )
    return tuple(sorted(samples, key=lambda s: s.id))
