r"""Bytes that atheris mutates, guided by the code that they reach, against the decoder of messages.

    pip install atheris
    python -m benchmarks.fuzz.codec [--seconds 600] [--python-msgpack]

It starts from one valid message of each type that travels and from messages that claim more than they hold. Any error but CodecError,
and more than 64 MiB for a message of up to 1 MiB, ends it with exit code 1 and the file that holds the message. --python-msgpack
fuzzes msgpack's Python code instead of its C code, so that coverage guides the mutations inside msgpack, too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import types
import typing
from pathlib import Path
from typing import Any, Literal

import numpy as np

MIB = 1 << 20
LIMIT = 64 * MIB
SAVE_EVERY_S = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--python-msgpack", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_seeds(folder / "seeds")
        environment = os.environ | ({"MSGPACK_PUREPYTHON": "1"} if arguments.python_msgpack else {})
        began = time.monotonic()
        command = [sys.executable, "-c", "from benchmarks.fuzz.codec import fuzz; fuzz()"]
        words = [
            str(folder / "seeds"), f"-max_total_time={arguments.seconds}", f"-max_len={MIB}", "-len_control=20", "-timeout=60",
            "-rss_limit_mb=4096", f"-artifact_prefix={Path.cwd()}/",
        ]  # fmt: skip
        log = folder / "log"
        with log.open("w") as out:
            code = subprocess.run(
                command + words,
                env=environment | {"FUZZ_TALLY": str(folder / "tally")},
                stdout=out,
                stderr=subprocess.STDOUT,
            ).returncode
        tally = json.loads((folder / "tally").read_text())
        text = log.read_text(errors="replace")
    coverage = [line for line in text.splitlines() if " cov: " in line]
    print(coverage[-1] if coverage else "no coverage was reported")
    seconds, peak = time.monotonic() - began, tally["peak"] / MIB
    print(
        f"{tally['messages']:,} messages of up to {tally['largest']:,} bytes in {seconds:.0f} s: {tally['decoded']:,} decoded, the "
        f"others CodecError; most memory for one {peak:.1f} MiB (of {tally['peak_bytes']:,} bytes)"
    )
    if code != 0:
        print(text[-3000:])
    return 1 if code else 0


def fuzz() -> None:
    """The child's main function. libFuzzer ends the process itself, so the tally goes to a file."""
    import atheris

    with atheris.instrument_imports(include=["corewarding.dataflow", "msgpack"]):
        from corewarding.dataflow.codec import CodecError, decode
    tally = {"messages": 0, "decoded": 0, "peak": 0, "peak_bytes": 0, "largest": 0}
    file = Path(os.environ["FUZZ_TALLY"])

    saved = [time.monotonic()]

    def one(data: bytes) -> None:
        before = start_of_peak()
        try:
            decode(data)
            tally["decoded"] += 1
        except CodecError:
            pass
        taken = kib_of("VmHWM") * 1024 - before
        tally["messages"] += 1
        tally["largest"] = max(tally["largest"], len(data))
        if taken > tally["peak"]:
            tally["peak"], tally["peak_bytes"] = taken, len(data)
        if time.monotonic() - saved[0] > SAVE_EVERY_S:
            file.write_text(json.dumps(tally))
            saved[0] = time.monotonic()
        assert taken <= LIMIT, f"{len(data)} bytes took {taken} bytes"

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


def start_of_peak() -> int:
    """Bytes of memory that this process has now; the kernel's record of the most begins anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return kib_of("VmRSS") * 1024


def kib_of(field: str) -> int:
    status = Path("/proc/self/status").read_bytes()
    return int(status[status.index(field.encode()) :].split(None, 2)[1])


def write_seeds(folder: Path) -> None:
    """One message of each carrier, and messages of up to 1 MiB that claim or hold as much as they can."""
    from corewarding.dataflow.codec import CARRIERS, encode

    folder.mkdir()
    for name, carrier in CARRIERS.items():
        (folder / name).write_bytes(encode(example(carrier)))
        (folder / f"{name} in columns").write_bytes(encode([example(carrier)] * 3))
    for size in (1 << 12, MIB):
        count = (size - 5).to_bytes(4, "big")
        for name, item in {"lists": b"\x90", "dicts": b"\x80", "numbers": b"\x01"}.items():
            (folder / f"{size} {name}").write_bytes(b"\xdd" + count + item * (size - 5))
    (folder / "claims").write_bytes(b"\xdd\xff\xff\xff\xff" * 1000)
    (folder / "nested").write_bytes(b"\x91" * 1000)


def example(hint: Any) -> Any:
    """A value that fits the annotation: carriers with all fields, containers of one item."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    simple = {int: 1, float: 0.5, str: "a", bytes: b"k", bool: True, type(None): None, Any: 1}
    if hint in simple:
        return simple[hint]
    if origin is Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        return example(arguments[0])
    if origin is np.ndarray:
        return np.ones(1, typing.get_args(arguments[1])[0])
    if origin is tuple:
        return (example(arguments[0]),)
    if origin is dict:
        return {example(arguments[0]): example(arguments[1])}
    if origin is not None:
        return [example(arguments[0])]
    hints = typing.get_type_hints(hint)
    return hint(**{field.name: example(hints[field.name]) for field in dataclasses.fields(hint)})


if __name__ == "__main__":
    sys.exit(main())
