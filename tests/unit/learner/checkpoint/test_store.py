"""A run resumes only from a checkpoint that was committed and is undamaged, and its newest one always stays."""

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corewarding.learner.checkpoint.manifest import CheckpointError
from corewarding.learner.checkpoint.store import Checkpoint, CheckpointStore


def commit(store: CheckpointStore, update: int, text: str = "weights") -> Checkpoint:
    folder = store.begin(update)
    for name in ("learner/learner.json", "model/file"):
        (folder / name).parent.mkdir()
        (folder / name).write_text(text)
    return store.commit(folder, {"updates": update})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path, keep: int = 5) -> int | None:
    latest = CheckpointStore(folder, keep).latest()
    return None if latest is None else latest.update


def without_learner(folder: Path) -> None:
    """As another program might have committed it: the manifest agrees with what is there."""
    shutil.rmtree(folder / "learner")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(
        json.dumps({name: e for name, e in manifest.items() if "learner" not in name})
    )


def edited(name: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes()))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "changed, same size": edited("model/file", lambda content: content[::-1]),
    "cut": edited("learner/learner.json", lambda content: content[:3]),
    "empty": edited("learner/learner.json", lambda content: b""),
    "missing": lambda folder: (folder / "model" / "file").unlink(),
    "no COMMITTED": lambda folder: (folder / "COMMITTED").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "cut manifest": edited("manifest.json", lambda content: content[: len(content) // 2]),
    "empty manifest": edited("manifest.json", lambda content: b""),
    "manifest without files": edited("manifest.json", lambda content: b"{}"),
    "manifest of another shape": edited("manifest.json", lambda content: b'[{"size": 1}]'),
    "manifest without hashes": edited(
        "manifest.json", lambda content: b'{"state.json": {"size": 14}, "learner/learner.json": 7}'
    ),
    "deep manifest": edited("manifest.json", lambda content: b"[" * 100_000),
    "manifest that leads outside": edited(
        "manifest.json", lambda content: content.replace(b"model/file", b"../../file")
    ),
    "manifest of bytes": edited("manifest.json", lambda content: bytes(range(256))),
    "garbled state": edited("state.json", lambda content: content[:-1]),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "no learner": without_learner,
    "a link for a file": lambda folder: (
        (folder / "model" / "file").rename(folder.parent / "elsewhere"),
        (folder / "model" / "file").symlink_to(folder.parent / "elsewhere"),
    ),
    "a folder for a file": lambda folder: (
        (folder / "learner" / "learner.json").unlink(),
        (folder / "learner" / "learner.json").mkdir(),
    ),
}


def test_the_newest_is_found_and_old_ones_go(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for update in (10, 20, 30):
        commit(store, update)
    latest = store.latest()
    assert latest is not None
    assert (latest.update, latest.state) == (30, {"updates": 30})
    assert names(tmp_path) == ["step-000020", "step-000030"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_skipped_in_one_line(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CheckpointStore(tmp_path, keep=5)
    commit(store, 10)
    DAMAGES[damage](commit(store, 20).folder)
    assert newest(tmp_path) == 10
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (damage != "no COMMITTED")
    assert all("\n" not in line and "step-000020" in line for line in lines)


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory, where flushing takes no time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_valid_one_is_never_pruned(damage: str, keep: int, quick: Path) -> None:
    """Every subset of three checkpoints damaged, then one more commit: it stays, and so do the newest valid ones up to `keep`."""
    updates = (10, 20, 30)
    for update in updates:
        commit(CheckpointStore(quick / "whole", keep=9), update)
    for number, broken in enumerate(itertools.product([False, True], repeat=3)):
        folder = quick / str(number)
        shutil.copytree(quick / "whole", folder)
        valid = []
        for update, is_broken in zip(updates, broken, strict=True):
            if is_broken:
                DAMAGES[damage](folder / f"step-{update:06d}")
            else:
                valid.append(update)
        assert newest(folder) == (valid[-1] if valid else None)
        commit(CheckpointStore(folder, keep), 40)
        left = [update for update in valid if (folder / f"step-{update:06d}").exists()]
        assert [*left, 40] == [*valid, 40][-keep:]
        assert newest(folder) == 40


@pytest.mark.parametrize("damage", [*DAMAGES])
def test_damage_between_two_commits_of_one_run_is_seen(damage: str, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    commit(store, 10)
    DAMAGES[damage](commit(store, 20).folder)
    assert store.latest() is None  # 10 is gone by then: keep is 1
    commit(store, 30)
    assert newest(tmp_path) == 30


def test_a_commit_without_learner_state_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    folder = store.begin(10)
    (folder / "learner").mkdir()
    with pytest.raises(CheckpointError, match="no learner state"):
        store.commit(folder, {"updates": 10})
    assert newest(tmp_path) is None


def test_links_are_neither_followed_nor_removed_nor_in_the_way(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "checkpoints"
    commit(CheckpointStore(outside, keep=9), 5)
    before = sorted(outside.rglob("*"))
    folder.mkdir()
    for name in ("step-000005", "step-000020", "step-000099", ".writing-000010", "step-000001.note"):
        (folder / name).symlink_to(outside / "step-000005")
    (folder / "step-000030").symlink_to(folder / "nowhere")
    (folder / "step-000031").write_text("a file")
    store = CheckpointStore(folder, keep=1)
    assert store.latest() is None
    for update in (10, 20, 30, 31):
        commit(store, update)
    assert sorted(outside.rglob("*")) == before
    assert newest(folder) == 31
    links = [path for path in folder.iterdir() if path.is_symlink()]
    assert sorted(os.readlink(link) for link in links) == sorted(
        [str(folder / "nowhere"), *[str(outside / "step-000005")] * 5]
    )
    assert (folder / "step-000031.aside-1").read_text() == "a file"


def test_what_an_interrupted_commit_left_is_no_checkpoint_and_goes(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=5)
    commit(store, 10)
    (commit(store, 30).folder / "COMMITTED").unlink()
    (store.begin(40) / "learner").mkdir()
    assert newest(tmp_path) == 10
    commit(store, 30)
    assert names(tmp_path) == ["step-000010", "step-000030"]
    assert newest(tmp_path) == 30


def test_a_valid_one_of_the_same_update_stays(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    commit(store, 10, "first")
    again = commit(store, 10, "second")
    assert (again.learner / "learner.json").read_text() == "first"
    assert names(tmp_path) == ["step-000010"]


def test_names_that_are_no_checkpoints_are_left_alone(tmp_path: Path) -> None:
    for name in ("step-", "step-abc", "step-1", "step-000001x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "COMMITTED").touch()
    store = CheckpointStore(tmp_path, keep=1)
    assert store.latest() is None
    commit(store, 10)
    commit(store, 1_000_000)
    assert newest(tmp_path) == 1_000_000
    assert names(tmp_path) == sorted(["step-", "step-abc", "step-1", "step-000001x", "step-1000000"])


def test_the_best_stay_beside_the_newest_also_after_a_resume(tmp_path: Path) -> None:
    accuracy = {10: 0.2, 20: 0.6, 30: 0.5, 40: 0.6, 50: 0.1, 60: 0.3}
    for update, value in accuracy.items():
        store = CheckpointStore(tmp_path, keep=1, keep_best=2)  # a new one each time, as a resumed run has
        commit(store, update)
        store.score(update, value)
    left = [name for name in names(tmp_path) if name.startswith("step-")]
    assert left == ["step-000020", "step-000040", "step-000060"]
    assert newest(tmp_path) == 60


def test_a_damaged_best_one_gives_its_place_to_the_next(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1, keep_best=1)
    for update, value in ((10, 0.5), (20, 0.9)):
        commit(store, update)
        store.score(update, value)
    assert names(tmp_path) == ["scores.json", "step-000010", "step-000020"]
    DAMAGES["cut"](tmp_path / "step-000020")
    commit(store, 30)
    assert names(tmp_path) == ["scores.json", "step-000010", "step-000030"]


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', '{"10": "x"}', '{"10": null}'])
def test_garbled_scores_are_forgotten(content: str, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1, keep_best=1)
    commit(store, 10)
    (tmp_path / "scores.json").write_text(content)
    commit(store, 20)
    assert names(tmp_path) == ["scores.json", "step-000020"]
    store.score(20, 0.5)
    assert json.loads((tmp_path / "scores.json").read_text()) == {"20": 0.5}


def test_a_checkpoint_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    folder = store.begin(10)
    (folder / "learner").mkdir()
    store.give_up(folder)
    assert names(tmp_path) == []
