"""Hands weights to a server on this node through memory that both map: CUDA IPC on GPUs, shared memory on a CPU.

The server gets handles, pickled as torch.multiprocessing does it, and has copied everything when it answers. So two buckets are
enough: one is filled while the server reads the other.
"""

from __future__ import annotations

import asyncio
import base64
import io
import shutil
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import ForkingPickler

import torch
import torch.multiprocessing as mp
from torch import Tensor

from corewarding.actors.engine import EngineContext, EngineError
from corewarding.actors.sglang.buckets import in_buckets, padded_bytes
from corewarding.actors.sglang.server import SglangServer
from corewarding.actors.shared_memory import SHARED_MEMORY

BUCKET_BYTES = 128 * 2**20
_ELSEWHERE = {
    "dp_size",
    "data_parallel_size",
    "pp_size",
    "pipeline_parallel_size",
    "nnodes",
    "base_gpu_id",
    "gpu_id_step",
}
"""Arguments that put a server's workers on other devices than the first ones, or on other nodes."""


class SharedBucket:
    """Memory on one device that the server's processes map."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        """RuntimeError if there is none."""
        if device.type == "cpu":
            storage = torch.UntypedStorage._new_using_filename_cpu(num_bytes)
            self._memory = torch.empty(0, dtype=torch.uint8).set_(storage)  # type: ignore[call-overload]
        else:
            self._memory = torch.empty(num_bytes, dtype=torch.uint8, device=device)

    def fill(self, tensors: Mapping[str, Tensor]) -> str:
        """Copies the tensors in. Returns their names, shapes, types and the handle of the memory, for the server to unpickle."""
        named: list[tuple[str, Tensor]] = []
        start = 0
        for name, tensor in tensors.items():
            part = self._memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            named.append((name, part.copy_(tensor, non_blocking=True)))
            start += padded_bytes(tensor)
        if self._memory.is_cuda:
            torch.cuda.current_stream(self._memory.device).synchronize()
        written, before = io.BytesIO(), mp.get_sharing_strategy()
        mp.set_sharing_strategy("file_system")  # a descriptor goes only from a parent to its children
        try:
            ForkingPickler(written).dump(named)
        finally:
            mp.set_sharing_strategy(before)
        return base64.b64encode(written.getvalue()).decode()


class Handover:
    """Two buckets on each of the server's devices."""

    def __init__(self, devices: Sequence[torch.device], num_workers: int, num_bytes: int) -> None:
        """EngineError if the memory cannot be had."""
        try:
            self._buckets = [[SharedBucket(num_bytes, device) for device in devices] for _ in range(2)]
        except RuntimeError as error:
            raise EngineError(f"no memory to share with the SGLang server: {error}") from error
        self._num_workers, self._num_bytes = num_workers, num_bytes

    @staticmethod
    def possible(context: EngineContext, weights: Mapping[str, Tensor]) -> bool:
        """Whether the workers of our own server see memory of this process, and there is room for it."""
        if _ELSEWHERE & context.settings.arguments.keys():
            return False
        if context.device == "cpu":
            return 2 * _size(weights) <= shutil.disk_usage(SHARED_MEMORY).free
        return torch.cuda.device_count() >= context.settings.tensor_parallel

    @classmethod
    def to_workers(cls, context: EngineContext, weights: Mapping[str, Tensor]) -> Handover:
        """To the workers of a server with this context. On GPUs each has its own, which this process sees in the same order."""
        workers = context.settings.tensor_parallel
        devices = (
            [torch.device("cpu")] if context.device == "cpu" else [torch.device("cuda", i) for i in range(workers)]
        )
        return cls(devices, workers, _size(weights))

    async def deliver(self, server: SglangServer, weights: Mapping[str, Tensor]) -> None:
        """Returns when the server has all weights. EngineError if it refuses or is lost."""
        buckets = in_buckets(weights, self._num_bytes)
        handles = await asyncio.to_thread(self._fill, 0, buckets[0])
        for place in range(1, len(buckets) + 1):
            taking = server.post("/update_weights_from_tensor", serialized_named_tensors=handles, flush_cache=False)
            if place == len(buckets):
                await taking
            else:
                filling = asyncio.to_thread(self._fill, place, buckets[place])
                _, handles = await asyncio.gather(taking, filling)

    def _fill(self, place: int, tensors: Mapping[str, Tensor]) -> list[str]:
        """The handle for each worker."""
        handles = [bucket.fill(tensors) for bucket in self._buckets[place % 2]]
        return handles if len(handles) == self._num_workers else handles * self._num_workers

    async def close(self, server: SglangServer) -> None:
        self._buckets.clear()


def _size(weights: Mapping[str, Tensor]) -> int:
    """Bytes of a bucket: room for all weights or BUCKET_BYTES of them, and for the largest tensor in any case."""
    sizes = [padded_bytes(tensor) for tensor in weights.values()]
    return max(min(BUCKET_BYTES, sum(sizes)), max(sizes))
