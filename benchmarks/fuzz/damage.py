"""Damage to journals, drawn at random: to the bytes of segments, and to the records in frames with right checksums."""

from __future__ import annotations

import functools
import random
import tempfile
import zlib
from pathlib import Path
from typing import Any

from benchmarks.fuzz.codec import MIB, write_seeds
from corewarding.dataflow.codec import CodecError, decode, encode
from corewarding.learner.replay.journal.segments import MAGIC, read

Segments = list[bytes]
"""The contents of a journal's segments, in order."""
SIZES = (4096, 900_000)
"""Of hostile messages."""


def damaged(contents: Segments, hostile: list[bytes], draws: random.Random) -> tuple[str, Segments]:
    """(what was done, the journal after it), at most 1 MiB."""
    damage = draws.choice(RAW + FRAMED)
    if damage in RAW:
        changed = damage(contents, hostile, draws)
    else:
        k = draws.randrange(len(contents))
        changed = [*contents[:k], *damage([contents[k]], hostile, draws), *contents[k + 1 :]]
    assert sum(map(len, changed)) <= MIB
    return damage.__name__, changed


def bits(contents: Segments, hostile: list[bytes], draws: random.Random) -> Segments:
    k = draws.randrange(len(contents))
    changed = bytearray(contents[k])
    for _ in range(draws.choice([1, 1, 3, 50])):
        changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
    return [*contents[:k], bytes(changed), *contents[k + 1 :]]


def cut(contents: Segments, hostile: list[bytes], draws: random.Random) -> Segments:
    k = draws.choice([len(contents) - 1, draws.randrange(len(contents))])
    begin, end = sorted(draws.randrange(len(contents[k]) + 1) for _ in range(2))
    left = contents[k][:begin] + draws.choice([b"", contents[k][end:], b"\0" * (end - begin)])
    return [*contents[:k], left, *contents[k + 1 :]]


def mixed_segments(contents: Segments, hostile: list[bytes], draws: random.Random) -> Segments:
    a, b = draws.randrange(len(contents)), draws.randrange(len(contents))
    changed = list(contents)
    match draws.randrange(3):
        case 0:
            changed[a], changed[b] = changed[b], changed[a]
        case 1:
            changed.insert(a, changed[b])
        case _:
            del changed[a]
    return changed or [b""]


def mixed_frames(contents: Segments, hostile: list[bytes], draws: random.Random) -> Segments:
    frames = list(payloads(contents[0]))
    a, b = draws.randrange(len(frames)), draws.randrange(len(frames))
    match draws.randrange(3):
        case 0:
            frames[a], frames[b] = frames[b], frames[a]
        case 1:
            frames.insert(a, frames[b])
        case _:
            del frames[a]
    return [framed(frames)]


def changed_fields(contents: Segments, hostile: list[bytes], draws: random.Random) -> Segments:
    """Some values of a record are others, of the same or another type, at any depth."""
    frames = list(payloads(contents[0]))
    k = draws.randrange(len(frames))
    entry = decode(frames[k])
    others = [
        value for frame in draws.sample(frames, min(4, len(frames))) for record in decode(frame) for value in record
    ]
    values = [*others, None, 0, -1, 2**63, 1e300, float("nan"), "", "x", b"", [], {}, ()]
    for _ in range(draws.choice([1, 1, 2])):
        entry = replaced(entry, values, draws)
    frames[k] = encode(entry) if isinstance(entry, list) else b"\x00"
    return [framed(frames)]


def replaced(value: Any, others: list[Any], draws: random.Random) -> Any:
    if isinstance(value, list | tuple) and value and draws.random() < 0.9:
        items: list[Any] = list(value)
        k = draws.randrange(len(items))
        items[k] = replaced(items[k], others, draws)
        return type(value)(items)
    if isinstance(value, dict) and value and draws.random() < 0.9:
        key = draws.choice(sorted(value, key=repr))
        return {**value, key: replaced(value[key], others, draws)}
    if isinstance(value, bytes) and value and draws.random() < 0.9:
        return flipped_or_changed(value, others, draws)
    return draws.choice(others)


def flipped_or_changed(message: bytes, others: list[Any], draws: random.Random) -> bytes:
    """A message inside a record: with changed bits, or with a carrier's field changed."""
    if draws.random() < 0.3:
        changed = bytearray(message)
        changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
        return bytes(changed)
    try:
        inner = decode(message)
    except CodecError:  # it was changed before
        return message[: draws.randrange(len(message))]
    if isinstance(inner, list) and inner and draws.random() < 0.5:
        inner[draws.randrange(len(inner))] = draws.choice([*inner, *others])
    elif isinstance(inner, list):
        inner = [*inner[: draws.randrange(len(inner) + 1)], *inner[draws.randrange(len(inner) + 1) :]]
    return encode(inner)


def hostile_messages(folder: Path) -> list[bytes]:
    """The codec's seeds, and messages that hold as much as they can and leave room for the other frames of a journal."""
    write_seeds(folder)
    seeds = [path.read_bytes() for path in sorted(folder.iterdir())]
    items = (b"\x90", b"\x80", b"\x01", b"\xa2ab", b"\xc7\x00\x03")
    full = [
        b"\xdd" + (size // len(item)).to_bytes(4, "big") + item * (size // len(item))
        for item in items
        for size in SIZES
    ]
    return [seed for seed in seeds if len(seed) < MIB // 2] + full


def hostile_payloads(contents: Segments, hostile: list[bytes], draws: random.Random) -> Segments:
    """A frame, or a field of bytes in one, is a message made to cost memory."""
    frames = list(payloads(contents[0]))
    k, message = draws.randrange(len(frames)), draws.choice(hostile)
    where = draws.randrange(3)
    if where == 0:
        frames[k] = message
    elif where == 1:
        frames[k] = encode([[draws.choice(["Arrived", "Held", "Initial"]), message]])
    else:
        frames.insert(k, encode([["Statistics", draws.randrange(7), message]]))
    return [framed(frames)]


RAW = (bits, cut, mixed_segments)
FRAMED = (mixed_frames, changed_fields, changed_fields, changed_fields, hostile_payloads)


@functools.cache
def payloads(content: bytes) -> tuple[bytes, ...]:
    """Of the whole frames of a segment."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "segment-000001.cwj"
        path.write_bytes(content)
        return tuple(payload for _, payload in read(path, torn=[]))


def framed(frames: list[bytes]) -> bytes:
    parts = [MAGIC]
    for payload in frames:
        header = len(payload).to_bytes(4, "little") + zlib.crc32(payload).to_bytes(4, "little")
        parts += [header, zlib.crc32(header).to_bytes(4, "little"), payload]
    return b"".join(parts)
