"""The stream: cutting is exact, checksums add up over shards, and only what was announced is accepted."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corewarding.dataflow.ids import Version
from corewarding.dataflow.weights import TensorSpec, WeightManifest
from corewarding.weights.group import TransportError, WeightGroup, serve
from corewarding.weights.stream import Shard, bucket_size, checksum, plan, receive

CPU = torch.device("cpu")


def manifest_of(shapes: dict[str, tuple[int, ...]], bucket_bytes: int, dtype: str = "float32") -> WeightManifest:
    size = {"float32": 4, "bfloat16": 2}[dtype]
    specs = tuple(
        TensorSpec(name=name, shape=shape, dtype=dtype, num_bytes=size * int(torch.tensor(shape).prod()), checksum=None)
        for name, shape in shapes.items()
    )
    version = Version(incarnation=0, updates=1)
    return WeightManifest(channel="policy", version=version, group_epoch=1, bucket_bytes=bucket_bytes, tensors=specs)


def test_plan_by_hand() -> None:
    manifest = manifest_of({"a": (3,), "b": (2, 3)}, bucket_bytes=16)  # 12 + 24 bytes: buckets of 16, 16 and 4
    cuts = [[(p.index, p.start, p.count, p.offset) for p in pieces] for pieces in plan(manifest)]
    assert cuts == [[(0, 0, 3, 0), (1, 0, 1, 12)], [(1, 1, 4, 0)], [(1, 5, 1, 0)]]
    assert [bucket_size(pieces, manifest) for pieces in plan(manifest)] == [16, 16, 4]


@given(sizes=st.lists(st.integers(0, 40), max_size=8), bucket=st.integers(1, 20))
def test_plan_covers_every_byte_once_in_order(sizes: list[int], bucket: int) -> None:
    manifest = manifest_of({str(i): (n,) for i, n in enumerate(sizes)}, bucket_bytes=4 * bucket)
    buckets = list(plan(manifest))
    covered = [(p.index, p.start + k) for pieces in buckets for p in pieces for k in range(p.count)]
    assert covered == [(i, k) for i, n in enumerate(sizes) for k in range(n)]
    assert all(bucket_size(pieces, manifest) == 4 * bucket for pieces in buckets[:-1])


def test_plan_refuses_what_would_cut_an_element() -> None:
    with pytest.raises(TransportError, match="would cut"):
        list(plan(manifest_of({"a": (3,)}, bucket_bytes=6)))
    manifest = manifest_of({"a": (3,)}, bucket_bytes=16)
    lying = dataclasses.replace(manifest.tensors[0], num_bytes=8)
    with pytest.raises(TransportError, match="8 bytes announced"):
        list(plan(dataclasses.replace(manifest, tensors=(lying,))))


@settings(deadline=None)
@given(values=st.lists(st.floats(width=32), min_size=1, max_size=60), data=st.data())
def test_checksums_of_shards_add_up(values: list[float], data: st.DataObject) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    cut = data.draw(st.integers(0, len(values)))
    parts = checksum(tensor[:cut]) + checksum(tensor[cut:], cut)
    assert checksum(tensor) == parts % 2**64


@settings(deadline=None)
@given(index=st.integers(0, 99), bit=st.integers(0, 31))
def test_checksum_sees_any_single_bit(index: int, bit: int) -> None:
    tensor = torch.arange(100, dtype=torch.float32)
    flipped = tensor.clone()
    flipped.view(torch.int32)[index] ^= -(2**31) if bit == 31 else 1 << bit
    assert checksum(flipped) != checksum(tensor)


def test_checksum_sees_moved_elements_and_is_of_the_wire_dtype() -> None:
    tensor = torch.randn(3_000_000)  # more than one chunk
    swapped = tensor.clone()
    swapped[[5, 2_000_000]] = tensor[[2_000_000, 5]]
    assert checksum(swapped) != checksum(tensor)
    assert checksum(tensor, dtype=torch.bfloat16) == checksum(tensor.to(torch.bfloat16)) != checksum(tensor)


def test_shards_refuse_ranges_outside_the_tensor() -> None:
    with pytest.raises(TransportError, match=r"covers 3\.\.5 of 4"):
        Shard(name="w", shape=(2, 2), start=3, local=torch.zeros(2))


def transfer(
    manifest: WeightManifest, payload: list[torch.Tensor], into: dict[str, torch.Tensor], backend: str
) -> None:
    """Sends `payload`, one tensor per bucket, to one receiver and raises what the receiver raises."""
    rendezvous, store = serve(channel="policy", group_epoch=1, world_size=2, backend=backend, timeout_s=5)

    def take() -> None:
        group = WeightGroup(rendezvous, rank=1, device=CPU)
        try:
            receive(group, manifest, into)
        finally:
            group.close()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(take)
        group = WeightGroup(rendezvous, rank=0, device=CPU, store=store)
        for bucket in payload:
            group.broadcast(bucket).wait()
        future.result(10)
    group.close()


@pytest.mark.parametrize("backend", ["gloo", "ipc"])
def test_receive_casts_and_verifies(backend: str) -> None:
    weights = torch.randn(40)
    wire = weights.to(torch.bfloat16)
    manifest = manifest_of({"w": (5, 8)}, bucket_bytes=32, dtype="bfloat16")
    spec = dataclasses.replace(manifest.tensors[0], checksum=checksum(wire))
    manifest = dataclasses.replace(manifest, tensors=(spec,))
    into = {"w": torch.zeros(5, 8)}
    transfer(manifest, list(wire.view(torch.uint8).split(32)), into, backend)
    assert torch.equal(into["w"].view(-1), wire.float())

    corrupt = wire.clone()
    corrupt[17] += 1
    with pytest.raises(TransportError, match=r"w of policy version 0\.1: checksum .* differs"):
        transfer(manifest, list(corrupt.view(torch.uint8).split(32)), into, backend)


@pytest.mark.parametrize(
    ("into", "message"),
    [
        ({"w": torch.zeros(4)}, "announced as"),
        ({"v": torch.zeros(2, 2)}, r"\['v', 'w'\]"),
        ({"w": torch.zeros(2, 2), "v": torch.zeros(1)}, r"\['v'\]"),
        ({"w": torch.zeros(2, 2).t()}, None),
        ({"w": torch.zeros(2, 4)[:, :2]}, "contiguous: False"),
    ],
)
def test_receive_takes_exactly_what_was_announced(into: dict[str, torch.Tensor], message: str) -> None:
    manifest = manifest_of({"w": (2, 2)}, bucket_bytes=16)
    with pytest.raises(TransportError, match=message):
        receive(None, manifest, into)  # type: ignore[arg-type]  # refused before the group is touched
