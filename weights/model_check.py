"""Checks that a model folder can be loaded, before anything is started or loaded. Reads headers only: fast for a model of any size."""

from __future__ import annotations

from pathlib import Path

import torch

from corewarding.weights.model_files import StoredModel, fingerprint
from corewarding.weights.model_loading import BaseWeights, empty_model


def check_weights(folder: str | Path) -> StoredModel:
    """What the folder holds. ModelFilesError unless its files are whole and hold exactly the tensors that config.json describes."""
    model = empty_model(folder, dtype=torch.float32, attention="sdpa", device=torch.device("cpu"))
    weights = BaseWeights(folder, model)
    parameters = dict(model.named_parameters())
    return StoredModel(
        num_parameters=sum(parameter.numel() for parameter in parameters.values()),
        num_bytes=sum(map(weights.num_bytes, parameters)),
        largest=max(parameter.numel() for parameter in parameters.values()),
        fingerprint=fingerprint(folder),
    )
