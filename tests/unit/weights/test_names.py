"""Weights go by the checkpoint's names: as transformers saves them, cut from what it keeps in memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from corewarding.weights.names import WeightNamesError, parts_of, stored_views
from tests.toy_models import TOYS, toy_model, write_toy

FUSED = ("qwen2_moe", "qwen3_moe", "olmoe", "mixtral")


@pytest.mark.parametrize("name", TOYS)
def test_names_shapes_and_values_are_those_of_the_saved_folder(name: str, tmp_path: Path) -> None:
    saved = load_file(Path(write_toy(name, tmp_path)) / "model.safetensors")
    model = toy_model(name)
    parts = parts_of(model)
    assert (len(saved) > len(parts)) == (name in FUSED)
    found = stored_views(parts, dict(model.named_parameters()))
    assert found.keys() == saved.keys()
    for stored, values in saved.items():
        assert torch.equal(found[stored], values), stored


def test_parts_are_views_and_cover_their_parameter() -> None:
    model = toy_model("qwen3_moe")
    parts, parameters = parts_of(model), dict(model.named_parameters())
    fused = parts["model.layers.0.mlp.experts.gate_up_proj"]
    assert [part.name for part in fused[:3]] == [
        "model.layers.0.mlp.experts.0.gate_proj.weight",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.layers.0.mlp.experts.1.gate_proj.weight",
    ]
    for name, found in parts.items():
        ends = [part.start + part.size for part in found]
        assert [part.start for part in found] == [0, *ends[:-1]]
        assert ends[-1] == parameters[name].numel()
    stored_views(parts, parameters)["model.layers.0.mlp.experts.1.up_proj.weight"].fill_(7)
    experts, rows, _ = parameters["model.layers.0.mlp.experts.gate_up_proj"].shape
    assert experts == 6
    assert bool((parameters["model.layers.0.mlp.experts.gate_up_proj"][1, rows // 2 :] == 7).all())


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (lambda whole: {"a": whole.T.contiguous()}, "another order"),
        (lambda whole: {"a": whole[:2]}, "only part of it"),
        (lambda whole: {"a": whole[:, :1].contiguous(), "b": whole[:, 1:].contiguous()}, "another order"),
    ],
)
def test_weights_that_no_view_can_name_are_refused(stored: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model: nn.Module = nn.Linear(6, 4, bias=False)

    def converted(_: PreTrainedModel, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        result: dict[str, torch.Tensor] = stored(weights["weight"])
        return result

    monkeypatch.setattr("corewarding.weights.names.revert_weight_conversion", converted)
    with pytest.raises(WeightNamesError, match=message):
        parts_of(model)
