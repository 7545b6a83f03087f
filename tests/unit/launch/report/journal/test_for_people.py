"""The lines of `corewarding journal RUN` as a person reads them."""

import json
from pathlib import Path

import pytest

from corewarding.dataflow.codec import encode
from corewarding.dataflow.ids import AskedId
from corewarding.launch.cli import main
from tests.fakes import fake_group
from tests.unit.learner.replay.journal.world import World, plan_of


async def test_lines_for_people_hold_what_a_model_wrote_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(plan_of("majority_vote"), tmp_path / "journal", seed=1, saves=False)
    asked = [AskedId(question_id=name, epoch=0) for name in ("q0", "q1\x1b]0;x\a", "q2")]
    assert await world.actor.admit(1, encode(asked)) == 3
    await world.actor.accept(encode(fake_group("q0", ["1", "1", "1\n\x1b[2J" + "9" * 100, None])))
    await world.actor.accept(encode(fake_group("q1\x1b]0;x\a", ["5", "5", "5", "6"])))
    await world.actor.accept(encode(fake_group("q0", ["1"] * 4)))
    with (tmp_path / "journal" / "segment-000001.cwj").open("ab") as file:
        file.write(b"half")
    assert main(["journal", str(tmp_path), "--question", "q0"]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    head, torn, *lines, tally = told.splitlines()
    assert head.endswith("  after update 0  incarnation 0  from the beginning")
    assert torn == "segment-000001.cwj: the last 4 bytes are an unfinished record, left out"
    assert lines == [
        *(
            f"q0/e0/original/policy/{k}  dropped: duplicate  weights 0  3 tokens  answer 1  actor fake"
            for k in range(4)
        ),
        "q0/e0/original/policy/0  waiting  weights 0  3 tokens  answer 1  actor fake",
        "q0/e0/original/policy/1  waiting  weights 0  3 tokens  answer 1  actor fake",
        f"q0/e0/original/policy/2  waiting  weights 0  3 tokens  answer 1\\n\\x1b[2J{'9' * 54}...  actor fake",
        "q0/e0/original/policy/3  waiting  weights 0  3 tokens  no answer  actor fake",
    ]
    assert tally == "generated 12 = trained 0 + voted 0 + withheld 0 + dropped 4 (duplicate 4) + waiting 8"
    assert main(["journal", str(tmp_path), "--by", "question"]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "q1\\x1b]0;x\\x07/e0  waiting  original/policy 4" in told
    assert "q2/e0  waiting  no group" in told
    assert main(["journal", str(tmp_path), "--json", "--limit", "0"]) == 0
    assert [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()] == [
        "start",
        "torn",
        "left_out",
        "tally",
    ]
    await world.acknowledge()
    assert main(["journal", str(tmp_path), "--update", "1", "--limit", "1"]) == 2
    assert "is damaged at byte" in capsys.readouterr().err


async def test_a_scored_completion_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(plan_of("majority_vote"), tmp_path / "journal", seed=1, saves=False)
    assert await world.actor.admit(1, encode([AskedId(question_id=name, epoch=0) for name in ("q0", "q1")])) == 2
    await world.actor.accept(encode(fake_group("q0", ["1", "1", "1", None])))
    await world.actor.accept(encode(fake_group("q1", ["5", "5", "7", "6"])))
    await world.take()
    assert main(["journal", str(tmp_path), "--update", "1"]) == 0
    _, *lines, tally = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "q0/e0/original/policy/0  trained in update 1  weights 0  3 tokens  answer 1  label 1  reward 1.00  advantage +0.50  "
        "actor fake"
    )
    assert lines[3] == (
        "q0/e0/original/policy/3  trained in update 1  weights 0  3 tokens  no answer  label 1  reward 0.00  advantage -1.50  "
        "actor fake"
    )
    assert tally == "generated 8 = trained 8 + voted 0 + withheld 0 + dropped 0 + waiting 0"
    assert main(["journal", str(tmp_path), "--by", "question", "--question", "q1"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "q1/e0  trained in update 1  original/policy 4  4 trained  label 5  reward 0.50"
    )
