"""Measures held-out accuracy with intervals; regrades or compares saved evaluations.

`corewarding eval MODEL_OR_RUN`, `corewarding eval --regrade FOLDER`, `corewarding eval --compare FOLDER FOLDER`.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from corewarding.actors.settings import EngineSettings
from corewarding.dataflow import plugins
from corewarding.dataflow.errors import RunError, UserError
from corewarding.evals.named import NAMED_SETS
from corewarding.evals.record import EvalRecord
from corewarding.launch.commands.export import whole_model
from corewarding.launch.config.arguments import as_flags, checked_engine, read_arguments
from corewarding.launch.config.load import load_config
from corewarding.launch.config.tree import ModelSettings, TrainConfig
from corewarding.launch.report.evaluation import EvalProgress, show_comparison, show_result, show_second_opinion
from corewarding.launch.report.tables.output import JsonFlag, people_console
from corewarding.questions.settings import DataSettings
from corewarding.questions.sources import is_file
from corewarding.rewards.answers.extract import Fallback

if TYPE_CHECKING:
    from corewarding.evals.run import EvalPlan

FLAGS = {
    "model.path": "MODEL",
    "data.heldout": "--data",
    "data.heldout_split": "--split",
    "rollout.max_new_tokens": "--max-new-tokens",
}
"""Keys in the messages of shared code, and the flags of this command."""
ARITHMETIC_TOKENS, ARITHMETIC_QUESTIONS, MATH_TOKENS = 32, 512, 3072


@dataclasses.dataclass(frozen=True)
class EvalArguments:
    """Held-out accuracy with intervals: mean@n, maj@n, pass@k and greedy.

    Keeps every completion; a second call samples only the missing ones. `--regrade FOLDER` grades a saved
    evaluation again, `--compare FOLDER FOLDER` compares two; see their own --help.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """A model folder or hub id, or a run directory (its last checkpoint)."""
    data: str | None = None
    """math500, gsm8k, amc, aime24 (from the hub), arithmetic, a plug-in's set, or a file, folder or hub id; None: the run's."""
    plugins: tuple[str, ...] = ()
    """Files or modules that register evaluation sets, readers and engines, besides the configuration's."""
    split: str = "test"
    """Split of a folder or hub id."""
    config: str | None = None
    """Recipe or YAML file that gives data, engine and lengths; None: the run's own, or the defaults."""
    num_questions: Annotated[int | None, Field(ge=1, le=10**6)] = None
    """Number of questions, in a fixed shuffled order; None: all, or 512 of the arithmetic world."""
    samples: Annotated[int | None, Field(ge=0, le=10**5)] = None
    """n of mean@n, maj@n, pass@k; 0: greedy only; None: the benchmark's usual n, else 8."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Sampling temperature of the n samples."""
    max_new_tokens: Annotated[int | None, Field(ge=1)] = None
    """Longest completion in tokens; None: the configuration's, else 32 for the arithmetic world and 3072."""
    seed: Annotated[int | None, Field(ge=0)] = None
    """Seed of the n samples; None: the configuration's."""
    fallbacks: tuple[Literal["hashes", "phrase"], ...] = ()
    """How to find the answer when a completion has no \\boxed{}; as vote.fallbacks."""
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)
    """The sampler."""
    second_opinion: bool = False
    """Also grade with math-verify, in a process that can be killed, and list the differences."""
    out: Path | None = None
    """Folder of the evaluation; None: a new one under runs/evals."""
    json: JsonFlag = False
    """A JSON object on one line, for programs."""


@dataclasses.dataclass(frozen=True)
class RegradeArguments:
    """Extracts and grades saved completions again; needs neither model nor data set."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder of an evaluation."""
    fallbacks: tuple[Literal["hashes", "phrase"], ...] = ()
    """How to find the answer when a completion has no \\boxed{}; as vote.fallbacks."""
    second_opinion: bool = False
    """Also grade with math-verify."""
    json: JsonFlag = False
    """A JSON object on one line, for programs."""


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Compares two evaluations. They must have the same questions, sampled and graded in the same way."""

    first: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder of an evaluation."""
    second: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OTHER")]
    """Folder of the other evaluation."""
    json: JsonFlag = False
    """A JSON object on each line, for programs: of a quantity."""


def run(words: list[str]) -> int:
    if "--regrade" in words:
        again = read_arguments(RegradeArguments, _without(words, "--regrade"), prog="corewarding eval --regrade")
        return regrade(again.folder, fallbacks=again.fallbacks, second_opinion=again.second_opinion, as_json=again.json)
    if "--compare" in words:
        both = read_arguments(CompareArguments, _without(words, "--compare"), prog="corewarding eval --compare")
        show_comparison(both.first, both.second, as_json=both.json)
        return 0
    arguments = read_arguments(EvalArguments, words, prog="corewarding eval")
    with as_flags(FLAGS):
        return evaluate(arguments)


def _without(words: list[str], flag: str) -> list[str]:
    return [word for word in words if word != flag]


def evaluate(arguments: EvalArguments) -> int:
    """Samples, grades and prints. Completions that an earlier call sampled for the same plan are used again."""
    from transformers.utils.logging import disable_progress_bar

    from corewarding.evals.run import grade_record, prepare_evaluation, sample_into

    console = people_console(as_json=arguments.json)
    disable_progress_bar()  # while weights load
    plan = plan_of(arguments)
    evaluation = prepare_evaluation(plan)
    folder = arguments.out or Path("runs/evals") / f"{_name(arguments)}-{evaluation.fingerprint}"
    made = next((path for path in [*reversed(folder.parents), folder] if not path.exists()), None)
    record = EvalRecord.create(folder, evaluation.manifest, evaluation.rows)
    for note in evaluation.notes:
        console.print(f"note: {note}")
    total = len(evaluation.rows) * (1 + plan.samples)
    try:
        with EvalProgress(console, total, record) as bar:
            sample_into(evaluation, record, on_group=bar.advance)
    except (UserError, RunError):
        if made is not None and not record.finished(samples=plan.samples):
            shutil.rmtree(made)
        raise
    console.print(f"model: {plan.model_path} ({evaluation.manifest['model']['hash']})")
    console.print(f"data: {evaluation.manifest['data']['source']}")
    result = grade_record(record, fallbacks=plan.fallbacks, num_samples=plan.samples)
    show_result(console, result, record, as_json=arguments.json)
    if arguments.second_opinion:
        show_second_opinion(console, record)
    console.print(f"generations, scores, manifest: {folder}")
    return 0


def regrade(folder: Path, *, fallbacks: Sequence[Fallback], second_opinion: bool, as_json: bool = False) -> int:
    """Grades saved completions again, without model or data set."""
    from corewarding.evals.run import grade_record

    console = people_console(as_json=as_json)
    record = EvalRecord.open(folder)
    samples = record.manifest["sampling"]["samples"]
    finished, asked = record.finished(samples=samples), record.questions()
    missing = len(asked) * (1 + samples) - len(finished)
    if missing:
        console.print(f"note: {missing} completions were never sampled; the others are graded")
    if not finished:
        raise UserError(f"{folder} holds no finished group of completions to grade")
    show_result(console, grade_record(record, fallbacks=fallbacks, num_samples=samples), record, as_json=as_json)
    if second_opinion:
        show_second_opinion(console, record)
    return 0


def plan_of(arguments: EvalArguments) -> EvalPlan:
    """The evaluation that the arguments describe. A run gives its configuration and its last checkpoint."""
    from corewarding.evals.run import EvalPlan
    from corewarding.launch.run.inputs import model_length
    from corewarding.weights.hub import local_folder

    plugins.load(plugins.resolve(arguments.plugins, folders=[Path.cwd()]))
    folder = Path(arguments.model)
    is_run = (folder / "config.yaml").is_file()
    source = arguments.config or (folder / "config.yaml" if is_run else None)
    config = load_config(source) if source else TrainConfig(model=ModelSettings(path=arguments.model))
    if arguments.engine != EngineSettings():
        config = config.model_copy(update={"engine": checked_engine(arguments.engine)})
    data = _data(arguments, config.asked_data)
    model = str(whole_model(folder)) if is_run else TrainConfig(model=ModelSettings(path=arguments.model)).model_folder
    length = model_length(str(local_folder(model)))
    arithmetic = data.kind == "arithmetic"
    named = NAMED_SETS.get(arguments.data or "")
    usual = named.samples if named else 8
    recipe = config.rollout.max_new_tokens if source else None
    num = arguments.num_questions or (ARITHMETIC_QUESTIONS if arithmetic else None)
    if arithmetic and num is not None:
        data = data.model_copy(update={"num_heldout": max(num, data.num_heldout)})
    return EvalPlan(
        model_path=model,
        data=data,
        engine=config.engine,
        num_questions=num,
        samples=usual if arguments.samples is None else arguments.samples,
        temperature=arguments.temperature,
        max_new_tokens=arguments.max_new_tokens or recipe or (ARITHMETIC_TOKENS if arithmetic else MATH_TOKENS),
        max_model_len=length,
        data_seed=config.train.seed,
        seed=config.train.seed if arguments.seed is None else arguments.seed,
        fallbacks=arguments.fallbacks or config.vote.fallbacks,
    )


def _data(arguments: EvalArguments, data: DataSettings) -> DataSettings:
    """The configuration's data with the held-out questions of --data. The training set stays, so that its questions are left out."""
    if arguments.data is None:
        return data
    if arguments.data == "arithmetic":
        return data.model_copy(update={"kind": "arithmetic"})
    named = NAMED_SETS.get(arguments.data)
    if (
        named is None
        and not Path(arguments.data).exists()
        and "/" not in arguments.data
        and not is_file(arguments.data)
    ):
        raise UserError(
            f"--data: {NAMED_SETS.unknown(arguments.data)}; or arithmetic, a file, a folder, or a hub id like openai/gsm8k:main"
        )
    update: dict[str, object] = {
        "kind": "files",
        "heldout": named.source if named else arguments.data,
        "heldout_split": named.split if named else arguments.split,
        "heldout_columns": dict(named.columns) if named else {},
        "heldout_reader": named.reader if named else "auto",
    }
    if data.kind == "arithmetic":
        update |= {"train": None, "max_prompt_tokens": max(2048, data.max_prompt_tokens)}
    return data.model_copy(update=update)


def _name(arguments: EvalArguments) -> str:
    parts = [Path(arguments.model).resolve().name, Path(arguments.data).stem if arguments.data else "heldout"]
    return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in part) for part in parts)
