"""Rows of a Parquet file, a JSONL file, a folder or a Hugging Face datasets id.

Only the columns a reader asks for are kept: a worked solution that nobody asked for goes no further.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import DataSetError

_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+|[\w.-]+)(:(?P<config>[\w.-]+))?")
_FILE_ENDINGS = (".parquet", ".jsonl")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Rows with the columns that were wanted, and the names of all columns there are."""

    name: str  # `key=value` as the user wrote it, for messages
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]


def read_table(source: str, *, key: str, split: str, wanted: frozenset[str]) -> Table:
    """All rows of `source`, which the configuration names as `key`; DataSetError where it cannot be read."""
    name, path = f"{key}={source}", Path(source).expanduser()
    if path.is_dir():
        table = _folder(path, name=name, split=split, wanted=wanted)
    elif path.suffix == ".parquet" and path.is_file():
        table = _parquet(path, name=name, wanted=wanted)
    elif path.suffix == ".jsonl" and path.is_file():
        table = _jsonl(path, name=name, wanted=wanted)
    elif path.is_file():
        raise DataSetError(f"{name}: the file must end in .parquet or .jsonl to be read")
    elif path.suffix in _FILE_ENDINGS or not (hub := _HUB_ID.fullmatch(source)):
        raise DataSetError(f"{name}: there is no such file or folder (looked for {path.absolute()})")
    else:
        loading = {"path": hub["id"], "name": hub["config"]}
        table = _datasets(loading, name=name, split=split, wanted=wanted)
    if not table.rows:
        raise DataSetError(f"{name}: it has no rows, so there is nothing to ask")
    return table


def _parquet(path: Path, *, name: str, wanted: frozenset[str]) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
            rows = file.read(columns=[c for c in columns if c in wanted]).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataSetError(f"{name}: not a readable Parquet file: {error}") from error
    return Table(name=name, columns=columns, rows=rows)


def _jsonl(path: Path, *, name: str, wanted: frozenset[str]) -> Table:
    columns: dict[str, None] = {}
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
        columns |= dict.fromkeys(row)
        rows.append({column: value for column, value in row.items() if column in wanted})
    return Table(name=name, columns=tuple(columns), rows=rows)


def _lines(path: Path, *, name: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, counted from 1."""
    try:
        with path.open(encoding="utf-8") as file:  # not str.splitlines, which also breaks at U+2028 inside a string
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataSetError(f"{name}: not UTF-8 text: {error}") from error


def _folder(path: Path, *, name: str, split: str, wanted: frozenset[str]) -> Table:
    """A folder written by `save_to_disk`, or one of data files as the hub lays them out."""
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _saved(path, name=name, split=split, wanted=wanted)
    # Streamed, and locked in a folder that goes away: nothing of a local folder is copied into a cache.
    with tempfile.TemporaryDirectory() as cache:
        loading = {"path": str(path), "cache_dir": cache, "streaming": True}
        return _datasets(loading, name=name, split=split, wanted=wanted)


def _saved(path: Path, *, name: str, split: str, wanted: frozenset[str]) -> Table:
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
    rows = loaded.select_columns([c for c in columns if c in wanted]).to_list()
    return Table(name=name, columns=columns, rows=rows)


def _datasets(loading: dict[str, Any], *, name: str, split: str, wanted: frozenset[str]) -> Table:
    """Rows of `datasets.load_dataset(**loading)`."""
    import datasets

    columns: dict[str, None] = {}
    rows = []
    try:
        for row in datasets.load_dataset(**loading, split=split):
            columns |= dict.fromkeys(row)
            rows.append({column: value for column, value in row.items() if column in wanted})
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataSetError(
            f"{name}: datasets cannot load split {split!r} of it: {error} "
            f"(a file, a folder or a hub id is expected; {_split_key(name)} names the split)"
        ) from error
    return Table(name=name, columns=tuple(columns), rows=rows)


def _split_key(name: str) -> str:
    return name.partition("=")[0] + "_split"
