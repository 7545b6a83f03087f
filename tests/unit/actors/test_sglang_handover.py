"""Weights reach another process through memory that both map: bit for bit, in buckets, and again through the same memory."""

import asyncio
import base64
import io
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from corewarding.actors.engine import EngineContext, EngineError
from corewarding.actors.settings import EngineSettings
from corewarding.actors.sglang import handover
from corewarding.actors.sglang.handover import Handover, SharedBucket

READER = """
import base64, pickle, sys
import torch.multiprocessing
for line in sys.stdin:
    named = pickle.loads(base64.b64decode(line))
    said = [f"{name}:{one.dtype}:{list(one.shape)}:{one.double().sum().item()}" for name, one in named]
    print(" ".join(one.replace(" ", "") for one in said), flush=True)
"""


class Reader:
    """A process that is no child of torch's multiprocessing, as the server is none. Reads each bucket before it answers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.seen: dict[str, tuple[str, str, float]] = {}
        self.sizes: list[int] = []
        self.refuses: int | None = None  # the bucket that it refuses

    async def post(self, path: str, *, serialized_named_tensors: list[str], flush_cache: bool) -> None:
        assert path == "/update_weights_from_tensor"
        assert not flush_cache
        if len(self.sizes) == self.refuses:
            raise EngineError("the SGLang server refuses")
        assert len(set(serialized_named_tensors)) == 1
        await asyncio.sleep(0.05)  # the other bucket is filled meanwhile
        said = await asyncio.to_thread(self._ask, serialized_named_tensors[0])
        self.sizes.append(len(said))
        for one in said:
            name, dtype, shape, total = one.split(":")
            self.seen[name] = dtype, shape, float(total)

    def _ask(self, line: str) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().split()

    def forget(self) -> None:
        self.seen.clear()
        self.sizes.clear()
        self.refuses = None

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def process() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture
def reader(process: Reader) -> Any:
    process.forget()
    return process


def weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 5), "b": (7,), "c": (64, 33), "d": (1,), "e": (5, 5, 2)}
    dtypes = [torch.float32, torch.bfloat16]
    return {
        name: torch.randn(shape, generator=generator).to(dtypes[index % 2])
        for index, (name, shape) in enumerate(shapes.items())
    }


def described(named: dict[str, Tensor]) -> dict[str, tuple[str, str, float]]:
    return {
        name: (str(one.dtype), str(list(one.shape)).replace(" ", ""), one.double().sum().item())
        for name, one in named.items()
    }


def context(**arguments: Any) -> EngineContext:
    settings = EngineSettings(kind="sglang", tensor_parallel=2, arguments=arguments)
    return EngineContext(settings=settings, model_path="", max_model_len=8)


@pytest.mark.parametrize(("bucket_bytes", "num"), [(2**20, 1), (64, 3)])
def test_another_process_reads_every_delivery(
    reader: Any, monkeypatch: pytest.MonkeyPatch, bucket_bytes: int, num: int
) -> None:
    monkeypatch.setattr(handover, "BUCKET_BYTES", bucket_bytes)
    way = Handover.to_workers(context(), weights(0))
    for seed in range(3):
        asyncio.run(way.deliver(reader, weights(seed)))
        assert reader.seen == described(weights(seed))
    assert len(reader.sizes) == 3 * num


def test_a_refusal_ends_the_delivery_and_the_next_one_is_whole(reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "BUCKET_BYTES", 64)
    way = Handover.to_workers(context(), weights(0))
    reader.refuses = 1
    with pytest.raises(EngineError, match="refuses"):
        asyncio.run(way.deliver(reader, weights(0)))
    reader.forget()
    asyncio.run(way.deliver(reader, weights(1)))
    assert reader.seen == described(weights(1))


def test_handles_are_small_and_name_only_what_a_careful_unpickler_allows() -> None:
    large = {"w": torch.zeros(2**18)}
    handle = base64.b64decode(SharedBucket(2**20, torch.device("cpu")).fill(large))
    assert len(handle) < 1000
    names: set[tuple[str, str]] = set()

    class Careful(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            names.add((module, name))
            return super().find_class(module, name)

    Careful(io.BytesIO(handle)).load()
    assert names == {
        ("torch", "Tensor"),
        ("torch", "Size"),
        ("torch", "float32"),
        ("torch.multiprocessing.reductions", "rebuild_storage_filename"),
        ("torch.multiprocessing.reductions", "rebuild_tensor"),
        ("torch.multiprocessing.reductions", "rebuild_typed_storage"),
        ("torch.storage", "UntypedStorage"),
    }


def test_workers_elsewhere_and_a_full_dev_shm_need_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Handover.possible(context(), weights(0))
    assert not Handover.possible(context(dp_size=2), weights(0))
    monkeypatch.setattr(handover.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    assert not Handover.possible(context(), weights(0))
