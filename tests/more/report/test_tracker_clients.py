"""The clients of trackers, offline and for real: the files that they leave hold configuration, last metrics and summary."""

import json
import sqlite3
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from corewarding.launch.config.load import make_config
from corewarding.launch.report.trackers.kinds import started
from corewarding.launch.report.trackers.tracker import Report


def tracked(folder: Path, name: str, *, updates=(1, 2), resumed_at=0, summary=None) -> None:
    """A run that this tracker alone follows."""
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    config = make_config(
        {"rule": "entropy", "report": {"trackers": [name]}, "run": {"name": "a", "root": str(folder)}}, where="test"
    )
    trackers = started(config, folder, pytest.fail, resumed_at=resumed_at, end_s=120.0)
    for update in updates:
        trackers.report(Report(update=update, scalars={"reward/mean": update / 8}))
    trackers.report(Report(update=updates[-1], scalars={"eval/mean@8": 0.5}))
    trackers.finish(summary or {})


SUMMARY = {"rule": "entropy", "updates": 2, "after": {"mean@8": 0.5}}


def test_mlflow_has_the_whole_run_and_a_resumed_one_goes_on(tmp_path):
    tracked(tmp_path, "mlflow", updates=(1,))
    tracked(tmp_path, "mlflow", updates=(2,), resumed_at=1, summary=SUMMARY)
    (folder,) = (path.parent for path in tmp_path.glob("trackers/mlflow/*/*/params"))
    rewards = (folder / "metrics/1_learning/reward/mean").read_text().splitlines()
    assert [line.split()[1:] for line in rewards] == [["0.125", "1"], ["0.25", "2"]]
    assert (folder / "metrics/1_learning/eval/mean_at_8").read_text().split()[1] == "0.5"
    assert (folder / "metrics/summary/after.mean_at_8").read_text().split()[1] == "0.5"
    assert (folder / "params/train.updates").read_text() == "100"
    assert (folder / "params/summary/rule").read_text() == "entropy"
    assert "status: 3" in (folder / "meta.yaml").read_text()  # finished


def records(file: Path) -> Iterator[bytes]:
    """Records in LevelDB's log format: blocks of 32 KiB; frames of checksum, length, part (1: whole, 2 to 4: first to last)."""
    content, place, record = file.read_bytes(), 7, b""
    while place < len(content):
        if -place % 2**15 < 7:
            place += -place % 2**15  # no frame begins there
            continue
        _, length, part = struct.unpack_from("<IHB", content, place)
        place += 7
        record += content[place : place + length]
        place += length
        if part in (1, 4):
            yield record
            record = b""


def test_wandb_has_the_whole_run_and_a_resumed_one_goes_on(tmp_path):
    tracked(tmp_path, "wandb", updates=(1,))
    tracked(tmp_path, "wandb", updates=(2,), resumed_at=1, summary=SUMMARY)
    from wandb.proto.wandb_internal_pb2 import Record

    ids, found = set(), {}
    for file in sorted(tmp_path.glob("trackers/wandb/offline-run-*/*.wandb")):
        for record in map(Record.FromString, records(file)):
            ids |= {record.run.run_id} - {""}
            items = [*record.history.item, *record.run.config.update, *record.summary.update]
            found |= {item.key or "/".join(item.nested_key): item.value_json for item in items}
    assert len(ids) == 1
    assert found["1_learning/reward/mean"] == "0.25"
    assert found["1_learning/eval/mean@8"] == "0.5"
    assert found["train.updates"] == "100"
    assert found["summary/after.mean@8"] == "0.5"


def test_trackio_has_the_whole_run_and_a_resumed_one_goes_on(tmp_path):
    tracked(tmp_path, "trackio", updates=(1,))
    tracked(tmp_path, "trackio", updates=(2,), resumed_at=1, summary=SUMMARY)
    with sqlite3.connect(tmp_path / "trackers/trackio/corewarding.db") as base:
        rows = [json.loads(row) for (row,) in base.execute("select metrics from metrics")]
        (config,) = (json.loads(row) for (row,) in base.execute("select config from configs"))
    found = {key: value for row in rows for key, value in row.items()}
    assert found["1_learning/reward/mean"] == 0.25
    assert found["1_learning/eval/mean@8"] == 0.5
    assert found["summary/after.mean@8"] == 0.5
    assert config["train.updates"] == 100
