"""A folder whose weights cannot be loaded is refused by its headers, with the file and what to do."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from corewarding.weights.model_check import check_weights
from corewarding.weights.model_files import INDEX, SINGLE, ModelFilesError, fingerprint
from tests.tiny_models import write_model

Change = Callable[[Path], object]


def write_sharded(folder: Path) -> None:
    path = write_model(folder / "one")
    AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).save_pretrained(folder, max_shard_size="40KB")
    assert (folder / INDEX).is_file()


def shard(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[1]


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
    check_weights(tmp_path)
    change, message = SHARDED[case]
    change(tmp_path)
    with pytest.raises(ModelFilesError, match=message):
        check_weights(tmp_path)


@pytest.mark.parametrize("case", SINGLES)
def test_weights_that_are_not_the_configured_model_s_are_named(tmp_path: Path, case: str) -> None:
    write_model(tmp_path)
    check_weights(tmp_path)
    change, message = SINGLES[case]
    change(tmp_path)
    with pytest.raises(ModelFilesError, match=message):
        check_weights(tmp_path)


def test_old_rotary_frequencies_and_a_tied_head_need_no_place(tmp_path: Path) -> None:
    write_model(tmp_path)
    rewrite(tmp_path, "model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(16))
    rewrite(tmp_path, "lm_head.weight", torch.ones(64, 64))
    check_weights(tmp_path)


def test_the_fingerprint_tells_folders_apart(tmp_path: Path) -> None:
    one, same, other = (write_model(tmp_path / str(vocab), vocab=vocab % 100) for vocab in (64, 164, 65))
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(other)
    rewrite(Path(same), "model.norm.weight", torch.full((64,), 0.99))
    assert fingerprint(one) != fingerprint(same), "fine-tuned weights have the headers of their base"


def test_a_fingerprint_sees_the_configuration_and_the_tokenizer(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    seen = {fingerprint(folder)}
    edit(tmp_path / "config.json", lambda content: content.update(rms_norm_eps=1e-5))
    seen.add(fingerprint(folder))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert len(seen | {fingerprint(folder)}) == 3


def test_a_checked_folder_tells_what_it_holds(tmp_path: Path) -> None:
    """Worked out by hand: 64 x 64 embedding, tied; in each of two layers q 64, k and v 32, o 64, three of 96, two norms of 64 and two
    of 32; a last norm."""
    layer = 64 * (64 + 32 + 32 + 64 + 3 * 96) + 2 * 64 + 2 * 32
    stored = check_weights(write_model(tmp_path))
    assert stored.num_parameters == 64 * 64 + 2 * layer + 64
    assert stored.num_bytes == 4 * stored.num_parameters
    assert stored.fingerprint == fingerprint(tmp_path)


def test_a_shard_of_another_name_is_named(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    shard(tmp_path).rename(tmp_path / "part-2.safetensors")
    with pytest.raises(
        ModelFilesError, match=r"missing: model-00002.*; it holds part-2.safetensors instead, which may have"
    ):
        check_weights(tmp_path)


def test_64_gb_are_checked_in_no_time(tmp_path: Path) -> None:
    """The size of Qwen3-32B in two files with holes in place of numbers."""
    config = Qwen3Config(
        vocab_size=151936, hidden_size=5120, intermediate_size=25600, num_hidden_layers=64, num_attention_heads=64,
        num_key_value_heads=8, head_dim=128, tie_word_embeddings=False, architectures=["Qwen3ForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        names = {name: list(p.shape) for name, p in Qwen3ForCausalLM(config).named_parameters()}
    index: dict[str, str] = {}
    for number in (1, 2):
        file, end, header = f"model-0000{number}-of-00002.safetensors", 0, {}
        for name in sorted(names)[number - 1 :: 2]:
            first, end = end, end + 2 * math.prod(names[name])
            header[name] = {"dtype": "BF16", "shape": names[name], "data_offsets": [first, end]}
            index[name] = file
        text = json.dumps(header).encode()
        with (tmp_path / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            out.truncate(8 + len(text) + end)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": index}))
    began = time.process_time()
    stored = check_weights(tmp_path)
    assert time.process_time() - began < 10
    assert stored.num_bytes == 2 * stored.num_parameters == 2 * 32_762_123_264
