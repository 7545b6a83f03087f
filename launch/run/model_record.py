"""Which model a run started from: `model.json` in the run directory, so that a resumed run takes the same commit of a hub id."""

from __future__ import annotations

import json
from pathlib import Path

FILE = "model.json"


def write_model(run: Path, *, path: str, revision: str | None, fingerprint: str) -> None:
    """path: as the configuration names it. revision: the commit of a hub id."""
    content = {"path": path, "revision": revision, "fingerprint": fingerprint}
    (run / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def recorded_revision(run: Path, path: str) -> str | None:
    """The commit that the run started from, if its model is `path`."""
    if not (run / FILE).is_file():
        return None
    content = json.loads((run / FILE).read_text(encoding="utf-8"))
    return content["revision"] if content["path"] == path else None
