"""Whole frames whose records do not fit one another: every reader of a journal answers with JournalError and little memory."""

import contextlib
import dataclasses
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corewarding.dataflow.codec import encode
from corewarding.launch.report.journal.lines import journal_lines
from corewarding.learner.replay.journal.history import History
from corewarding.learner.replay.journal.journal import records
from corewarding.learner.replay.journal.records import (
    Arrived,
    Evicted,
    Initial,
    Record,
    Refused,
    Reported,
    Scored,
    Snapshot,
    Taken,
    Updated,
    from_bytes,
    to_bytes,
)
from corewarding.learner.replay.journal.recovery import recover
from corewarding.learner.replay.journal.segments import JournalError, SegmentWriter
from corewarding.questions.gold import GoldAnswers
from tests.fakes import fake_group
from tests.unit.learner.replay.journal.world import World, plan_of

PLAN = plan_of("majority_vote")
TWO_GROUPS = fake_group("q0", ["1"]) + fake_group("q1", ["1", "2"])[1:]
Change = Callable[[Record], list[Record]]


def batches(folder: Path) -> None:
    list(History.of(folder).updates(0))


def lines(folder: Path) -> None:
    list(journal_lines(folder))


def come_back(folder: Path) -> None:
    recover(folder, PLAN, GoldAnswers({"q1": "1"}))


@pytest.fixture
async def frames(tmp_path: Path) -> list[list[Record]]:
    """The frames of a run of two updates."""
    world = World(PLAN, tmp_path / "real", seed=2, saves=False)
    while world.updates < 2:
        await world.step()
    found: dict[object, list[Record]] = {}
    for place, record in records(tmp_path / "real"):
        found.setdefault(place, []).append(record)
    return list(found.values())


def written(frames: list[list[Record]], folder: Path) -> Path:
    writer = SegmentWriter(folder)
    for frame in frames:
        writer.append(to_bytes(frame))
    writer.close()
    return folder


def changed(frames: list[list[Record]], kind: type[Any], change: Change) -> list[list[Record]]:
    """The last record of a kind replaced by what `change` makes of it."""
    at = max(k for k, frame in enumerate(frames) if any(isinstance(record, kind) for record in frame))
    frame = [new for record in frames[at] for new in (change(record) if isinstance(record, kind) else [record])]
    return [*frames[:at], frame, *frames[at + 1 :]]


def with_fields(**values: Any) -> Change:
    return lambda record: [dataclasses.replace(record, **values)]


def nan_advantages(record: Record) -> list[Record]:
    assert isinstance(record, Scored)
    return [dataclasses.replace(record, advantages=record.advantages * np.nan)]


def with_state(**values: Any) -> Change:
    def change(record: Record) -> list[Record]:
        assert isinstance(record, Snapshot)
        return [dataclasses.replace(record, state=record.state | values)]

    return change


def test_the_frames_themselves_are_read(frames: list[list[Record]], tmp_path: Path) -> None:
    folder = written(frames, tmp_path / "journal")
    for reader in (batches, lines, come_back):
        reader(folder)


@pytest.mark.parametrize(
    ("kind", "change", "readers"),
    [
        (Reported, with_fields(update=9), [come_back]),
        (Taken, with_fields(update=9), [come_back, lines]),
        (Taken, with_fields(asked=()), [come_back, lines]),
        (Scored, nan_advantages, [batches]),
        (Scored, with_fields(sha256="0"), [batches, come_back]),
        (Scored, lambda record: [record, record], [batches, lines]),
        (Scored, lambda record: [record, Refused(reason="unasked"), Refused(reason="unasked")], []),
        (Updated, lambda record: [record, Evicted(asked=fake_group("q9", ["1"])[0].id.group.asked, reason="stale_label")], [lines]),
        (Arrived, with_fields(completions=encode(TWO_GROUPS)), [batches, lines, come_back]),
        (Arrived, with_fields(completions=encode([])), [batches, lines, come_back]),
        (Snapshot, with_state(ledger={}), [come_back, lines]),
        (Snapshot, with_state(admission=[]), [batches, come_back, lines]),
        (Snapshot, with_state(lengths=3), [come_back]),
        (Snapshot, with_fields(num_held=2**62), [come_back]),
        (Snapshot, lambda record: [], [come_back, lines]),
    ],
)  # fmt: skip
def test_records_that_do_not_fit_are_refused(
    kind: type[Any], change: Change, readers: list[Any], frames: list[list[Record]], tmp_path: Path
) -> None:
    folder = written(changed(frames, kind, change), tmp_path / "journal")
    for reader in (batches, lines, come_back):
        if reader in readers:
            with pytest.raises(JournalError):
                reader(folder)
        else:
            reader(folder)


async def test_counts_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    World(PLAN, tmp_path / "real", seed=2)
    start, snapshot = [record for _, record in records(tmp_path / "real")]
    assert isinstance(snapshot, Snapshot)
    state = snapshot.state | {"ledger": snapshot.state["ledger"] | {"trained": 3}}
    folder = written([[start], [Snapshot(state=state, num_held=0)]], tmp_path / "journal")
    with pytest.raises(JournalError, match="counts do not add up"):
        lines(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"advantages": np.zeros((1, 1))},
        {"advantages": np.zeros(1, np.int32)},
        {"in_loss": np.zeros(1, np.uint8)},
        {"sizes": np.ones(1)},
        {"sizes": np.array([-1], np.int32)},
        {"rewards": np.zeros((1, 1))},
        {"labels": ()},
    ],
)
def test_scores_of_another_shape_or_type_are_refused(values: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "update": 1,
        "incarnation": 0,
        "samples": (fake_group("q0", ["1"])[0].id,),
        "advantages": np.zeros(1),
        "weights": np.ones(1),
        "in_loss": np.ones(1, np.bool_),
        "sha256": "",
        "groups": (fake_group("q0", ["1"])[0].id.group,),
        "labels": (None,),
        "abstained": np.zeros(1, np.bool_),
        "sizes": np.ones(1, np.int32),
        "rewards": np.zeros(1),
    }
    assert isinstance(from_bytes(encode([["Scored", *fields.values()]]))[0], Scored)
    with pytest.raises(JournalError, match="cannot be read"):
        from_bytes(encode([["Scored", *(fields | values).values()]]))


@pytest.mark.parametrize("kind", [Arrived, Initial, None])
@pytest.mark.parametrize("item", [b"\x90", b"\xa2ab"])
def test_a_journal_of_one_mebibyte_takes_little_memory(
    kind: type[Any] | None, item: bytes, frames: list[list[Record]], tmp_path: Path
) -> None:
    count = (2**20 - 5) // len(item)
    hostile = b"\xdd" + count.to_bytes(4, "big") + item * count
    folder = written(frames, tmp_path / "journal")
    writer = SegmentWriter(folder)
    writer.append(hostile if kind is None else encode([[kind.__name__, hostile]]))
    writer.close()
    tracemalloc.start()
    for reader in (batches, lines, come_back):
        with contextlib.suppress(JournalError):
            reader(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
