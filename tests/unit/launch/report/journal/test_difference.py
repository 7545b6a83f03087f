"""`corewarding journal RUN --diff OTHER`: each example of either run is counted once."""

import json
from pathlib import Path
from typing import Any

import pytest

from corewarding.dataflow.carriers import TrainBatch
from corewarding.dataflow.codec import decode_as
from corewarding.launch.cli import main
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
    assert example.endswith(f"  only in {a}: update 3 in {a}")
    assert summary == [
        f"{a} trained on 24 examples, {b} on 16",
        "16  in both, in the same update, with the same tokens",
        " 0  in both, in the same update, with other tokens",
        " 0  in both, in different updates",
        f" 8  only in {a}",
        f" 0  only in {b}",
    ]


async def test_other_tokens_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await trained_by(tmp_path / "a", 3, 3)
    await trained_by(tmp_path / "b", 3, 3, length=4)
    assert main(["journal", str(tmp_path / "a"), "--diff", str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.splitlines()[2] == "24  in both, in the same update, with other tokens"
