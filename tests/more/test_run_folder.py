"""One folder, several starts: a second run while the first lives, and starts after kills at bad moments."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.more.cluster import environment
from tests.more.runs import Run, started


def resume(run: Run, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corewarding.launch.cli", "resume", str(run.folder), *words]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=240)


def kill(run: Run) -> None:
    """All of it at once, as when a machine loses power."""
    for pid in [run.driver.pid, *run.pids()]:
        os.kill(pid, signal.SIGKILL)
    run.driver.wait()


def test_a_second_run_of_the_name_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with started(tmp_path, train__updates=5000, data__num_train=64) as first:
        first.until(first.updates)
        second = resume(first)
        assert second.returncode == 2, second.stdout + second.stderr
        assert f"is in use by process {first.driver.pid} on " in second.stderr
        with started(tmp_path) as third:
            assert third.driver.wait(60) == 2
            assert third.text().count("is in use by process") == 1
        before = len(first.updates())
        first.until(lambda: len(first.updates()) > before)
        first.driver.terminate()
        first.ends(143, "SIGTERM after update")
        done = first.updates()
        assert done == list(range(1, len(done) + 1))


def test_a_run_goes_on_after_kills_and_damage(tmp_path: Path) -> None:
    """Killed before its first checkpoint, resumed; killed after it, with torn files and a damaged newest checkpoint, resumed."""
    keys = {"train__updates": 8, "data__num_train": 64, "checkpoint__every_updates": 3, "checkpoint__keep": 2}
    with started(tmp_path, **keys) as run:
        run.until(run.updates)
        kill(run)
        assert not list(run.folder.glob("checkpoints/*/COMMITTED"))
        with (run.folder / "metrics.jsonl").open("a") as file:
            file.write('{"update": 2, "kin')
    with started(tmp_path, **keys) as run:
        run.until(lambda: len(list(run.folder.glob("checkpoints/*/COMMITTED"))) == 2)
        kill(run)
    for name in ("metrics.jsonl", "changes.jsonl", "trace.jsonl"):
        with (run.folder / name).open("a") as file:
            file.write('{"update": 9, "kin')
    *_, older, newest = sorted(run.folder.glob("checkpoints/step-*"))
    (newest / "manifest.json").write_text((newest / "manifest.json").read_text()[:100])
    done = resume(run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("checkpoint skipped") == 1
    assert f"updates {int(older.name[-6:]) + 1} to " in done.stdout  # after the checkpoint before the damaged one
    assert "were made again from the journal; the weights are the same, bit for bit" in done.stdout
    assert run.updates() == list(range(1, 9))
    assert json.loads((run.folder / "summary.json").read_text())["updates"] == 8
