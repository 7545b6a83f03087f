"""A run whose model is a hub id: the driver fetches it once, its processes get the folder, and a resumed run keeps the commit."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from corewarding.launch.config.paths import PACKAGE
from tests.hub import FIRST, SECOND, small_hub
from tests.more.cluster import environment, small

pytestmark = pytest.mark.timeout(600)
ID = "owner/arithmetic-base"


def corewarding(folder: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    env = environment() | {"HF_ENDPOINT": url, "HF_HOME": str(folder / "cache"), "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
    command = [sys.executable, "-m", "corewarding.launch.cli", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_a_run_fetches_its_model_once_and_goes_on_with_the_same_commit(tmp_path: Path) -> None:
    with small_hub(tmp_path / "hub") as hub:
        hub.add(ID, PACKAGE / "models" / "arithmetic-base")
        words = ["train", "cpu", *small(model__path=ID, run__name="h", learner__ranks=2)]
        done = corewarding(tmp_path, hub.url, *words)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert f"model.path {ID}: downloading 0.00 GB in 1 files of revision aaaaaaaaaaaa" in done.stdout
        assert max(Counter(hub.downloads()).values()) == 1
        asked = hub.requests("GET")
        assert sum("/api/models/" in path for path in asked) <= 4, "the driver alone asks the hub"
        hub.add(ID, PACKAGE / "models" / "arithmetic-base", SECOND)
        run = tmp_path / "runs" / "h"
        record = json.loads((run / "model.json").read_text())
        assert (record["path"], record["revision"]) == (ID, FIRST)
        assert yaml.safe_load((run / "config.yaml").read_text())["model"] == {
            "path": ID,
            "revision": None,
            "allow_unlisted": False,
        }
        done = corewarding(tmp_path, hub.url, "resume", str(run), "--train.updates", "3")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert json.loads((run / "model.json").read_text()) == record
        assert max(Counter(hub.downloads()).values()) == 1
    done = corewarding(tmp_path, hub.url, "resume", str(run), "--train.updates", "4")  # the hub has gone
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert f"note: {hub.url} cannot be reached" in done.stdout
    assert json.loads((run / "summary.json").read_text())["updates"] == 4
