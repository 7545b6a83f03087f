"""The whole path on real Ray: a run, what it leaves, going on after a stop, two ranks, and the teacher's engines."""

import json
import shutil

import numpy as np
import pytest
import ray
from transformers import AutoModelForCausalLM

from corewarding.dataflow.carriers import TrainingSample
from corewarding.dataflow.codec import encode
from corewarding.dataflow.errors import RunStoppedError
from corewarding.dataflow.ids import Version
from corewarding.launch.cli import main
from corewarding.launch.config.load import load_config, make_config
from corewarding.launch.report.run_directory import RunDirError
from corewarding.launch.run.train import run_training
from corewarding.learner.replay.journal.history import History
from corewarding.learner.schedule import learning_rate
from tests.fakes import fake_task

pytestmark = pytest.mark.timeout(300)


def small(root, **changes):
    content = {
        "rule": "co_rewarding_ii",
        "data": {"num_train": 64, "num_heldout": 16, "max_prompt_tokens": 48},
        "rollout": {"group_size": 4, "max_new_tokens": 24},
        "engine": {"slots": 32},
        "staleness": {"max": 2, "pipeline_depth": 1},
        "train": {"questions_per_update": 4, "updates": 4, "lr": 1e-4},
        "publish": {"bucket_mb": 0.25},
        "eval": {"every_updates": 2, "num_questions": 8, "quick_questions": 4, "quick_samples": 3, "samples": 2},
        "checkpoint": {"every_updates": 2},
        "run": {"name": "small", "root": str(root), "watchdog_s": 120},
    }
    for section, values in changes.items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    return make_config(content, where="test")


def rows_of(path, kind="update"):
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    result = run_training(small(root))
    assert result.stopped_early is None
    assert result.summary == json.loads((root / "small" / "summary.json").read_text())
    return result.folder


def test_a_quick_evaluation_has_its_own_questions_and_samples(finished):
    (quick,) = rows_of(finished, "eval_quick")
    assert (quick["update"], quick["num_questions"]) == (2, 4)
    assert {"greedy", "mean@3", "maj@3", "pass@3"} <= quick.keys()
    (after,) = rows_of(finished, "eval_after")
    assert (after["num_questions"], "mean@2" in after) == (8, True)


def test_the_summary_says_how_the_run_went(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["rule"] == "co_rewarding_ii"
    assert summary["updates"] == 4
    assert summary["labels_read"] == 0
    for moment in ("before", "after"):
        assert {"mean@2", "maj@2", "greedy", "num_questions"} <= summary[moment].keys()
    for key in ("wall_s", "completions_per_s", "learner_idle_frac", "staleness_mean", "staleness_max"):
        assert summary[key] >= 0
    assert 0 < summary["staleness_max"] <= 2  # asynchronous, and in bounds


def test_every_update_is_in_bounds_and_the_ledger_balances(finished):
    rows = rows_of(finished)
    assert [row["update"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert row["staleness/max"] <= 2
        gone = sum(row[f"ledger/num_{k}"] for k in ("trained", "voted_only", "withheld", "dropped", "waiting"))
        assert row["ledger/num_generated"] == gone
        assert row["label/num_read_by_rule"] == 0
        assert np.isfinite(row["loss/total"])
    assert rows[-1]["ledger/num_trained"] == rows[-1]["ledger/num_voted_only"] == 4 * 4 * 4


def test_tensorboard_samples_and_model_are_there(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(finished / "tensorboard"))
    board.Reload()
    shown = {name.partition("/")[2] for name in board.Tags()["tensors"]}
    assert {"reward/mean", "mismatch/k3", "train/grad_norm", "time/learner_idle_frac"} <= shown
    assert {"staleness/token", "length/completion_tokens", "samples", "votes", "config", "summary"} <= shown
    assert "correction/chi2" not in shown  # report.scalars: default
    samples = [json.loads(line) for line in (finished / "samples" / "update-000002.jsonl").read_text().splitlines()]
    assert {row["source"] for row in samples} == {"policy", "teacher"}
    AutoModelForCausalLM.from_pretrained(finished / "checkpoints" / "step-000004" / "model")


def test_a_finished_run_is_not_overwritten(finished):
    with pytest.raises(RunDirError, match="finished run"):
        run_training(small(finished.parent))


def test_a_finished_run_is_left_as_it_is_and_can_be_extended(finished, tmp_path, capsys):
    run = tmp_path / "moved"
    shutil.copytree(finished, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["resume", str(run)]) == 0
    assert "is finished: 4 of 4 updates; nothing was written" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert main(["resume", str(run), "--train.lr", "1.0"]) == 2
    assert "train.lr: 0.0001 -> 1.0; these keys stay" in capsys.readouterr().err
    assert main(["resume", str(run), "--train.updates", "6", "engine.slots=16"]) == 0
    said = capsys.readouterr().out
    assert "train.updates: 4 -> 6" in said
    assert "are not used" not in said, "the journal has no update after the checkpoint"
    rows = rows_of(run)
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[3]["train/lr"] == rows_of(finished)[3]["train/lr"]
    longer = load_config(run / "config.yaml").train
    assert longer.updates == 6
    assert rows[4]["train/lr"] == pytest.approx(learning_rate(5, longer))
    assert json.loads((run / "summary.json").read_text())["updates"] == 6
    assert [json.loads(line)["key"] for line in (run / "changes.jsonl").read_text().splitlines()] == [
        "engine.slots", "train.updates",
    ]  # fmt: skip


def test_a_stopped_run_goes_on_and_every_update_happens_once(tmp_path, capsys):
    """Its journal goes no further back than its checkpoints, and gives the last update again."""
    kept = {"checkpoint": {"every_updates": 1, "keep": 2}, "journal": {"retain": "since_oldest_checkpoint"}}
    run_training(small(tmp_path, run={"max_wall_s": 0.001}, **kept))
    assert [row["update"] for row in rows_of(tmp_path / "small")] == [1]
    run_training(small(tmp_path, run={"resume": "must"}, **kept))
    rows = rows_of(tmp_path / "small")
    assert History.of(tmp_path / "small" / "journal").first == 4
    assert main(["replay", str(tmp_path / "small"), "--out", str(tmp_path / "out")]) == 0
    assert "the weights of 1 update are equal, bit for bit" in capsys.readouterr().out
    assert main(["journal", str(tmp_path / "small")]) == 0
    assert [row["update"] for row in rows] == [1, 2, 3, 4]
    summary = json.loads((tmp_path / "small" / "summary.json").read_text())
    assert summary["updates"] == 4
    assert rows[-1]["ledger/num_trained"] == 4 * 4 * 4


def test_weights_are_published_every_so_many_updates(tmp_path):
    run_training(small(tmp_path, publish={"every_updates": 2}, teacher={"publish_every": 2}))
    rows = rows_of(tmp_path / "small")
    assert [row["update"] for row in rows] == [1, 2, 3, 4]
    assert [row["staleness/max"] <= 2 for row in rows] == [True] * 4
    versions = set()
    for file in sorted((tmp_path / "small" / "samples").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            versions |= set(json.loads(line)["versions"])
    assert versions <= {0, 2}  # no engine ever had the weights of an odd update
    assert rows[-1]["ledger/num_trained"] == 4 * 4 * 4


def test_two_ranks_train_synchronously_with_both_views(tmp_path):
    config = make_config(
        {
            **small(tmp_path).model_dump(),
            "rule": "co_rewarding_iii",
            "learner": {"ranks": 2, "cpus_per_rank": 0.5},
            "staleness": {"max": 0, "pipeline_depth": 0},
            "train": {"questions_per_update": 4, "updates": 2, "lr": 1e-4},
        },
        where="test",
    )
    run_training(config)
    rows = rows_of(tmp_path / "small")
    assert [row["staleness/max"] for row in rows] == [0, 0]
    assert rows[-1]["ledger/num_trained"] == 2 * 4 * 2 * 4


async def test_teacher_engines_sample_from_the_fp32_ema(tmp_path):
    """After k syncs the teacher engine's logprobs are those of the learner's own EMA, and no longer the initial model's."""
    import asyncio

    from corewarding.dataflow.carriers import TrainBatch
    from corewarding.launch.run import placement
    from corewarding.launch.run.inputs import read_inputs
    from corewarding.launch.run.parts import rollout_group
    from corewarding.launch.run.plans import learner_plan
    from corewarding.launch.run.preflight.needs import process_environment
    from corewarding.launch.run.publishing.publisher import Publisher
    from corewarding.learner.group import LearnerGroup

    config = make_config(
        {
            **small(tmp_path).model_dump(),
            "teacher": {"alpha_start": 0.3, "alpha_end": 0.3},
            "train": {"questions_per_update": 4, "updates": 9, "lr": 3e-3, "warmup_frac": 0.0},
        },
        where="test",
    )
    inputs = read_inputs(config)
    placement.connect(config)
    try:
        room = await placement.reserve(config)
        learner = LearnerGroup(
            learner_plan(config),
            incarnation=0,
            bucket_bytes=2**18,
            wire_dtype="float32",
            runtime_env=process_environment(1),
            options=lambda rank: room.options("learner", rank),
        )
        start = Version(incarnation=0, updates=0)
        teachers = rollout_group(config, inputs, "teacher", 1, buffer=None, version=start, room=room)
        await asyncio.gather(learner.start(), teachers.start())
        publisher = Publisher("teacher", learner, teachers, settings=config.publish)
        task = _teacher_task(inputs)
        first = await teachers.sample([task])
        for update in (1, 2, 3):
            samples = [
                _sample(completion, advantage)
                for completion, advantage in zip(first, (1.0, -1.0, 0.5, -0.5), strict=True)
            ]
            await learner.update(encode(TrainBatch(incarnation=0, update=update, samples=tuple(samples))))
            await publisher.publish(await learner.version("teacher"))
        later = await teachers.sample([task])
        samples = [_sample(completion, 0.0) for completion in later]
        ema, initial = await learner.logprobs(samples, "teacher"), await learner.logprobs(samples, "policy")
        for completion, expected in zip(later, ema, strict=True):
            assert set(completion.token_versions) == {3}
            np.testing.assert_allclose(completion.behavior_logprobs, expected, atol=5e-5)
        assert max(np.abs(a - b).max() for a, b in zip(ema, initial, strict=True)) > 1e-3
        await teachers.close()
        await learner.close()
    finally:
        ray.shutdown()


def _teacher_task(inputs):
    question = inputs.prepared.questions[0]
    prompt = inputs.prepared.prompts[question.id, "original"]
    return fake_task(question.id, prompt, group_size=4, max_new_tokens=24, source="teacher")


def _sample(completion, advantage):
    return TrainingSample(
        id=completion.id,
        prompt_token_ids=completion.prompt_token_ids,
        token_ids=completion.token_ids,
        behavior_logprobs=completion.behavior_logprobs,
        token_versions=completion.token_versions,
        advantage=advantage,
        loss_mask=np.ones(len(completion.token_ids), bool),
        temperature=1.0,
        truncated=False,
    )


def test_a_run_whose_numbers_break_ends_with_one_message(tmp_path, capfd):
    words = ["--run.root", str(tmp_path), "--train.updates", "3", "--train.lr", "1e30", "--eval.num-questions", "4"]
    assert main(["train", "configs/cpu.yaml", *words]) == 1
    message = capfd.readouterr().err.strip().splitlines()[-2:]
    assert message[0].startswith("corewarding: update 2: loss/total is")
    assert message[1].startswith("no checkpoint was made yet")


def test_a_run_that_collapses_ends_with_its_alarm_and_keeps_the_checkpoint_from_before(tmp_path):
    collapsing = small(
        tmp_path,
        train={"updates": 12, "lr": 0.03},
        collapse={"on_collapse": "stop", "patience": 1},
        checkpoint={"every_updates": 1, "keep": 20},
    )
    with pytest.raises(RunStoppedError, match=r"collapse: .*\(.*frac .*, collapse\.\w+_frac") as stopped:
        run_training(collapsing)
    summary = json.loads((tmp_path / "small" / "summary.json").read_text())
    assert 2 <= summary["updates"] < 12
    assert "lower train.lr" in str(stopped.value)
    assert (tmp_path / "small" / "checkpoints" / "step-000001" / "COMMITTED").is_file()
