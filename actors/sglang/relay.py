"""Sends weights to the processes of a server elsewhere, over a gloo group of their own.

SGLang joins the group by torch's internal helper, with the group's name as the store's prefix, and so does this end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d as c10d

from corewarding.actors.engine import EngineError
from corewarding.actors.sglang.buckets import in_buckets
from corewarding.actors.sglang.server import SglangServer
from corewarding.weights.group import LOOPBACK, interface_towards, local_address, open_store

BUCKET_BYTES = 256 * 2**20
_TIMEOUT_S = 120.0


class Relay:
    """Rank 0 of a group whose other ranks are one server's tensor-parallel workers."""

    @classmethod
    async def to_workers(cls, server: SglangServer, num_workers: int) -> Relay:
        """Returns when the workers have joined. EngineError if they do not."""
        host = local_address(server.host, server.port)
        if host != LOOPBACK:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface_towards(server.host, server.port))
        relay = cls(host, num_workers, timeout_s=_TIMEOUT_S)
        joining = server.post(
            "/init_weights_update_group",
            master_address=host,
            master_port=relay.port,
            rank_offset=1,
            world_size=relay.world_size,
            group_name=relay.name,
            backend="gloo",
        )
        await asyncio.gather(joining, asyncio.to_thread(relay._connect))
        return relay

    def __init__(self, host: str, num_workers: int, *, timeout_s: float) -> None:
        """host: an address of this node that the server's node reaches."""
        self.name = f"corewarding-{secrets.token_hex(16)}"
        self.world_size = num_workers + 1
        self._timeout = timedelta(seconds=timeout_s)
        self._store: Any = open_store(host, timeout=self._timeout)
        self.host, self.port = host, self._store.port
        self._group: Any = None

    def _connect(self) -> None:
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

    async def deliver(self, server: SglangServer, weights: Mapping[str, Tensor]) -> None:
        """Returns when the server has all weights. EngineError if it refuses or is lost."""
        for bucket in in_buckets(weights, BUCKET_BYTES):
            taking = server.post(
                "/update_weights_from_distributed", **described(bucket), group_name=self.name, flush_cache=False
            )
            await asyncio.gather(taking, asyncio.to_thread(self._send, bucket))

    def _send(self, tensors: Mapping[str, Tensor]) -> None:
        try:
            works = [dist.broadcast(tensor, src=0, group=self._group, async_op=True) for tensor in tensors.values()]
            for work in works:
                work.wait()
        except RuntimeError as error:
            raise EngineError(f"the SGLang server left its weight group: {error}") from error

    async def close(self, server: SglangServer) -> None:
        """Ends the group, on both sides if the server goes on without us."""
        if server.process is None:
            with contextlib.suppress(EngineError):
                await server.ask("/destroy_weights_update_group", group_name=self.name)
        if self._group is not None:
            dist.destroy_process_group(self._group)
        self._group = self._store = None  # closes the store's port too


def described(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Names, dtypes and shapes in the form SGLang's endpoint takes."""
    return {
        "names": list(tensors),
        "dtypes": [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()],
        "shapes": [list(tensor.shape) for tensor in tensors.values()],
    }
