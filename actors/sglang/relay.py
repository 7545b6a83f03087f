"""Sends the weights staged in the rollout actor to its server's processes, over a gloo group of their own.

SGLang joins the group by torch's internal helper, with the group's name as the store's prefix, and so does this end.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d as c10d

from corewarding.actors.engine import EngineError
from corewarding.weights.group import open_store


class Relay:
    """Rank 0 of a group whose other ranks are one server's tensor-parallel workers."""

    def __init__(self, host: str, num_workers: int, *, timeout_s: float) -> None:
        """host: an address of this node that the server's node reaches."""
        self.name = f"corewarding-{secrets.token_hex(16)}"
        self.world_size = num_workers + 1
        self._timeout = timedelta(seconds=timeout_s)
        self._store: Any = open_store(host, timeout=self._timeout)
        self.host, self.port = host, self._store.port
        self._group: Any = None

    def connect(self) -> None:
        """Blocks until the workers have joined. EngineError if they do not."""
        try:
            self._group, _ = cast("Any", c10d)._new_process_group_helper(
                self.world_size,
                0,
                [],
                c10d.Backend("gloo"),
                c10d.PrefixStore(self.name, self._store),
                group_name=self.name,
                timeout=self._timeout,
            )
        except RuntimeError as error:
            raise EngineError(f"the SGLang server did not join its weight group: {error}") from error
        c10d._world.pg_group_ranks[self._group] = {rank: rank for rank in range(self.world_size)}

    def send(self, tensors: Mapping[str, Tensor]) -> None:
        """Broadcasts the tensors in order. Blocks; EngineError if the server is lost."""
        try:
            works = [dist.broadcast(tensor, src=0, group=self._group, async_op=True) for tensor in tensors.values()]
            for work in works:
                work.wait()
        except RuntimeError as error:
            raise EngineError(f"the SGLang server left its weight group: {error}") from error

    def close(self) -> None:
        if self._group is not None:
            dist.destroy_process_group(self._group)
        self._group = self._store = None  # closes the store's port too


def in_buckets(tensors: Mapping[str, Tensor], bucket_bytes: int) -> list[dict[str, Tensor]]:
    """Consecutive whole tensors, at most bucket_bytes per bucket; a larger tensor has a bucket of its own."""
    buckets: list[dict[str, Tensor]] = []
    room = 0
    for name, tensor in tensors.items():
        if not buckets or tensor.nbytes > room:
            buckets.append({})
            room = bucket_bytes
        buckets[-1][name] = tensor
        room -= tensor.nbytes
    return buckets


def described(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Names, dtypes and shapes in the form SGLang's endpoint takes."""
    return {
        "names": list(tensors),
        "dtypes": [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()],
        "shapes": [list(tensor.shape) for tensor in tensors.values()],
    }
