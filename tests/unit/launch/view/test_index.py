"""The index says of every completion what the journal's other reader says, whether it is filled at once or while the run writes."""

import asyncio
import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corewarding.launch.report.journal.lines import journal_lines
from corewarding.launch.view.details import asking, number_of, tokens, why_abstained
from corewarding.launch.view.index import FILE
from corewarding.launch.view.run import ViewedRun
from corewarding.launch.view.search.filters import Filter, rows_of
from corewarding.learner.replay.journal.segments import segments
from corewarding.rewards.settings import VoteSettings
from tests.sampled_run import SampledRun
from tests.unit.learner.replay.journal.world import World, plan_of, start_of


@contextlib.contextmanager
def viewed(folder: Path, *, read: bool = True) -> Iterator[ViewedRun]:
    with contextlib.closing(ViewedRun(folder, folder / "journal")) as run:
        if read:
            run.read()
        assert run.problem is None
        yield run


def indexed(run: ViewedRun) -> list[tuple[Any, ...]]:
    query = """SELECT a.id || '/' || c.view || '/' || c.source || '/' || c.i, c.fate, c.reason, a.made, c.reward, c.advantage, g.label
               FROM completions c JOIN askings a USING (n) JOIN groups g ON g.n = c.n AND g.view = c.view AND g.source = c.source
               WHERE NOT a.again"""
    return sorted(map(tuple, run.db.execute(query)), key=repr)


def told(journal: Path) -> list[tuple[Any, ...]]:
    """The same from `corewarding journal --json`, without groups that were refused."""
    rows = [json.loads(line) for line in journal_lines(journal, as_json=True)]
    names = ("id", "fate", "reason", "update", "reward", "advantage", "label")
    found = [tuple(row[name] for name in names) for row in rows if row["kind"] == "completion"]
    refused = ("duplicate", "unasked", "lost_incarnation")
    return sorted((row for row in found if row[2] not in refused), key=repr)


def assert_same(run: ViewedRun) -> None:
    mine, theirs = indexed(run), told(run.journal)
    assert [row[:4] for row in mine] == [row[:4] for row in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert one[4:] == pytest.approx(other[4:]) or one[4:] == other[4:], one


@pytest.mark.parametrize(
    ("rule", "on_exceed"), [("majority_vote", "wait"), ("co_rewarding_ii", "drop"), ("majority_vote", "withhold")]
)
async def test_fates_and_scores_are_those_of_the_journal(rule: str, on_exceed: str, tmp_path: Path) -> None:
    world = World(plan_of(rule, on_exceed, skip_zero_advantage=True), tmp_path / "journal", seed=7)
    for _ in range(3):
        for _ in range(30):
            await world.step()
        with viewed(tmp_path) as run:  # goes on where the last one stopped
            assert_same(run)
    assert world.updates >= 2
    (tmp_path / FILE).unlink()
    with viewed(tmp_path) as run:
        assert_same(run)


async def test_a_start_from_a_checkpoint_makes_updates_again(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    world = World(plan_of("majority_vote"), journal, seed=5, saves=False)
    while world.updates < 3:
        await world.step()
    state = await world.actor.state({})
    while world.updates < 6:
        await world.step()
    plan = dataclasses.replace(world.plan, incarnation=1)
    again = World(
        plan, journal, seed=6, start=start_of("two", updates=3, incarnation=1), state={**state, "pending": []}
    )
    again.asked = world.asked
    while again.updates < 5:
        await again.step()
    with viewed(tmp_path) as run:
        trained = [row for row in indexed(run) if row[1] == "trained"]
        assert trained == [row for row in told(journal) if row[1] == "trained"]
        made = [
            row["made"] for row in rows_of(run.db, Filter(again=True, fate="trained").numbers(run.db)) if row["again"]
        ]
        assert sorted(set(made)) == [4, 5, 6]


async def test_an_unfinished_end_is_left_for_later_and_a_new_journal_begins_anew(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    world = World(plan_of("majority_vote"), journal, seed=5)
    while world.updates < 2:
        await world.step()
    last = segments(journal)[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:-7])
    with viewed(tmp_path) as run:
        before = run.about()["completions"]
    last.write_bytes(whole)
    with viewed(tmp_path) as run:
        assert run.about()["completions"] >= before
        assert_same(run)
    shutil.rmtree(journal)
    other = World(plan_of("majority_vote"), journal, seed=8, start=start_of("another"))
    while other.updates < 4:  # longer than the one that was read
        await other.step()
    with viewed(tmp_path) as run:
        assert_same(run)


async def test_damage_is_named_and_what_was_read_before_stays(tmp_path: Path) -> None:
    world = World(plan_of("majority_vote"), tmp_path / "journal", seed=5)
    while world.updates < 8:
        await world.step()
    second = segments(tmp_path / "journal")[1]
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1
    second.write_bytes(content)
    with contextlib.closing(ViewedRun(tmp_path, tmp_path / "journal")) as run:
        run.read()
        assert run.problem is not None
        assert "is damaged at byte" in run.problem


def test_one_asking_in_full(tmp_path: Path) -> None:
    made = SampledRun(tmp_path / "one")
    made.make(3)
    asked = made.wait(["7. \\boxed{3}", "\\boxed{3.0}", "the answer is 4", "\\boxed{5}"])
    with viewed(tmp_path / "one") as run:
        found = asking(run, number_of(run, str(asked)))
        (group,) = found["groups"]
        assert group["vote"]["classes"] == [["3", [0, 1]], ["5", [3]]]
        assert group["vote"]["share"] == pytest.approx(2 / 3)
        assert [one["fate"] for one in group["completions"]] == ["waiting"] * 4
        assert [one["found"] for one in group["completions"]] == ["the last complete box"] * 2 + [
            "no box",
            "the last complete box",
        ]
        assert group["completions"][1]["reading"]["kind"] == "integer"
        assert group["completions"][1]["key"] == group["completions"][0]["key"]
        sampled = tokens(run, found["n"], group["view"], group["source"])
        assert ["".join(one["pieces"]) for one in sampled] == [one["text"] for one in group["completions"]]
        assert all(len(one["pieces"]) == len(one["logprobs"]) for one in sampled)
        trained = asking(run, Filter(update_from=2).numbers(run.db)[0])
        assert trained["made"] == 2
        assert trained["wordings"]["original"] != trained["wordings"]["rephrased"]
        assert trained["gold"] is not None
        heard = {(group["view"], group["source"]): group["heard"] for group in trained["groups"] if group["scored"]}
        assert heard == {
            ("original", "policy"): ["rephrased/teacher"],
            ("rephrased", "policy"): ["original/teacher"],
        }


def test_why_a_label_abstained() -> None:
    settings = VoteSettings(min_share=0.5, min_voters=3)
    assert why_abstained(settings, [{"voters": 0, "share": 0.0}]) == "no completion that votes has an answer"
    assert "2 completions have an answer, fewer than vote.min_voters 3" in why_abstained(
        settings, [{"voters": 2, "share": 1.0}]
    )
    assert "0.40, below vote.min_share 0.5" in why_abstained(settings, [{"voters": 5, "share": 0.4}])


def test_a_run_is_followed_while_it_writes(tmp_path: Path) -> None:
    made = SampledRun(tmp_path / "one")
    made.make(1)
    with viewed(tmp_path / "one", read=False) as run:
        run.start(follow=True)
        made.make(1)

        async def both() -> None:
            while run.about()["updates"][1] != 2:
                await asyncio.sleep(0.02)

        asyncio.run(asyncio.wait_for(both(), 20))


def test_two_viewers_of_one_run_have_an_index_each(tmp_path: Path) -> None:
    SampledRun(tmp_path / "one").make(1)
    with viewed(tmp_path / "one") as first, viewed(tmp_path / "one") as second:
        assert first.index.path != second.index.path
        assert indexed(first) == indexed(second)
    assert [path.name for path in (tmp_path / "one").glob("view*")] == [FILE]
