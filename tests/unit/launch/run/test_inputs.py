"""A model that cannot be trained is refused before its weights or the data are read."""

from pathlib import Path
from typing import Any

import pytest

from corewarding.actors.engine import EngineSettingsError
from corewarding.launch.config.load import load_config
from corewarding.launch.config.tree import ModelSettings, TrainConfig
from corewarding.launch.run.inputs import read_inputs
from corewarding.weights.architectures import ArchitectureError
from tests.toy_models import config_of, write_toy


def config_with(**model: Any) -> TrainConfig:
    config = load_config("cpu")
    return config.model_copy(update={"model": ModelSettings(**model)})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gemma3", "layers with sliding_attention over 6 tokens and full_attention"),
        ("granite", "logits that are multiplied by 0.25"),
    ],
)
def test_a_model_that_the_learner_knows_and_the_engine_does_not_is_refused(
    name: str, reason: str, tmp_path: Path
) -> None:
    write_toy(name, tmp_path)
    with pytest.raises(
        EngineSettingsError, match=f"engine.kind embedded does not serve .*{reason}; set engine.kind vllm"
    ):
        read_inputs(config_with(path=str(tmp_path)))


def test_an_architecture_outside_of_the_table_is_refused_by_name(tmp_path: Path) -> None:
    config_of("gemma2", architectures=["Gemma2ForCausalLM"]).save_pretrained(tmp_path)  # no tokenizer, no weights
    config = config_with(path=str(tmp_path))
    with pytest.raises(ArchitectureError, match=r"(?s)its architecture is Gemma2ForCausalLM.*softcapping is 50"):
        read_inputs(config)
    with pytest.raises(ArchitectureError, match="softcapping is 50"):
        read_inputs(config_with(path=str(tmp_path), allow_unlisted=True))
