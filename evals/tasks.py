"""The tasks of an evaluation: each held-out question once greedily and, if wanted, n times at a temperature."""

from __future__ import annotations

from corewarding.dataflow.carriers import RolloutTask
from corewarding.dataflow.ids import AskedId
from corewarding.evals.heldout import GREEDY_EPOCH, SAMPLED_EPOCH
from corewarding.questions.prompts import PreparedQuestions


def evaluation_tasks(
    heldout: PreparedQuestions,
    *,
    num_questions: int,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    incarnation: int = 0,
) -> list[RolloutTask]:
    """Tasks for the first `num_questions` questions. samples: n; 0 asks greedily only."""
    tasks = []
    for question in heldout.questions[:num_questions]:
        kinds = [(GREEDY_EPOCH, 1, 0.0)] + ([(SAMPLED_EPOCH, samples, temperature)] if samples else [])
        for epoch, group_size, heat in kinds:
            tasks.append(
                RolloutTask(
                    id=AskedId(question_id=question.id, epoch=epoch).group("original", "policy"),
                    incarnation=incarnation,
                    attempt=0,
                    group_size=group_size,
                    prompt_token_ids=heldout.prompts[question.id, "original"],
                    temperature=heat,
                    max_new_tokens=max_new_tokens,
                    run_seed=seed,
                )
            )
    return tasks
