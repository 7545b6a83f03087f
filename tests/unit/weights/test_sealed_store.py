"""Only members of a group can write into its rendezvous or take a member's place; real processes, and a stranger that tries."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from corewarding.dataflow.codec import encode
from corewarding.weights.group import LOOPBACK, TransportError, WeightGroup, open_store, serve
from corewarding.weights.sealed_store import SealedStore, StrangerError, new_key, recognise

CPU = torch.device("cpu")
WITHIN = timedelta(seconds=10)
MEMBER = """
import sys, torch
from corewarding.dataflow.codec import decode
from corewarding.weights.group import WeightGroup
group = WeightGroup(decode(sys.stdin.buffer.read()), rank=1, device=torch.device("cpu"))
"""
STRANGER = """
import sys, time
from datetime import timedelta
import torch.distributed as dist
store = dist.TCPStore("127.0.0.1", int(sys.argv[1]), timeout=timedelta(seconds=20), wait_for_workers=False)
print("ready", flush=True)
while True:
    for key in store.list_keys():
        store.set(key, b"forged value of a stranger, as long as that of a member" * 3)
"""


def store_of(key: bytes) -> tuple[dist.TCPStore, SealedStore]:
    server = open_store(LOOPBACK, timeout=WITHIN)
    return server, SealedStore(server, key)


def test_members_read_what_members_wrote_and_nobody_else_does() -> None:
    key = new_key()
    server, mine = store_of(key)
    theirs = SealedStore(dist.TCPStore(LOOPBACK, server.port, timeout=WITHIN, wait_for_workers=False), key)
    mine.set("address", b"\x00\xff 127.0.0.1")
    assert theirs.get("address") == b"\x00\xff 127.0.0.1"
    assert theirs.check(["address"])
    assert not theirs.check(["another"])
    theirs.wait(["address"], WITHIN)
    (name,) = server.list_keys()
    assert "address" not in name
    assert b"127.0.0.1" not in server.get(name)
    mine.delete_key("address")
    assert server.list_keys() == []


@pytest.mark.parametrize("change", ["overwritten", "emptied", "one bit", "another name's", "another key's"])
def test_a_forged_value_is_refused(change: str) -> None:
    server, sealed = store_of(new_key())
    sealed.set("rank 0", b"a")
    (name,) = server.list_keys()
    value = server.get(name)
    sealed.set("rank 1", b"b")
    (other,) = set(server.list_keys()) - {name}
    SealedStore(server, new_key()).set("rank 1", b"b")
    (foreign,) = set(server.list_keys()) - {name, other}
    server.set(
        name,
        {
            "overwritten": b"x" * 100,
            "emptied": b"",
            "one bit": value[:20] + bytes([value[20] ^ 1]) + value[21:],
            "another name's": server.get(other),
            "another key's": server.get(foreign),
        }[change],
    )
    with pytest.raises(StrangerError, match="rank 0 in the rendezvous was not written by a member of this run"):
        sealed.get("rank 0")


def test_a_stranger_that_overwrites_the_rendezvous_ends_in_a_named_error_on_every_member() -> None:
    rendezvous, store = serve(channel="policy", group_epoch=1, world_size=2, backend="gloo", timeout_s=60)
    stranger = subprocess.Popen(
        [sys.executable, "-c", STRANGER, str(rendezvous.port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "ready\n"
        member = subprocess.Popen([sys.executable, "-c", MEMBER], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert member.stdin is not None
        member.stdin.write(encode(rendezvous))
        member.stdin.close()
        with pytest.raises(
            TransportError, match=r"policy weight group 1, rank 0: .*not written by a member of this run"
        ):
            WeightGroup(rendezvous, rank=0, device=CPU, store=store)
        del store
        assert member.stderr is not None
        assert member.wait(30) != 0
        assert "TransportError" in member.stderr.read().decode()
    finally:
        stranger.kill()
        stranger.wait()
        stranger.stdout.close()


def test_whoever_takes_a_members_place_without_the_key_is_named() -> None:
    """Three processes of a gloo group, as if the third had come by a rendezvous of its own making."""
    server, key = dist.HashStore(), new_key()

    def member(rank: int) -> str:
        group = dist.ProcessGroupGloo(server, rank, 3, WITHIN)
        try:
            recognise(group, new_key() if rank == 2 else key, rank=rank, world_size=3)
        except StrangerError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(3) as pool:
        zero, one, two = pool.map(member, range(3))
    assert "connected to rank 0 as rank 2 is not a member" in zero
    assert "connected to rank 1 as rank 2 is not a member" in one
    assert "connected to rank 2 as rank 0, 1 is not a member" in two


def test_the_key_is_not_printed() -> None:
    rendezvous, _ = serve(channel="policy", group_epoch=1, world_size=2, backend="gloo", timeout_s=10)
    assert rendezvous.key.hex() not in repr(rendezvous)
    assert repr(rendezvous.key) not in repr(rendezvous)
