"""`corewarding eval`: from the command line to a plan, and what a user sees of it: progress, accuracies, comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.errors import UserError
from corewarding.evals.compare import compare
from corewarding.evals.heldout import EvalResult, Generation
from corewarding.evals.named import NAMED_SETS
from corewarding.evals.record import EvalRecord
from corewarding.launch.commands.export import last_checkpoint
from corewarding.launch.config.load import load_config
from corewarding.launch.config.tree import ModelSettings, TrainConfig
from corewarding.questions.settings import DataSettings
from corewarding.rewards.answers.extract import Fallback
from corewarding.rewards.answers.grading import grade

if TYPE_CHECKING:
    from corewarding.evals.run import EvalPlan

ARITHMETIC_TOKENS, ARITHMETIC_QUESTIONS, MATH_TOKENS = 32, 512, 3072


@dataclasses.dataclass(frozen=True)
class EvalArguments:
    """Held-out accuracy with intervals: mean@n, maj@n, pass@k and greedy. Everything sampled is kept, and not sampled again."""

    model: tyro.conf.Positional[str]
    """A model folder or hub id, or a run directory (its last checkpoint)."""
    data: str | None = None
    """math500, gsm8k, amc, aime24 (from the hub), arithmetic, or a Parquet or JSONL file, folder or hub id; None: the run's."""
    split: str = "test"
    """Split of a folder or hub id."""
    config: Path | None = None
    """Configuration whose data, engine and lengths apply; of a run, its own."""
    num_questions: int | None = None
    """Only the first so many, in a fixed shuffled order; None: all, or 512 of the arithmetic world."""
    samples: int | None = None
    """n of mean@n, maj@n, pass@k; 0: greedy only; None: as the benchmark is usually reported, else 8."""
    temperature: float = 1.0
    """Of the n samples."""
    max_new_tokens: int | None = None
    """Longest completion; None: the configuration's, else 32 for the arithmetic world and 3072."""
    seed: int | None = None
    """Of the n samples; None: the configuration's."""
    fallbacks: tuple[Literal["hashes", "phrase"], ...] = ()
    """Where a completion has no box; as vote.fallbacks."""
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)
    """The sampler."""
    second_opinion: bool = False
    """Also grade by math-verify, in a process that can be killed, and list where it differs."""
    out: Path | None = None
    """Folder of the evaluation; None: one under runs/evals."""


@dataclasses.dataclass(frozen=True)
class RegradeArguments:
    """Extracts and grades saved generations again; needs neither model nor data set."""

    folder: tyro.conf.Positional[Path]
    """Of an evaluation."""
    fallbacks: tuple[Literal["hashes", "phrase"], ...] = ()
    """Where a completion has no box; as vote.fallbacks."""
    second_opinion: bool = False
    """Also grade by math-verify."""


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Two evaluations side by side; refused where they are not of the same questions, sampled and graded in the same way."""

    first: tyro.conf.Positional[Path]
    """Folder of an evaluation."""
    second: tyro.conf.Positional[Path]
    """Folder of another."""


SHOWN = 10  # disagreements printed


def evaluate(arguments: EvalArguments) -> int:
    """Samples, grades and prints; 0. What was sampled before for the same plan is not sampled again."""
    from transformers.utils.logging import disable_progress_bar

    from corewarding.evals.run import grade_record, prepare_evaluation, sample_into

    console = Console(highlight=False, soft_wrap=True)
    disable_progress_bar()  # of the weights' loading
    plan = plan_of(arguments)
    evaluation = prepare_evaluation(plan)
    folder = arguments.out or Path("runs/evals") / f"{_name(arguments)}-{evaluation.fingerprint}"
    record = EvalRecord.create(folder, evaluation.manifest, evaluation.rows)
    for note in evaluation.notes:
        console.print(f"note: {note}", markup=False)
    total = len(evaluation.rows) * (1 + plan.samples)
    with _Bar(console, total, record) as bar:
        sample_into(evaluation, record, on_group=bar.advance)
    console.print(f"model: {plan.model_path} ({evaluation.manifest['model']['hash']})", markup=False)
    console.print(f"data: {evaluation.manifest['data']['source']}", markup=False)
    _show(console, grade_record(record, fallbacks=plan.fallbacks, num_samples=plan.samples))
    if arguments.second_opinion:
        _second_opinion(console, record)
    console.print(f"generations, scores, manifest: {folder}", markup=False)
    return 0


def regrade(folder: Path, *, fallbacks: Sequence[Fallback], second_opinion: bool) -> int:
    """Grades saved generations again, without model or data set."""
    from corewarding.evals.run import grade_record

    console = Console(highlight=False, soft_wrap=True)
    record = EvalRecord.open(folder)
    samples = record.manifest["sampling"]["samples"]
    whole, asked = record.finished(samples=samples), record.questions()
    missing = len(asked) * (1 + samples) - len(whole)
    if missing:
        console.print(f"note: {missing} completions were never sampled; what there is is graded", markup=False)
    if not whole:
        raise UserError(f"{folder} holds no whole group of completions to grade")
    _show(console, grade_record(record, fallbacks=fallbacks, num_samples=samples))
    if second_opinion:
        _second_opinion(console, record)
    return 0


def print_comparison(first: Path, second: Path) -> int:
    """Both accuracies and their difference, paired by question."""
    rows = compare(EvalRecord.open(first), EvalRecord.open(second))
    table = Table(title="second against first, paired by question, 95% by bootstrap")
    for column in ("", str(first), str(second), "difference", "interval"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        low, high = row.interval
        table.add_row(
            row.name,
            f"{row.first:.3f}",
            f"{row.second:.3f}",
            f"{row.second - row.first:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
        )
    Console(highlight=False).print(table)
    return 0


def plan_of(arguments: EvalArguments) -> EvalPlan:
    """The plan the command line means. A run brings its configuration and its last checkpoint."""
    from corewarding.evals.run import EvalPlan
    from corewarding.launch.run.inputs import model_length

    folder = Path(arguments.model)
    is_run = (folder / "config.yaml").is_file()
    source = arguments.config or (folder / "config.yaml" if is_run else None)
    config = load_config(source) if source else TrainConfig(model=ModelSettings(path=arguments.model))
    model = (
        str(last_checkpoint(folder).model)
        if is_run
        else TrainConfig(model=ModelSettings(path=arguments.model)).model_folder
    )
    data = _data(arguments, config.data)
    arithmetic = data.kind == "arithmetic"
    usual = NAMED_SETS[arguments.data].samples if arguments.data in NAMED_SETS else 8
    recipe = config.rollout.max_new_tokens if source else None
    num = arguments.num_questions or (ARITHMETIC_QUESTIONS if arithmetic else None)
    if arithmetic and num is not None:
        data = data.model_copy(update={"num_heldout": max(num, data.num_heldout)})
    return EvalPlan(
        model_path=model,
        data=data,
        engine=arguments.engine if source is None or arguments.engine != type(arguments.engine)() else config.engine,
        num_questions=num,
        samples=usual if arguments.samples is None else arguments.samples,
        temperature=arguments.temperature,
        max_new_tokens=arguments.max_new_tokens or recipe or (ARITHMETIC_TOKENS if arithmetic else MATH_TOKENS),
        max_model_len=model_length(model),
        data_seed=config.train.seed,
        seed=config.train.seed if arguments.seed is None else arguments.seed,
        fallbacks=arguments.fallbacks or config.vote.fallbacks,
    )


def _data(arguments: EvalArguments, data: DataSettings) -> DataSettings:
    """The configuration's data with the held-out questions of --data. What the run was trained on is known to it, and left out."""
    if arguments.data is None:
        return data
    if arguments.data == "arithmetic":
        return data.model_copy(update={"kind": "arithmetic"})
    named = NAMED_SETS.get(arguments.data)
    update = {
        "kind": "files",
        "heldout": named.source if named else arguments.data,
        "heldout_split": named.split if named else arguments.split,
    }
    if data.kind == "arithmetic":
        update |= {"train": None, "max_prompt_tokens": max(2048, data.max_prompt_tokens)}
    return data.model_copy(update=update)


def _name(arguments: EvalArguments) -> str:
    parts = [Path(arguments.model).resolve().name, Path(arguments.data).stem if arguments.data else "heldout"]
    return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in part) for part in parts)


class _Bar:
    """Completions done, tokens per second and the accuracy so far. Plain output where there is no terminal."""

    def __init__(self, console: Console, total: int, record: EvalRecord) -> None:
        self._gold = {question: row["answer"] for question, row in record.questions().items()}
        self._right = self._done = self._tokens = 0
        self._progress = Progress(
            TextColumn("sampling"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("sampling", total=total, state="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, generations: Sequence[Generation]) -> None:
        self._done += len(generations)
        self._tokens += sum(g.num_tokens for g in generations)
        self._right += sum(grade(g.answer, self._gold[g.question_id]) for g in generations)
        elapsed = self._progress.tasks[0].elapsed or 0.0
        state = f"{self._right / max(1, self._done):.1%} right" + (
            f", {self._tokens / elapsed:,.0f} tok/s" if elapsed else ""
        )
        self._progress.update(self._task, completed=self._done, state=state)


def _show(console: Console, result: EvalResult) -> None:
    intervals = {"greedy": result.greedy_interval, f"mean@{result.n}": result.mean_interval}
    for key, value in result.as_dict().items():
        if value is None or isinstance(value, list) or ("@" in key and not result.n):
            continue
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        if interval := intervals.get(key):
            shown += "  [{:.4f}, {:.4f}]".format(*interval)
        console.print(f"{key:<17} {shown}", markup=False)


def _second_opinion(console: Console, record: EvalRecord) -> None:
    """math-verify's accuracy beside ours, what became of its attempts, and the answers on which they differ."""
    from corewarding.evals.second_opinion import OUTCOMES, second_opinions

    generations, gold = record.generations(), {q: row["answer"] for q, row in record.questions().items()}
    with second_opinions() as other:
        opinions = other.grade([(g.answer, gold[g.question_id]) for g in generations])
    ours = [grade(g.answer, gold[g.question_id]) for g in generations]
    rows = [
        {**dataclasses.asdict(g), "gold": gold[g.question_id], "ours": mine, "theirs": o.right, "outcome": o.outcome}
        for g, mine, o in zip(generations, ours, opinions, strict=True)
        if bool(o.right) != mine
    ]
    path = record.write_disagreements(rows)
    counts = {outcome: sum(o.outcome == outcome for o in opinions) for outcome in OUTCOMES}
    theirs = sum(bool(o.right) for o in opinions)
    console.print(
        f"of {len(ours)} completions right: ours {sum(ours)}, math-verify {theirs}; they differ on {len(rows)}"
    )
    console.print("math-verify: " + ", ".join(f"{outcome} {number}" for outcome, number in counts.items() if number))
    different = dict.fromkeys((row["answer"], row["gold"], row["ours"], row["outcome"]) for row in rows)
    for answer, right, mine, outcome in list(different)[:SHOWN]:
        console.print(
            f"  {answer!r} for {right!r}: ours {'right' if mine else 'wrong'}, math-verify {outcome}", markup=False
        )
    if rows:
        console.print(f"all of them: {path}", markup=False)
