"""A folder whose weights cannot be loaded is refused by its headers, with the file and what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from corewarding.weights.model_files import INDEX, SINGLE, ModelFilesError, fingerprint, stored_tensors
from corewarding.weights.model_loading import BaseWeights, empty_model
from tests.tiny_models import write_model

Change = Callable[[Path], object]


def write_sharded(folder: Path) -> None:
    path = write_model(folder / "one")
    AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).save_pretrained(folder, max_shard_size="40KB")
    assert (folder / INDEX).is_file()


def shard(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[1]


def check(folder: Path) -> None:
    """What the driver checks before anything is loaded."""
    model = empty_model(folder, dtype=torch.float32, attention="sdpa", device=torch.device("cpu"))
    BaseWeights(folder, model)


def edit(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rewrite(folder: Path, name: str | None, value: torch.Tensor | None) -> None:
    """Puts a tensor of the single file in the place of another, or removes it."""
    tensors = load_file(folder / SINGLE)
    if name is not None and value is None:
        del tensors[name]
    elif name is not None and value is not None:
        tensors[name] = value
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def rename_first_entry(folder: Path) -> None:
    """The index says that a shard holds a tensor that it does not hold."""

    def change(index: dict[str, object]) -> None:
        weights = index["weight_map"]
        assert isinstance(weights, dict)
        weights["model.absent"] = shard(folder).name

    edit(folder / INDEX, change)


SHARDED: dict[str, tuple[Change, str]] = {
    "a missing shard": (lambda f: shard(f).unlink(), r"names 1 of \d+ files that are missing: model-00002.*download or copy"),
    "a shard cut in its data": (lambda f: _cut(shard(f), -1), r"model-00002-of-\d+.safetensors was cut .* bytes of .*"),
    "a shard cut in its header": (lambda f: _cut(shard(f), 100), "fewer than its header"),
    "an empty shard": (lambda f: shard(f).write_bytes(b""), "it is no safetensors file"),
    "a page of the hub": (lambda f: shard(f).write_text("<html>not found</html>"), "it is no safetensors file"),
    "a pointer": (lambda f: shard(f).write_text("version https://git-lfs.github.com/spec/v1\noid 1"), "git lfs pull"),
    "noise for a header": (lambda f: shard(f).write_bytes((8).to_bytes(8, "little") + b"nonsense"), "header is not JSON"),
    "an index that is none": (lambda f: (f / INDEX).write_text("[]"), "is not an index of tensors"),
    "an index that is not JSON": (lambda f: (f / INDEX).write_text("{"), "is not an index of tensors"),
    "an index of a tensor that is nowhere": (rename_first_entry, "no file holds model.absent"),
}  # fmt: skip
SINGLES: dict[str, tuple[Change, str]] = {
    "no weights": (lambda f: (f / SINGLE).unlink(), "it holds no weights; save the model"),
    "weights of another kind": (lambda f: (f / SINGLE).rename(f / "pytorch_model.bin"), "holds pytorch_model.bin, which cannot"),
    "a cut file": (lambda f: _cut(f / SINGLE, -1), "model.safetensors was cut"),
    "a tensor that is missing": (
        lambda f: rewrite(f, "model.norm.weight", None), "1 of 24 tensors are missing, the first is model.norm.weight"),
    "a tensor of another shape": (
        lambda f: rewrite(f, "model.norm.weight", torch.ones(65)), r"model.norm.weight has shape \[65\], expected \[64\]"),
    "a tensor that has no place": (
        lambda f: rewrite(f, "model.layers.2.input_layernorm.weight", torch.ones(64)), "no place for 1 tensors"),
    "a quantized tensor": (
        lambda f: rewrite(f, "model.norm.weight", torch.ones(64, dtype=torch.int8)), "has type I8.*not quantized"),
    "a vocabulary of another size": (
        lambda f: edit(f / "config.json", lambda c: c.update(vocab_size=99)), r"shape \[64, 64\], expected \[99, 64\]"),
}  # fmt: skip


def _cut(path: Path, size: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:size])


@pytest.mark.parametrize("case", SHARDED)
def test_a_damaged_shard_is_named(tmp_path: Path, case: str) -> None:
    write_sharded(tmp_path)
    check(tmp_path)
    change, message = SHARDED[case]
    change(tmp_path)
    with pytest.raises(ModelFilesError, match=message):
        check(tmp_path)


@pytest.mark.parametrize("case", SINGLES)
def test_weights_that_are_not_the_configured_model_s_are_named(tmp_path: Path, case: str) -> None:
    write_model(tmp_path)
    check(tmp_path)
    change, message = SINGLES[case]
    change(tmp_path)
    with pytest.raises(ModelFilesError, match=message):
        check(tmp_path)


def test_old_rotary_frequencies_and_a_tied_head_need_no_place(tmp_path: Path) -> None:
    write_model(tmp_path)
    rewrite(tmp_path, "model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(16))
    rewrite(tmp_path, "lm_head.weight", torch.ones(64, 64))
    check(tmp_path)


def test_the_fingerprint_tells_folders_apart_by_their_headers(tmp_path: Path) -> None:
    one, same, other = (write_model(tmp_path / str(vocab), vocab=vocab % 100) for vocab in (64, 164, 65))
    assert fingerprint(stored_tensors(one)) == fingerprint(stored_tensors(same))
    assert fingerprint(stored_tensors(one)) != fingerprint(stored_tensors(other))
