"""Records the numbers, or compares them with the record.

python -m tests.recorded.record             compare within 1e-6; keys and tokens to the letter
python -m tests.recorded.record --exact     compare bit by bit, for two states of the code on one machine
python -m tests.recorded.record --write     write the record anew; say in the commit which numbers changed and why
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.recorded import inputs, numbers

FOLDER = Path(__file__).parent
TOLERANCE = 1e-6
SAMPLED_TOLERANCE = (
    1e-5  # logprobs of single tokens after a whole forward pass: other instruction sets round differently
)


def load() -> tuple[dict[str, Any], numbers.Arrays]:
    """(exact, close) as recorded."""
    with np.load(FOLDER / "arrays.npz") as file:
        arrays = dict(file)
    scalars = json.loads((FOLDER / "scalars.json").read_text())
    exact = json.loads((FOLDER / "exact.json").read_text())
    return exact, arrays | {name: np.array(value) for name, value in scalars.items()}


def write(exact: dict[str, Any], close: numbers.Arrays) -> None:
    """Writes the record: text, scalars and arrays in a file each."""
    (FOLDER / "exact.json").write_text(_rows(exact))
    (FOLDER / "scalars.json").write_text(
        _rows({name: float(value) for name, value in sorted(close.items()) if not value.ndim})
    )
    arrays = {name: value for name, value in close.items() if value.ndim}
    np.savez_compressed(FOLDER / "arrays.npz", **arrays)  # type: ignore[arg-type]


def _rows(values: dict[str, Any]) -> str:
    """A JSON object with an entry on each line, so that a changed entry is a changed line."""
    lines = []
    for key, value in values.items():
        text = ",\n".join(json.dumps(one, ensure_ascii=False) for one in value) if isinstance(value, list) else ""
        lines.append(f"{json.dumps(key)}: " + (f"[\n{text}\n]" if text else json.dumps(value, ensure_ascii=False)))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def differences(*, bitwise: bool = False) -> list[str]:
    """One line for each number that differs from the record."""
    exact, close = load()
    answers = [text for text, *_ in exact["keys"]]
    return _differences_exact(exact, numbers.exact(answers)) + _differences_close(
        close, numbers.close(), bitwise=bitwise
    )


def _differences_exact(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each entry that is not what was recorded."""
    now = json.loads(json.dumps(now))  # tuples are lists in the file
    lines = []
    for name in sorted(recorded.keys() | now.keys()):
        old, new = recorded.get(name), now.get(name)
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            lines += [f"{name}: {a} is now {b}" for a, b in zip(old, new, strict=True) if a != b]
        elif old != new:
            lines.append(f"{name}: {old} is now {new}")
    return lines


def _differences_close(recorded: numbers.Arrays, now: numbers.Arrays, *, bitwise: bool) -> list[str]:
    """One line for each recorded array that is not what was recorded, within TOLERANCE unless bitwise."""
    lines = [f"{name}: is not computed any more" for name in sorted(recorded.keys() - now.keys())]
    for name in sorted(recorded.keys() & now.keys()):
        old, new = recorded[name], np.asarray(now[name])
        if old.shape != new.shape:
            lines.append(f"{name}: shape {old.shape} is now {new.shape}")
        elif bitwise or old.dtype.kind != "f":
            if not name.endswith("/digest") or bitwise:
                lines += [f"{name}: other values"] if old.tobytes() != new.astype(old.dtype).tobytes() else []
        elif not np.array_equal(np.isfinite(old), np.isfinite(new)):
            lines.append(f"{name}: not finite in other places")
        else:
            lines += _apart(name, old, new)
    return lines


def _apart(name: str, old: np.ndarray, new: np.ndarray) -> list[str]:
    """Scalars are compared one by one, arrays by their largest number."""
    finite = np.isfinite(old)
    size = np.abs(old) if old.ndim == 0 else np.abs(old[finite]).max(initial=0.0)
    relative = np.abs(old - new)[finite] / np.broadcast_to(size + 1e-9, old.shape)[finite]
    worst = relative.max(initial=0.0)
    tolerance = SAMPLED_TOLERANCE if name.startswith("sampled/") else TOLERANCE
    return [f"{name}: {worst:.1e} apart"] if worst > tolerance else []


def main() -> int:
    parser = argparse.ArgumentParser(description="Records the numbers, or compares them with the record.")
    parser.add_argument("--write", action="store_true", help="write the record anew")
    parser.add_argument("--exact", action="store_true", help="compare bit by bit")
    arguments = parser.parse_args()
    if arguments.write:
        write(numbers.exact(inputs.answers()), numbers.close())
        return 0
    lines = differences(bitwise=arguments.exact)
    print("\n".join(lines) or "all numbers are as recorded")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
