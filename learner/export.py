"""Writes the policy or the teacher as a Hugging Face folder: new weights, and all other files of the base model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoTokenizer

_COPIED = ("generation_config.json", "chat_template.jinja")


@torch.no_grad()
def write_folder(names: Sequence[str], parameters: Sequence[Tensor], folder: Path, base: str, *, rank: int) -> None:
    """Gathers each tensor and writes `folder` on rank 0, with config, tokenizer and generation config of `base`."""
    tensors = {}
    for name, parameter in zip(names, parameters, strict=True):
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        if rank == 0:
            tensors[name] = whole.detach().cpu().contiguous().clone()
    if rank != 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    AutoConfig.from_pretrained(base).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    for name in _COPIED:
        if (source := Path(base) / name).is_file():
            shutil.copyfile(source, folder / name)
