"""A torch store that only the members of one group can use, and the proof of each member to the others that it is one.

A TCPStore believes everyone who reaches its port, and gloo everyone who connects in time. So the members share a key, which rank 0
makes for this group and Ray's authenticated calls pass on. What they write is encrypted and signed with it (NCCL admits whoever
knows its unique id, which lies in the store). What a stranger writes ends in StrangerError.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from corewarding.dataflow.errors import RunError

_KEY, _NONCE, _TAG = 32, 16, 32  # bytes


class StrangerError(RunError):
    """Something that is not a member of the group took part in its rendezvous."""


def new_key() -> bytes:
    """A key for one group. It never leaves the run's processes."""
    return secrets.token_bytes(_KEY)


class SealedStore(dist.Store):
    """`store` with names and values that mean nothing to anyone without the key. Only what torch's process groups use."""

    def __init__(self, store: dist.Store, key: bytes) -> None:
        super().__init__()
        if len(key) != _KEY:
            raise ValueError(f"a group's key has {_KEY} bytes, got {len(key)}")
        self._store, self._key = store, key

    def set(self, key: str, value: bytes | str) -> None:
        data = value.encode() if isinstance(value, str) else value
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._crypt(nonce, data)
        # a Python string of Latin-1 letters is not the same bytes in torch, so bytes are passed on as bytes
        self._store.set(self._name(key), sealed + self._tag(key, sealed))  # type: ignore[arg-type]

    def get(self, key: str) -> bytes:
        """Waits for the value. StrangerError if it was not written by a member under this name."""
        data = self._store.get(self._name(key))
        sealed, tag = data[:-_TAG], data[-_TAG:]
        if len(sealed) < _NONCE or not hmac.compare_digest(tag, self._tag(key, sealed)):
            raise StrangerError(
                f"the value of {key} in the rendezvous was not written by a member of this run: another process writes into its "
                "store. Find out who reaches this port (it is on loopback or on the node's own address), then resume"
            )
        return self._crypt(sealed[:_NONCE], sealed[_NONCE:])

    def wait(self, keys: Sequence[str], *timeout: timedelta) -> None:  # type: ignore[override]
        self._store.wait([self._name(key) for key in keys], *timeout)

    def check(self, keys: Sequence[str]) -> bool:
        return self._store.check([self._name(key) for key in keys])

    def delete_key(self, key: str) -> bool:
        return self._store.delete_key(self._name(key))

    def has_extended_api(self) -> bool:
        return False

    def _name(self, key: str) -> str:
        return hashlib.blake2b(key.encode(), key=self._key, person=b"name", digest_size=16).hexdigest()

    def _tag(self, key: str, sealed: bytes) -> bytes:
        name = hashlib.blake2b(key.encode(), key=self._key, person=b"named").digest()
        return hashlib.blake2b(name + sealed, key=self._key, person=b"tag", digest_size=_TAG).digest()

    def _crypt(self, nonce: bytes, data: bytes) -> bytes:
        stream = hashlib.shake_256(b"stream" + self._key + nonce).digest(len(data))
        return bytes(a ^ b for a, b in zip(data, stream, strict=True))


def recognise(group: Any, key: bytes, *, rank: int, world_size: int) -> None:
    """Every member proves to every other, over their own connection, that it holds the key. StrangerError names who did not.

    group: a gloo group, or torch's default group over gloo. Collective.
    """
    others = range(world_size)
    sent = torch.tensor([list(_proof(key, rank, other)) for other in others], dtype=torch.uint8)
    heard = torch.empty_like(sent)
    group.alltoall_base(heard.view(-1), sent.view(-1), [], [], dist.AllToAllOptions()).wait()
    strangers = [r for r in others if not hmac.compare_digest(bytes(heard[r].tolist()), _proof(key, r, rank))]
    if strangers:
        raise StrangerError(
            f"whoever connected to rank {rank} as rank {', '.join(map(str, strangers))} is not a member of this run: another process "
            "of this machine or network took its place. Find out who it is, then resume"
        )


def _proof(key: bytes, of: int, to: int) -> bytes:
    return hashlib.blake2b(f"{of} to {to}".encode(), key=key, person=b"proof", digest_size=_TAG).digest()
