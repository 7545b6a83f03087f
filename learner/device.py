"""Chooses devices, collective backends and the host's memory beside a device; no other file does."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from corewarding.learner.settings import STREAMED_ELEMENTS

BLOCK = 2**28
"""Bytes of a block of the host's memory, a power of two: torch rounds each pinned block up to one."""
_ALIGNMENT = 64  # bytes of a cache line


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


def streamed_elements(device: torch.device) -> int | None:
    """How many elements of offloaded tensors are changed at one time on `device`; None: one tensor, whole.

    On the CPU a tensor stays whole, because its last elements, which fill no vector, may be rounded otherwise than the others.
    """
    return STREAMED_ELEMENTS if device.type == "cuda" else None


def host_like(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Memory of the host in the shape of each tensor, of any content; pinned where the tensors are on a GPU.

    It is cut from few blocks, which are freed when nothing in them is used any more.
    """
    sizes = [_rounded_up(one.numel() * dtype.itemsize) for one, dtype in zip(tensors, dtypes, strict=True)]
    pinned, left = any(one.is_cuda for one in tensors), sum(sizes)
    free: list[Tensor] = []  # what is left of each block
    found = []
    for one, dtype, size in zip(tensors, dtypes, sizes, strict=True):
        place = next((index for index, block in enumerate(free) if len(block) >= size), len(free))
        if place == len(free):
            num = max(_power_of_two(size), min(BLOCK, _power_of_two(left)))
            free.append(torch.empty(num, dtype=torch.uint8, pin_memory=pinned))
        found.append(free[place][: one.numel() * dtype.itemsize].view(dtype).view(one.shape))
        free[place] = free[place][size:]
        left -= size
    return found


def _rounded_up(num_bytes: int) -> int:
    return num_bytes + -num_bytes % _ALIGNMENT


def _power_of_two(num_bytes: int) -> int:
    """The next one that is not smaller."""
    return 1 << max(num_bytes - 1, 0).bit_length()
