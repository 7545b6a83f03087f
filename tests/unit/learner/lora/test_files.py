"""A checkpoint holds the adapter and continues bit for bit; what it exports is what peft makes of base and adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from corewarding.learner.checkpoint.manifest import CheckpointError
from corewarding.learner.learner import Learner
from corewarding.learner.lora.files import BaseModelError, write_merged
from tests.toy_models import write_toy
from tests.unit.learner.conftest import write_tiny_model, write_tokenizer
from tests.unit.learner.lora.learners import adapted, values, weights
from tests.unit.learner.test_learner import batch, save

IDS = torch.arange(1, 17)[None]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


@pytest.fixture
def base(tmp_path: Path) -> str:
    write_tiny_model(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.fixture
def saved(base: str, tmp_path: Path) -> Learner:
    """A learner after two updates, with its state in `state`."""
    learner = adapted(base)
    for update in (1, 2):
        learner.update(batch(update))
    save(learner, tmp_path / "state")
    return learner


def test_a_checkpoint_continues_bit_for_bit_and_is_small(saved: Learner, base: str, tmp_path: Path) -> None:
    again = adapted(base, filled=False)
    again.load(tmp_path / "state", incarnation=1)
    digests = [learner.update(batch(3)) and learner.digest() for learner in (saved, again)]
    assert digests[0] == digests[1]
    for which in ("policy", "teacher"):
        mine, theirs = values(saved, which), values(again, which)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    elements = sum(parameter.numel() for parameter in saved.sets.parameters)
    assert size(tmp_path / "state") < 4 * 4 * elements + 30_000  # policy, teacher, both moments; headers


@pytest.mark.parametrize("channel", ["policy", "teacher"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_merged_export_has_the_bits_that_engines_get_and_the_logits_of_peft(
    saved: Learner, base: str, tmp_path: Path, channel: Any, dtype: str
) -> None:
    saved.export(tmp_path / "state", tmp_path / "adapter", channel)
    rewrite(tmp_path / "adapter" / "base.json", dtype=dtype)
    write_merged(tmp_path / "state", channel, tmp_path / "adapter", tmp_path / "merged")
    merged, sent = load_file(tmp_path / "merged" / "model.safetensors"), weights(saved, channel)
    assert merged.keys() == sent.keys()
    assert all(torch.equal(merged[name], sent[name].to(getattr(torch, dtype))) for name in sent)
    if dtype == "float32":
        by_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
        ours = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(logits(ours), logits(by_peft), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(logits(ours), logits(AutoModelForCausalLM.from_pretrained(base)), atol=1e-3)


def test_experts_stay_and_their_attention_is_merged_under_the_checkpoints_names(tmp_path: Path) -> None:
    base = write_toy("qwen3_moe", tmp_path / "base")
    write_tokenizer(tmp_path / "base")
    learner = adapted(base)
    save(learner, tmp_path / "state")
    learner.export(tmp_path / "state", tmp_path / "adapter")
    write_merged(tmp_path / "state", "policy", tmp_path / "adapter", tmp_path / "merged")
    merged, sent = load_file(tmp_path / "merged" / "model.safetensors"), weights(learner)
    stored = load_file(tmp_path / "base" / "model.safetensors")
    assert merged.keys() == sent.keys() == stored.keys()
    assert all(torch.equal(merged[name], sent[name]) for name in sent)
    changed = {name for name in stored if not torch.equal(stored[name], sent[name])}
    assert changed == set(learner.sets.adapters)
    assert all("self_attn" in name for name in changed)


def test_a_base_model_that_moved_must_be_the_same(saved: Learner, base: str, tmp_path: Path) -> None:
    saved.export(tmp_path / "state", tmp_path / "adapter")
    shutil.move(base, tmp_path / "moved")
    arguments: tuple[Any, ...] = (tmp_path / "state", "policy", tmp_path / "adapter")
    with pytest.raises(
        BaseModelError, match=r"the base model of .*adapter is not in .*base: there is no such folder; .*--base"
    ):
        write_merged(*arguments, tmp_path / "out")
    write_merged(*arguments, tmp_path / "out", base=tmp_path / "moved")
    write_toy("qwen3 tied", tmp_path / "other")
    with pytest.raises(BaseModelError, match=r"other is not the base model of .*: its fingerprint is .*, expected "):
        write_merged(*arguments, tmp_path / "again", base=tmp_path / "other")


def test_a_garbled_reference_is_refused(saved: Learner, tmp_path: Path) -> None:
    saved.export(tmp_path / "state", tmp_path / "adapter")
    rewrite(tmp_path / "adapter" / "base.json", dtype="int8")
    with pytest.raises(CheckpointError, match=r"base\.json is garbled"):
        write_merged(tmp_path / "state", "policy", tmp_path / "adapter", tmp_path / "out")


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
