"""Embeddings of completions' texts, by a real model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from corewarding.dataflow.errors import UserError
from corewarding.learner.replay.embedding import EmbeddingSimilarity
from tests.fakes import fake_group

MODEL = Path(__file__).resolve().parents[4] / "models" / "arithmetic-base"


def test_equal_texts_are_alike_and_padding_does_not_matter() -> None:
    texts = ["17 + 25 = 42", "17 + 25 = 42", "Tom has 12 apples and eats 5, so 12 - 5 = 7 are left.", ""]
    group = [dataclasses.replace(c, text=text) for c, text in zip(fake_group("q", ["1"] * 4), texts, strict=True)]
    measure = EmbeddingSimilarity(str(MODEL))
    similar = measure(group)
    assert similar.shape == (4, 4)
    assert similar.dtype == np.float32
    assert similar.min() >= 0.0
    np.testing.assert_allclose(np.diag(similar), 1.0, atol=1e-6)
    assert similar[0, 1] == pytest.approx(1.0, abs=1e-6)
    assert similar[0, 2] < 0.999
    np.testing.assert_allclose(measure(group[:2] + group[3:])[0, 2], similar[0, 3], atol=1e-5)  # without the longest


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evol_embedding_model .*: no model can be read there"):
        EmbeddingSimilarity(str(tmp_path))
