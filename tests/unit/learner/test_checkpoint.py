"""A run resumes only from a checkpoint that was committed and is undamaged."""

from pathlib import Path

import pytest

from corewarding.learner.checkpoint import Checkpoint, CheckpointStore


def commit(store: CheckpointStore, update: int, text: str = "weights") -> Checkpoint:
    folder = store.begin(update)
    (folder / "model").mkdir()
    (folder / "model" / "file").write_text(text)
    return store.commit(folder, {"updates": update})


def test_the_newest_is_found_and_old_ones_go(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for update in (10, 20, 30):
        commit(store, update)
    latest = store.latest()
    assert latest is not None
    assert (latest.update, latest.state) == (30, {"updates": 30})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000020", "step-000030"]


def test_a_damaged_and_an_uncommitted_one_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CheckpointStore(tmp_path, keep=5)
    commit(store, 10)
    damaged = commit(store, 20)
    (damaged.folder / "model" / "file").write_text("wrong!!")
    unfinished = commit(store, 30)
    (unfinished.folder / "COMMITTED").unlink()
    store.begin(40)
    latest = store.latest()
    assert latest is not None
    assert latest.update == 10
    assert "was changed or cut" in caplog.text
