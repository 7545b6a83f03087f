"""Training from Python: recipes, runs and what a run leaves. `import corewarding` offers these names; see corewarding/__init__.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.load import load_config, make_config
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_directory import RunDir


@dataclass(frozen=True, repr=False)
class Recipe:
    """A checked, frozen configuration; `override` makes another."""

    config: TrainConfig

    def override(self, **sections: Any) -> Recipe:
        """The recipe with other values: `override(rule="entropy", train={"updates": 10})`.

        A mapping changes the named keys of a section and leaves the others. UserError names a wrong key or value, as the command
        does. Plug-in files are looked for in the working directory.
        """
        content = self.config.model_dump()
        for key, value in sections.items():
            inside = getattr(self.config, key, None)
            is_section = isinstance(value, Mapping) and hasattr(type(inside), "model_fields")
            content[key] = {**content[key], **value} if is_section else value
        return Recipe(make_config(content, where="override"))

    def __repr__(self) -> str:
        changed = self.config.model_dump(mode="json", exclude_defaults=True)
        return f"Recipe:\n{yaml.safe_dump(changed, sort_keys=False, default_flow_style=None)}".rstrip()


class Run:
    """A run directory. Tables are pandas' if it is installed, else a dict with a list for each column."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self._paths = RunDir(self.folder.parent, self.folder.name)
        if not self._paths.config.is_file():
            raise UserError(f"{folder} is no run directory: it holds no config.yaml")

    @cached_property
    def recipe(self) -> Recipe:
        """The configuration that the run was started with."""
        return Recipe(load_config(self._paths.config))

    @property
    def summary(self) -> dict[str, Any]:
        """How the run went: accuracies before and after, speed, labels read. UserError before the run has ended."""
        if not self._paths.summary.is_file():
            raise UserError(f"{self.folder} has not ended: summary.json is written at the end of a run")
        summary: dict[str, Any] = json.loads(self._paths.summary.read_text())
        return summary

    @property
    def model(self) -> Path:
        """The trained model of the last checkpoint, a folder for `from_pretrained`; an adapter is merged in. UserError if there is no
        checkpoint."""
        from corewarding.launch.commands.export import whole_model

        return whole_model(self.folder)

    def metrics(self) -> Any:
        """A table with a row for each update, and a column for each metric."""
        return _table([row for row in _rows(self._paths.metrics) if row["kind"] == "update"])

    def evaluations(self) -> Any:
        """A table with a row for each held-out evaluation; `kind` says when it was made."""
        return _table([row for row in _rows(self._paths.metrics) if row["kind"].startswith("eval")])

    def samples(self, update: int | None = None) -> Any:
        """A table of sampled completions with answers, labels and rewards. update: None means all; UserError if it has none."""
        files = sorted(self._paths.samples.glob("*.jsonl" if update is None else f"update-{update:06d}.jsonl"))
        if not files:
            raise UserError(
                f"{self.folder} holds no samples"
                + (f" of update {update}" if update is not None else "")
                + "; run.sample_questions is how many questions an update keeps"
            )
        return _table([row for file in files for row in _rows(file)])

    def __repr__(self) -> str:
        state = "ended" if self._paths.summary.is_file() else "not ended"
        return f"Run({str(self.folder)!r}, {state})"


def recipe(name: str | Path) -> Recipe:
    """A shipped recipe by name ("cpu"), or a YAML file by path. UserError names file, key, value and remedy."""
    return Recipe(load_config(name))


def train(what: Recipe | TrainConfig | str | Path) -> Run:
    """Trains as `corewarding train` does, and returns the run. Works in a notebook, too.

    what: a recipe, or the name or path of one. UserError for a mistake in the input, RunError for a run that failed.
    """
    config = what.config if isinstance(what, Recipe) else what if isinstance(what, TrainConfig) else recipe(what).config
    from corewarding.launch.run.train import run_training

    return load_run(run_training(config).folder)


def load_run(folder: str | Path) -> Run:
    """A run that was made before, finished or not. UserError if the folder holds none."""
    return Run(folder)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file; a last line that is still being written is left out."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    try:
        import pandas
    except ImportError:
        columns = dict.fromkeys(key for row in rows for key in row)
        return {key: [row.get(key) for row in rows] for key in columns}
    return pandas.DataFrame(rows)
