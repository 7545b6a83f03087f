"""The initial model's answers to the questions of a run, for rules that need them: sampled once before training, by the policy's
engines while they still hold the initial weights, and kept in the run directory. A resumed run reads them from there.
"""

from __future__ import annotations

import json
from pathlib import Path

from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.errors import RunError
from corewarding.dataflow.ids import AskedId
from corewarding.dataflow.votes import InitialAnswers
from corewarding.launch.report.files import write_whole
from corewarding.launch.run.protocols import Parts

INITIAL_EPOCH = -3  # never used by training or evaluation, so its random streams are others


async def initial_answers(parts: Parts) -> list[InitialAnswers]:
    """Reads the file of the run directory, or samples the answers and writes it.

    RunError if training has begun and the file is not there: no engine holds the initial weights any more.
    """
    file = parts.initial_answers
    if file.is_file():
        return _read(file)
    if parts.version.updates > 0:
        raise RunError(
            f"{file} with the initial model's answers is gone, and the model has had {parts.version.updates} updates; "
            "restore the file, or start a new run"
        )
    completions = await parts.groups["policy"].sample(_tasks(parts))
    answers: dict[AskedId, dict[str, list[str | None]]] = {}
    for completion in sorted(completions, key=lambda one: one.id):
        answers.setdefault(completion.id.group.asked, {}).setdefault(completion.id.view, []).append(completion.answer)
    rows = [
        {"question": asked.question_id, "view": view, "answers": found}
        for asked, views in answers.items()
        for view, found in views.items()
    ]
    write_whole(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return _read(file)


def _read(file: Path) -> list[InitialAnswers]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [InitialAnswers(question_id=r["question"], view=r["view"], answers=tuple(r["answers"])) for r in rows]


def _tasks(parts: Parts) -> list[RolloutTask]:
    """One group for each trained wording of every question that the run may ask."""
    config, prepared = parts.config, parts.prepared
    return [
        RolloutTask(
            id=AskedId(question_id=question, epoch=INITIAL_EPOCH).group(view, "policy"),
            incarnation=parts.version.incarnation,
            attempt=0,
            group_size=config.rollout.vote_size or config.rollout.group_size,
            prompt_token_ids=prepared.prompts[question, view],
            temperature=config.rollout.temperature,
            max_new_tokens=config.rollout.max_new_tokens,
            run_seed=config.train.seed,
        )
        for question in _asked(parts)
        for view, _ in parts.rule.trained
    ]


def _asked(parts: Parts) -> list[str]:
    """The questions that the run may ask, in order. Where questions are dropped, others are asked in their place: then all."""
    config, questions = parts.config, parts.prepared.questions
    drops = "drop" in (config.staleness.on_exceed, config.label.on_exceed)
    needed = parts.cursor.peek(config.train.updates * config.train.questions_per_update)
    places = range(len(questions)) if drops else dict.fromkeys(index for _, index in needed)
    return [questions[index].id for index in places]
