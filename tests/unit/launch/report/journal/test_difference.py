"""`corewarding journal RUN --diff OTHER`: each example of either run is counted once."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from corewarding.dataflow.carriers import TrainBatch
from corewarding.dataflow.codec import decode_as, encode
from corewarding.dataflow.ids import AskedId
from corewarding.launch.cli import main
from tests.fakes import fake_group
from tests.unit.learner.replay.journal.world import World, plan_of

Trained = dict[str, tuple[int, bytes]]


async def trained_by(folder: Path, seed: int, updates: int, **options: Any) -> Trained:
    """What a run trained on: update and tokens by id."""
    world = World(plan_of("majority_vote"), folder / "journal", seed, **options)
    while world.updates < updates:
        await world.step()
    batches = [decode_as(batch, TrainBatch) for batch in world.batches]
    return {str(sample.id): (batch.update, sample.token_ids.tobytes()) for batch in batches for sample in batch.samples}


@pytest.mark.parametrize(("seed", "updates"), [(3, 5), (4, 5), (4, 3)])
async def test_two_runs_are_compared(
    seed: int, updates: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = await trained_by(tmp_path / "a", 3, 5)
    theirs = await trained_by(tmp_path / "b", seed, updates)
    assert main(["journal", str(tmp_path / "a"), "--diff", str(tmp_path / "b"), "--json", "--limit", "1000"]) == 0
    *examples, counts = map(json.loads, capsys.readouterr().out.splitlines())
    both = ours.keys() & theirs.keys()
    expected = {
        "same": {name for name in both if ours[name] == theirs[name]},
        "other_tokens": {name for name in both if ours[name] != theirs[name] and ours[name][0] == theirs[name][0]},
        "other_update": {name for name in both if ours[name][0] != theirs[name][0]},
        "only_run": ours.keys() - theirs.keys(),
        "only_other": theirs.keys() - ours.keys(),
    }
    reasons = counts.pop("reasons")
    for kind, names in expected.items():
        assert sum(reasons.get(kind, {}).values()) == (0 if kind == "same" else len(names))
        assert Counter(row["reason"] for row in examples if row["kind"] == kind) == reasons.get(kind, {})
    assert counts == {
        "kind": "difference",
        "run": len(ours),
        "other": len(theirs),
        **{kind: len(names) for kind, names in expected.items()},
    }
    for kind, names in expected.items():
        if kind != "same":
            assert {row["id"] for row in examples if row["kind"] == kind} == names
    for row in examples:
        assert row["update"] == ours.get(row["id"], (None,))[0]
        assert row["other_update"] == theirs.get(row["id"], (None,))[0]


async def test_the_difference_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await trained_by(tmp_path / "a", 3, 3)
    await trained_by(tmp_path / "b", 3, 2)
    assert main(["journal", str(tmp_path / "a"), "--diff", str(tmp_path / "b"), "--limit", "1"]) == 0
    a, b = tmp_path / "a", tmp_path / "b"
    example, *summary = capsys.readouterr().out.splitlines()
    assert example.endswith(f"  only in {a}: update 3 in {a}; the other run had not sampled it when it ended")
    assert summary == [
        f"{a} trained on 24 examples, {b} on 16",
        "16  in both, in the same update, with the same tokens",
        " 0  in both, in the same update, with other tokens",
        " 0  in both, in different updates",
        f" 8  only in {a}",
        "       4  the other run had not sampled it when it ended",
        "       4  waiting in the other run",
        f" 0  only in {b}",
    ]


async def scripted(folder: Path, *steps: str, digest: str = "", version: int = 0, lengths: int = 3) -> None:
    """Four questions are admitted. A step is a question that becomes complete, or `take`."""
    world = World(plan_of("majority_vote"), folder / "journal", 0)
    await world.actor.admit(1, encode([AskedId(question_id=f"q{number}", epoch=0) for number in range(4)]))
    for step in steps:
        if step == "take":
            world.updates += 1
            await world.scored(*await world.actor.take(world.updates))
            await world.actor.report(world.updates)
            await world.actor.updated(world.updates, f"{digest}{world.updates}")
        else:
            await world.actor.accept(encode(fake_group(step, ["1", "1", "2", "2"], version=version, length=lengths)))


def reasons_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, int]]:
    assert main(["journal", str(folder / "a"), "--diff", str(folder / "b"), "--json"]) == 0
    reasons: dict[str, dict[str, int]] = json.loads(capsys.readouterr().out)["reasons"]
    return reasons


async def test_the_order_in_which_questions_are_complete_explains_other_updates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """a: (q0, q1), (q2, q3). b: (q1, q2), (q0, q3). q0 came too late in b; q2 was complete in time in a, behind q0 and q1."""
    await scripted(tmp_path / "a", "q0", "q1", "q2", "q3", "take", "take")
    await scripted(tmp_path / "b", "q1", "q2", "take", "q0", "q3", "take")
    assert reasons_of(tmp_path, capsys) == {
        "other_update": {
            "the question was complete too late for the update that the other run had it in": 4,
            "the question was complete in both, and one run had filled that update with other questions": 4,
        }
    }


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"version": 1, "digest": ""}, "their tokens were written by weights of other updates"),
        ({"digest": "x"}, "no reason in the journals: the configurations, packages or machines may differ"),
    ],
)
async def test_other_tokens_are_explained_by_their_weights(
    other: dict[str, Any], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that differ since update 1 explain no token of the weights before it."""
    await scripted(tmp_path / "a", "q0", "q1", "take")
    await scripted(tmp_path / "b", "q0", "q1", "take", lengths=4, **other)
    assert reasons_of(tmp_path, capsys) == {"other_tokens": {reason: 8}}


async def test_weights_that_differ_explain_tokens_of_the_same_updates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, digest, length in (("a", "x", 3), ("b", "y", 4)):
        world = tmp_path / name
        await scripted(world, "q0", "q1", "take", "q2", "q3", "take", digest=digest, version=1, lengths=length)
    reason = "their tokens were written by weights of the same updates, which differ since update 1"
    assert reasons_of(tmp_path, capsys) == {"other_tokens": {reason: 16}}


async def test_other_tokens_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await trained_by(tmp_path / "a", 3, 3)
    await trained_by(tmp_path / "b", 3, 3, length=4)
    assert main(["journal", str(tmp_path / "a"), "--diff", str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.splitlines()[2] == "24  in both, in the same update, with other tokens"
