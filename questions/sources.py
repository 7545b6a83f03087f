"""Reads the rows of a Parquet, JSONL, JSON or CSV file, a folder or a Hugging Face datasets id.

Only the columns that a reader wants are kept, so a column that nobody asked for goes no further.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import DataSetError

_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Rows with the wanted columns, and the names of all columns of the source."""

    name: str  # `key=value` as the user wrote it, for messages
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]


def read_table(source: str, *, key: str, split: str, wanted: frozenset[str] | None) -> Table:
    """Reads all rows of `source`, which the configuration names as `key`. wanted: columns to keep; None keeps all.

    DataSetError if the source cannot be read or has no rows.
    """
    name, path = f"{key}={source}", Path(source).expanduser()
    if path.is_dir():
        table = _folder(path, name=name, split=split, wanted=wanted)
    elif path.is_file():
        if path.suffix not in _FILES:
            raise DataSetError(f"{name}: the file must end in {', '.join(_FILES)} to be read")
        table = _FILES[path.suffix](path, name, wanted)
    elif path.suffix in _FILES or not (hub := _HUB_ID.fullmatch(source)):
        raise DataSetError(
            f"{name}: there is no such file or folder (looked for {path.absolute()}); a hub id has an owner, like openai/gsm8k"
        )
    else:
        loading = {"path": hub["id"], "name": hub["config"]}
        table = _datasets(loading, name=name, split=split, wanted=wanted)
    if not table.rows:
        raise DataSetError(f"{name}: it has no rows, so there is nothing to ask")
    return table


def is_file(source: str) -> bool:
    """Whether a source is named like a file, be it there or not."""
    return Path(source).suffix in _FILES


def _parquet(path: Path, name: str, wanted: frozenset[str] | None) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
            rows = file.read(columns=[c for c in columns if wanted is None or c in wanted]).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataSetError(f"{name}: not a readable Parquet file: {error}") from error
    return Table(name=name, columns=columns, rows=rows)


def _jsonl(path: Path, name: str, wanted: frozenset[str] | None) -> Table:
    rows = []
    for number, line in _lines(path, name=name):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataSetError(
                f"{name}: line {number} is not JSON ({error}); one object per line is expected"
            ) from error
        if not isinstance(row, dict):
            raise DataSetError(f"{name}: line {number} must be a JSON object, got {type(row).__name__}")
        rows.append(row)
    return _table(name, rows, wanted)


def _json(path: Path, name: str, wanted: frozenset[str] | None) -> Table:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataSetError(
            f"{name}: not a JSON file ({error}); a list of objects is expected, and one object per line ends in .jsonl"
        ) from error
    except UnicodeDecodeError as error:
        raise DataSetError(f"{name}: not UTF-8 text: {error}") from error
    if not isinstance(rows, list):
        raise DataSetError(f"{name}: must be a JSON list of objects, got {type(rows).__name__}")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataSetError(f"{name}: row {number} must be a JSON object, got {type(row).__name__}")
    return _table(name, rows, wanted)


def _csv(path: Path, name: str, wanted: frozenset[str] | None) -> Table:
    """A first line of column names, then rows; quoted fields may span lines. An empty field is None."""
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise DataSetError(
                        f"{name}: the row that ends in line {reader.line_num} has another number of fields than the "
                        f"{len(reader.fieldnames or ())} columns; a comma inside a text needs quotes around the text"
                    )
                rows.append({column: value or None for column, value in row.items()})
    except csv.Error as error:
        raise DataSetError(f"{name}: not a CSV file: {error}") from error
    except UnicodeDecodeError as error:
        raise DataSetError(f"{name}: not UTF-8 text: {error}") from error
    return _table(name, rows, wanted)


def _table(name: str, rows: Iterable[Mapping[str, Any]], wanted: frozenset[str] | None) -> Table:
    """All columns that any row has, in the order in which they first occur."""
    columns: dict[str, None] = {}
    kept = []
    for row in rows:
        columns |= dict.fromkeys(row)
        kept.append({column: value for column, value in row.items() if wanted is None or column in wanted})
    return Table(name=name, columns=tuple(columns), rows=kept)


def _lines(path: Path, *, name: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, counted from 1."""
    try:
        with path.open(encoding="utf-8-sig") as file:  # not str.splitlines, which also breaks at U+2028 inside a string
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataSetError(f"{name}: not UTF-8 text: {error}") from error


def _folder(path: Path, *, name: str, split: str, wanted: frozenset[str] | None) -> Table:
    """A folder written by `save_to_disk`, or one of data files as the hub lays them out."""
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _saved(path, name=name, split=split, wanted=wanted)
    # Streamed, and locked in a folder that goes away: nothing of a local folder is copied into a cache.
    with tempfile.TemporaryDirectory() as cache:
        loading = {"path": str(path), "cache_dir": cache, "streaming": True}
        return _datasets(loading, name=name, split=split, wanted=wanted)


def _saved(path: Path, *, name: str, split: str, wanted: frozenset[str] | None) -> Table:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise DataSetError(f"{name}: the folder cannot be loaded by datasets.load_from_disk: {error}") from error
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise DataSetError(f"{name}: there is no split {split!r}, only {sorted(loaded)}; set {_split_key(name)}")
        loaded = loaded[split]
    columns = tuple(loaded.column_names)
    rows = loaded.select_columns([c for c in columns if wanted is None or c in wanted]).to_list()
    return Table(name=name, columns=columns, rows=rows)


def _datasets(loading: dict[str, Any], *, name: str, split: str, wanted: frozenset[str] | None) -> Table:
    """Rows of `datasets.load_dataset(**loading)`."""
    import datasets

    try:
        return _table(name, datasets.load_dataset(**loading, split=split), wanted)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataSetError(
            f"{name}: datasets cannot load split {split!r} of it: {error} "
            f"(a file, a folder or a hub id is expected; {_split_key(name)} names the split)"
        ) from error


def _split_key(name: str) -> str:
    return name.partition("=")[0] + "_split"


_FILES: dict[str, Callable[[Path, str, frozenset[str] | None], Table]] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
}
