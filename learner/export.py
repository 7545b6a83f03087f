"""Writes the policy or the teacher as a Hugging Face folder: new weights, and all other files of the base model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer

from corewarding.weights.model_config import model_config
from corewarding.weights.names import Part

_COPIED = ("generation_config.json", "chat_template.jinja")


@torch.no_grad()
def write_folder(
    parts: Sequence[Sequence[Part]], parameters: Sequence[Tensor], folder: Path, base: str, *, rank: int
) -> None:
    """Gathers each tensor and writes `folder` on rank 0, with config, tokenizer and generation config of `base`.

    parts: the tensors to write from each parameter, under the names of `base`.
    """
    tensors: dict[str, Tensor] = {}
    for some, parameter in zip(parts, parameters, strict=True):
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        if rank == 0:
            whole = whole.detach().cpu().contiguous()
            tensors |= {part.name: part.of(whole).clone() for part in some}
    if rank != 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model_config(base).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base, trust_remote_code=False).save_pretrained(folder)
    for name in _COPIED:
        if (source := Path(base) / name).is_file():
            shutil.copyfile(source, folder / name)
