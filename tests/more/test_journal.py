"""An asynchronous run that is killed twice, goes on from its journal, and is rebuilt from it bit by bit."""

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from corewarding.dataflow.carriers import Completion
from corewarding.dataflow.codec import decode_list
from corewarding.learner.replay.journal.history import History
from corewarding.learner.replay.journal.journal import records
from corewarding.learner.replay.journal.records import Arrived, Refused
from corewarding.learner.replay.journal.segments import read, segments
from corewarding.learner.token_log.entries import TokenEntry, from_bytes, to_bytes
from tests.more.cluster import environment
from tests.more.runs import Run, started

pytestmark = pytest.mark.timeout(900)
UPDATES, QUESTIONS = 12, 48
KEYS = {
    "train__updates": UPDATES,
    "train__questions_per_update": 4,
    "data__num_train": QUESTIONS,
    "run__sample_questions": 4,
    "run__watchdog_s": 60,
    "checkpoint__every_updates": 8,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Killed before its first checkpoint and after it; each time the same command goes on."""
    root = tmp_path_factory.mktemp("journal")
    for kill_at in (3, 9):
        with started(root, **KEYS) as run:
            run.reaches(kill_at)
            run.driver.kill()
            run.driver.wait()
    with started(root, **KEYS) as run:
        run.ends(0)
        return run


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "corewarding.launch.cli", *map(str, words)]
    return subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300, check=False)


def test_each_start_goes_on_where_the_journal_ends(run: Run) -> None:
    text = run.text()
    assert text.count("were made again from the journal; the weights are the same, bit for bit") == 2
    assert run.updates() == list(range(1, UPDATES + 1))
    assert [start.goes_on for start in History.of(run.folder / "journal").starts] == [False, True, True]


def test_each_question_is_trained_once_and_what_had_arrived_is_not_sampled_again(run: Run) -> None:
    trained = Counter(
        row["id"].rsplit("/", 3)[0]
        for path in sorted((run.folder / "samples").glob("update-*.jsonl"))
        for row in map(json.loads, path.read_text().splitlines())
    )
    assert len(trained) == QUESTIONS
    assert set(trained.values()) == {8}  # four completions of the policy and four of the teacher
    arrived: Counter[str] = Counter()
    for _, record in records(run.folder / "journal"):
        assert not isinstance(record, Refused)
        if isinstance(record, Arrived):
            arrived.update(str(one.id) for one in decode_list(record.completions, Completion))
    assert set(arrived.values()) == {1}
    assert len(arrived) == 8 * QUESTIONS


def test_a_replay_rebuilds_every_weight_and_says_so(run: Run, tmp_path: Path) -> None:
    done = command("replay", run.folder, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the weights of {UPDATES} updates are equal, bit for bit" in done.stdout
    model = run.folder / "checkpoints" / f"step-{UPDATES:06d}" / "model"
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out" / "policy", model))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert (tmp_path / "out" / "teacher" / "model.safetensors").is_file()


def noted(tokens: Path) -> dict[tuple[int, str], list[TokenEntry]]:
    """By update and question; a start that made an update again noted it again."""
    found: dict[tuple[int, str], list[TokenEntry]] = defaultdict(list)
    for segment in segments(tokens / "rank-0"):
        for _, payload in read(segment, torn=[]):
            entry = from_bytes(payload)
            found[entry.update, str(entry.asked)].append(entry)
    return found


def same(one: TokenEntry, other: TokenEntry) -> bool:
    """Bit for bit."""
    return to_bytes(one) == to_bytes(other)


def test_tokens_computed_again_are_bit_for_bit_those_that_the_learner_recorded(run: Run) -> None:
    first = noted(run.folder / "tokens" / "recorded")
    assert Counter(update for update, _ in first) == dict.fromkeys(range(1, UPDATES + 1), 4)
    assert any(len(entries) > 1 for entries in first.values())
    assert all(same(entries[0], entry) for entries in first.values() for entry in entries)
    words = ["--update", UPDATES, "--recompute", "--tokens", "--json", "--limit", 100]
    done = command("samples", run.folder, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"update {UPDATES} of {run.folder}, made again from the checkpoint of update" in done.stderr
    assert "differ" not in done.stderr
    again = noted(run.folder / "tokens" / "recomputed")
    assert Counter(update for update, _ in again) == {UPDATES: 4}
    assert all(same(entries[0], first[name][0]) for name, entries in again.items())
    tokens = [
        one for row in map(json.loads, done.stdout.splitlines()) for group in row["groups"] for one in group["tokens"]
    ]
    assert Counter(one["learnt"] is None for one in tokens) == {True: 16, False: 16}  # of teacher and policy


def test_the_journal_says_what_became_of_every_completion(run: Run) -> None:
    done = command("journal", run.folder, "--by", "question", "--limit", 3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"generated {8 * QUESTIONS} = trained {4 * QUESTIONS} + voted {4 * QUESTIONS}" in done.stdout, done.stdout
    same = command("journal", run.folder, "--diff", run.folder)
    assert same.returncode == 0, same.stdout + same.stderr


def test_other_settings_retrain_from_the_same_completions(run: Run) -> None:
    done = command("replay", run.folder, "--until", 3, "--what-if", "rule=majority_vote", "correction.mode=bypass")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule: 'co_rewarding_ii' -> 'majority_vote'" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.endswith("%")]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--until", UPDATES + 1], f"knows the updates 1 to {UPDATES}"),
        (["--what-if", "rule=co_rewarding_i"], "needs the groups rephrased/policy"),
        (["--what-if", "rollout.group_size=2"], "it decided what was sampled"),
    ],
)
def test_what_cannot_be_replayed_is_named(run: Run, words: list[object], message: str) -> None:
    done = command("replay", run.folder, *words)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MB for the run's folder."""
    folder = tmp_path / "runs"
    folder.mkdir()
    if (
        os.getuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)], check=False).returncode
    ):
        pytest.skip("a file system can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_run_by_name_and_with_room_the_same_command_goes_on(
    tmp_path: Path, small_disk: Path
) -> None:
    keys = {**KEYS, "checkpoint__every_updates": 0, "eval__num_questions": 1}
    with started(tmp_path, **keys) as run:
        run.reaches(2)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        run.ends(1, "No space left on device", within_s=60)
    filler.unlink()
    with started(tmp_path, **keys) as run:
        run.ends(0, "were made again from the journal; the weights are the same, bit for bit")
        assert run.updates() == list(range(1, UPDATES + 1))
