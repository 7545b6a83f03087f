"""The folder of an evaluation: questions, model, settings, every completion and the grades.

    manifest.json       model, data, prompt, engine, sampling, grading: two comparable results share it
    questions.jsonl     id, question, prompt, answer
    generations.jsonl   one completion per line, group by group, in the order in which groups finished
    scores.jsonl        right or wrong by question           result.json      accuracies with intervals
    disagreements.jsonl completions on which a second opinion differs

Interrupted sampling continues from generations.jsonl. Grading can be repeated from the folder alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from corewarding.dataflow.errors import UserError
from corewarding.evals.heldout import EvalResult, Generation, QuestionScore
from corewarding.questions.gold import GoldAnswers

FORMAT = 1
_MODEL_FILES = ("*.safetensors", "config.json", "generation_config.json", "tokenizer*.json", "chat_template.jinja")


class EvalError(UserError):
    """An evaluation that cannot be made, continued, graded or compared; the message says why and what to do."""


def model_hash(folder: Path) -> str:
    """16 hex digits of the model's weights, configuration and tokenizer; the folder's place does not matter."""
    total = hashlib.sha256()
    for path in sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


def data_hash(rows: Iterable[tuple[str, str, str]]) -> str:
    """16 hex digits of (id, question, answer) rows; their order does not matter."""
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()[:16]


class EvalRecord:
    """One evaluation's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, manifest: dict[str, Any], questions: Sequence[dict[str, str]]) -> EvalRecord:
        """Makes the folder, or opens one with exactly this manifest (except grading) to continue it.

        EvalError if the folder holds anything else.
        """
        record = cls(folder)
        try:
            record._open_for(manifest)
            folder.mkdir(parents=True, exist_ok=True)
            record._write_rows("questions.jsonl", questions)
            record._write("manifest.json", manifest)
        except OSError as error:
            raise EvalError(f"--out {folder} cannot be written: {error.strerror}; choose another --out") from error
        return record

    def _open_for(self, manifest: dict[str, Any]) -> None:
        """Refuses a folder that holds anything but this evaluation."""
        folder = self.folder
        if self._path("manifest.json").is_file():
            different = [key for key in differences(self.manifest, manifest) if not key.startswith("grading")]
            if different:
                raise EvalError(
                    f"{folder} holds an evaluation that differs in {', '.join(different)}; choose another --out"
                )
        elif folder.exists() and any(folder.iterdir()):
            raise EvalError(f"{folder} is not empty and holds no evaluation; choose another --out")

    @classmethod
    def open(cls, folder: Path) -> EvalRecord:
        """Opens an evaluation. EvalError if the folder holds none."""
        record = cls(folder)
        if not record._path("manifest.json").is_file() or not record._path("generations.jsonl").is_file():
            raise EvalError(f"{folder} holds no evaluation: manifest.json and generations.jsonl are expected")
        return record

    @property
    def manifest(self) -> dict[str, Any]:
        file = self._path("manifest.json")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EvalError(f"{file} is damaged ({error}); sample the evaluation again into another folder") from error
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            raise EvalError(f"{self.folder}: its format is {found}, this version reads {FORMAT}")
        return dict(content)

    @property
    def gold(self) -> GoldAnswers:
        return GoldAnswers({row["id"]: row["answer"] for row in self._rows("questions.jsonl")})

    def questions(self) -> dict[str, dict[str, str]]:
        """Rows of questions.jsonl by id."""
        return {row["id"]: row for row in self._rows("questions.jsonl")}

    def generations(self) -> list[Generation]:
        """All lines; a last line that was cut off by an interruption is left out."""
        try:
            return [Generation(**row) for row in self._rows("generations.jsonl")]
        except TypeError as error:
            raise EvalError(
                f"{self._path('generations.jsonl')}: a line is no completion of an evaluation ({error})"
            ) from error

    def finished(self, *, samples: int) -> list[Generation]:
        """The generations of groups with all samples. Removes all others from the file."""
        groups: dict[tuple[str, bool], list[Generation]] = defaultdict(list)
        for generation in self.generations() if self._path("generations.jsonl").is_file() else []:
            groups[generation.question_id, generation.greedy].append(generation)
        whole = [g for (_, greedy), group in groups.items() if len(group) == (1 if greedy else samples) for g in group]
        self._write_rows("generations.jsonl", map(dataclasses.asdict, whole))
        return whole

    def append(self, group: Sequence[Generation]) -> None:
        """Appends one group to the file."""
        with self._path("generations.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(_line(dataclasses.asdict(generation)) for generation in group))

    def write_grades(
        self,
        result: EvalResult,
        scores: Sequence[QuestionScore],
        grading: dict[str, Any],
        generations: Sequence[Generation],
    ) -> None:
        """Writes the results of grading; `generations` carry the extracted answers."""
        self._write_rows("generations.jsonl", map(dataclasses.asdict, generations))
        self._write_rows("scores.jsonl", map(dataclasses.asdict, scores))
        self._write("result.json", {"grading": grading, **result.as_dict()})
        self._write("manifest.json", {**self.manifest, "grading": grading})

    def write_disagreements(self, rows: Sequence[dict[str, Any]]) -> Path:
        self._write_rows("disagreements.jsonl", rows)
        return self._path("disagreements.jsonl")

    def scores(self) -> list[QuestionScore]:
        """Scores by question. EvalError if the evaluation was never graded."""
        if not self._path("scores.jsonl").is_file():
            raise EvalError(f"{self.folder} was never graded; finish it, or `corewarding eval --regrade {self.folder}`")
        return [QuestionScore(**row | {"samples": tuple(row["samples"])}) for row in self._rows("scores.jsonl")]

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        with self._path(name).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith("\n"):
                    return  # the last line, cut off
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise EvalError(f"{self._path(name)}: line {number} is damaged ({error})") from error

    def _write(self, name: str, content: dict[str, Any]) -> None:
        _replace(self._path(name), json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _write_rows(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        _replace(self._path(name), "".join(map(_line, rows)))


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Dotted keys in which two manifests differ, without those that do not change results, such as place and time."""
    aside = ("format", "created", "environment", "model.path", "data.source", "engine")
    flat = [_flat(manifest) for manifest in (one, other)]
    keys = sorted(flat[0].keys() | flat[1].keys())
    return [key for key in keys if not key.startswith(aside) and flat[0].get(key) != flat[1].get(key)]


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=True) + "\n"


def _replace(path: Path, content: str) -> None:
    """Writes the file in one step, so that an interruption leaves the old or the new content."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)
