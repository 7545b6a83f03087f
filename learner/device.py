"""Chooses devices and collective backends; no other file does."""

from __future__ import annotations

import os

import torch


def choose_device(wanted: str, local_rank: int = 0, *, share: float = 1.0) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. RuntimeError for `cuda` if no GPU is visible.

    share: if below 1, the part of the GPU's memory that this process may use. Engines use the rest.
    """
    visible = torch.cuda.is_available()
    if wanted == "cuda" and not visible:
        raise RuntimeError("learner.device is cuda, but no GPU is visible to this process; set learner.gpus_per_rank")
    if wanted == "cpu" or not visible:
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    if 0 < share < 1:
        torch.cuda.set_per_process_memory_fraction(share, device)
    return device


def repeat_exactly() -> None:
    """From now on this process only uses operations that give the same bits whenever they are repeated (torch's notes on
    reproducibility). Before the first operation on a GPU. RuntimeError, later, from an operation that has no such form."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it begins
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def collective_backend(device: torch.device) -> str:
    """The torch.distributed backend for tensors on `device`."""
    return "nccl" if device.type == "cuda" else "gloo"
