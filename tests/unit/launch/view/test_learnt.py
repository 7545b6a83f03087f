"""Tokens show what the token log says of them, of these very completions, wherever it was written; damage is a note."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corewarding.launch.view.details import number_of, tokens
from corewarding.launch.view.run import ViewedRun
from corewarding.launch.view.search.filters import Filter
from corewarding.launch.view.tokens.feed import TokenFeed
from corewarding.learner.replay.journal.segments import SegmentWriter, segments
from corewarding.learner.token_log.entries import (
    CLIPPED,
    IN_GAIN,
    IN_KL,
    IN_LOSS,
    OFF_BAND,
    VETOED,
    TokenEntry,
    TokenValues,
    recomputed,
    recorded,
    to_bytes,
)
from tests.sampled_run import SampledRun, note
from tests.unit.launch.view.test_index import viewed

KEPT = IN_LOSS | IN_GAIN | IN_KL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = SampledRun(tmp_path / "one", rule="majority_vote", questions=2, group_size=2, length=6)
    made.make(2)
    return made.folder


def learnt(run: ViewedRun, update: int) -> list[dict[str, Any]]:
    """Of every completion that `update` trained."""
    numbers = Filter(update_from=update, update_to=update).numbers(run.db)
    return [one for n in numbers for one in tokens(run, n, "original", "policy")]


def write(folder: Path, *entries: TokenEntry) -> None:
    writer = SegmentWriter(recorded(folder / "tokens") / "rank-1")
    for entry in entries:
        writer.append(to_bytes(entry))
    writer.close()


def test_values_travel_as_whole_numbers_and_are_left_out_where_they_repeat(folder: Path) -> None:
    note(folder, 1, ratio=1.5, cap=2.0)
    with viewed(folder) as run:
        for one in learnt(run, 1):
            num = len(one["pieces"])
            assert one["missing"] is None
            found = one["learnt"]
            assert found == {
                "recomputed": False,
                "policy": found["policy"],
                "proximal": None,
                "ratio": [15000] * num,
                "weight": None,
                "loss": [[0, "trained"]],
            }
            assert set(found["policy"]) <= {405, 406}  # log 1.5, and float32
        assert {one["missing"].split(" --update ")[1] for one in learnt(run, 2)} == {
            "2 --recompute` computes its importance weights"
        }


def test_masks_are_told_in_words(folder: Path) -> None:
    (entry, _) = note(folder, 1)
    name, values = next(iter(entry.values.items()))
    marks = np.full(len(values.marks), KEPT, np.uint8)
    marks[:4] = [IN_LOSS | IN_KL | OFF_BAND, KEPT | CLIPPED, IN_LOSS | VETOED, 0]
    holes = np.where(marks & IN_LOSS, values.ratio, np.float32(np.nan))
    changed = dataclasses.replace(values, marks=marks, ratio=holes, proximal=values.proximal + np.float32(0.1))
    write(folder, dataclasses.replace(entry, values={name: changed}))
    with viewed(folder) as run:
        found = tokens(run, number_of(run, str(entry.asked)), "original", "policy")[name.sample_index]["learnt"]
    assert [[at, words.split(":")[0]] for at, words in found["loss"]] == [
        [0, "only in the KL term"],
        [1, "trained, but clipped"],
        [2, "left out"],
        [3, "withheld from the loss"],
        [4, "trained"],
    ]
    assert found["ratio"][:5] == [15000, 15000, 15000, None, 15000]
    assert found["weight"][0] == 12500
    assert found["proximal"][0] - found["policy"][0] in (99, 100, 101)


def test_only_the_completions_of_the_checksum_and_those_recorded_before_those_recomputed(folder: Path) -> None:
    entries = note(folder, 1)
    other = [dataclasses.replace(entry, checksums=dict.fromkeys(entry.checksums, 1)) for entry in entries]
    write(folder, *other)  # of an earlier start, under the same names
    note(folder, 1, place=recomputed, ratio=1.1)
    note(folder, 2, place=recomputed, ratio=1.1)
    with viewed(folder) as run:
        assert {(one["learnt"]["recomputed"], one["learnt"]["ratio"][0]) for one in learnt(run, 1)} == {(False, 15000)}
        assert {(one["learnt"]["recomputed"], one["learnt"]["ratio"][0]) for one in learnt(run, 2)} == {(True, 11000)}


def test_a_log_is_followed_and_read_anew_when_it_is_another_one(folder: Path) -> None:
    with viewed(folder) as run:
        feed = TokenFeed(run.index, run.facts, run.run_dir.tokens)
        assert all(one["learnt"] is None for one in learnt(run, 1))
        note(folder, 1)
        feed.catch_up()
        assert all(one["learnt"] is not None for one in learnt(run, 1))
        rank = recorded(folder / "tokens") / "rank-0"
        for segment in segments(rank):
            segment.unlink()
        assert all(one["learnt"] is None for one in learnt(run, 1))
        note(folder, 2)
        feed.catch_up()
        assert all(one["learnt"] is not None for one in learnt(run, 2))
        assert run.db.execute("SELECT count(*) FROM token_log").fetchone()[0] == 2


def test_a_torn_end_waits_and_damage_is_named_while_what_is_before_it_stays(folder: Path) -> None:
    note(folder, 1)
    (segment,) = segments(recorded(folder / "tokens") / "rank-0")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-5])
    with viewed(folder) as run:
        assert sum(one["learnt"] is not None for one in learnt(run, 1)) == 2
        assert not any("importance" in words for words in run.facts.notes)
    segment.write_bytes(whole)
    note(folder, 2)
    with viewed(folder) as run:
        assert sum(one["learnt"] is not None for one in learnt(run, 1)) == 4
    (_, second) = segments(recorded(folder / "tokens") / "rank-0")
    content = bytearray(second.read_bytes())
    content[60] ^= 1
    second.write_bytes(content)
    (folder / "view.sqlite").unlink()
    with viewed(folder) as run:
        assert run.is_read
        assert any(str(second) in words for words in run.facts.notes)
        assert sum(one["learnt"] is not None for one in learnt(run, 1)) == 4
        assert all(one["learnt"] is None for one in learnt(run, 2))


def test_values_of_another_length_are_not_shown(folder: Path) -> None:
    (entry, _) = note(folder, 1)
    name, values = next(iter(entry.values.items()))
    short = TokenValues(**{field.name: getattr(values, field.name)[:1] for field in dataclasses.fields(values)})
    write(folder, dataclasses.replace(entry, values={name: short}))
    with viewed(folder) as run:
        assert sum(one["learnt"] is None for one in learnt(run, 1)) == 1
