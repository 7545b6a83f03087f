"""The tasks of an evaluation."""

import numpy as np

from corewarding.evals.heldout import GREEDY_EPOCH
from corewarding.evals.tasks import evaluation_tasks
from corewarding.questions.load import load_heldout
from corewarding.questions.prompts import prepare
from corewarding.questions.settings import DataSettings
from corewarding.questions.template import PromptTemplate


def asked(samples):
    settings = DataSettings(kind="arithmetic", num_heldout=16)
    template = PromptTemplate.from_folder("models/arithmetic-base", system_prompt=settings.system_prompt)
    heldout = prepare(load_heldout(settings, seed=0), template, views=("original",), max_prompt_tokens=64)
    tasks = evaluation_tasks(heldout, num_questions=5, samples=samples, temperature=0.6, max_new_tokens=9, seed=3)
    return heldout, tasks


def test_every_question_is_asked_once_greedily_and_once_for_all_samples():
    heldout, tasks = asked(4)
    greedy = [task for task in tasks if task.id.epoch == GREEDY_EPOCH]
    sampled = [task for task in tasks if task.id.epoch != GREEDY_EPOCH]
    ids = [question.id for question in heldout.questions[:5]]
    assert [task.id.question_id for task in greedy] == ids == [task.id.question_id for task in sampled]
    assert {(task.temperature, task.group_size) for task in greedy} == {(0.0, 1)}
    assert {(task.temperature, task.group_size) for task in sampled} == {(0.6, 4)}
    for task in tasks:
        np.testing.assert_array_equal(task.prompt_token_ids, heldout.prompts[task.id.question_id, "original"])


def test_a_quick_evaluation_is_greedy_only_and_no_stream_is_a_training_stream():
    _, tasks = asked(0)
    assert len(tasks) == 5
    assert all(task.id.epoch < 0 for task in tasks)
