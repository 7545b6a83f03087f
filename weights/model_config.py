"""Reads the config.json of a model folder with transformers; code of the folder is never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from corewarding.dataflow.custom_code import refuse_custom_code
from corewarding.dataflow.errors import UserError


def without_dropout(config: Any) -> Any:
    """The same configuration, changed in place: training sees the probabilities with which tokens were sampled."""
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    return config


def model_config(folder: str | Path) -> Any:
    """transformers' configuration of the model. UserError if there is none, or none that this transformers knows."""
    refuse_custom_code(folder)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"model.path {folder}: no model configuration can be read there ({first})") from error
