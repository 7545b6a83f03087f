"""The token log says what the update used, changes no bit of it, and outlives damage, restarts and several ranks."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corewarding.dataflow.carriers import TrainBatch, TrainingSample
from corewarding.dataflow.ids import AskedId, CompletionId, drawn
from corewarding.learner.learner import Learner
from corewarding.learner.objective.packing import pack
from corewarding.learner.replay.journal.segments import JournalError, SegmentWriter, Torn, read, segments
from corewarding.learner.settings import CorrectionSettings, LearnerPlan, LearnerSettings, TrainSettings
from corewarding.learner.token_log.entries import (
    CLIPPED,
    IN_GAIN,
    IN_KL,
    IN_LOSS,
    OFF_BAND,
    SEQUENCE_OFF_BAND,
    VETOED,
    TokenEntry,
    TokenValues,
    checksum,
    folders,
    forget_before,
    from_bytes,
    recorded,
    to_bytes,
)
from corewarding.learner.token_log.log import TokenLog
from corewarding.learner.token_log.plan import TokenLogPlan
from tests.unit.learner.conftest import make_samples

KEPT = IN_LOSS | IN_GAIN | IN_KL


def plan_of(model: str, folder: Path | None, *, questions: int | None = None, **changes: Any) -> LearnerPlan:
    values: dict[str, Any] = {
        "model_path": model,
        "kl_coef": 0.01,
        "kl_reference": "initial",
        "keep_teacher": False,
        "digest": True,
        "train": TrainSettings(lr=1e-2, updates=4, warmup_frac=0.0),
        "learner": LearnerSettings(micro_batch_tokens=40, row_tokens=24),
        "correction": CorrectionSettings(cap=1.05, veto=None),
        "token_log": None if folder is None else TokenLogPlan(folder=str(recorded(folder)), questions=questions),
    }
    return LearnerPlan(**(values | changes))


def batch(update: int, samples: tuple[TrainingSample, ...] | None = None) -> TrainBatch:
    drawn_anew = make_samples(8, seed=update, views=("original", "rephrased"), version=update - 1, group_size=2)
    return TrainBatch(incarnation=0, update=update, samples=samples or drawn_anew)


def entries(tokens: Path) -> list[TokenEntry]:
    return [
        from_bytes(payload)
        for folder in folders(tokens)
        for segment in segments(folder)
        for _, payload in read(segment, torn=[])
    ]


def values_of(tokens: Path) -> dict[CompletionId, TokenValues]:
    return {one: values for entry in entries(tokens) for one, values in entry.values.items()}


def one_update(model: str, folder: Path, samples: tuple[TrainingSample, ...], **changes: Any) -> dict[int, TokenValues]:
    """By the number in the question's id."""
    Learner(plan_of(model, folder, **changes)).update(batch(1, samples))
    return {int(one.question_id[1:]): values for one, values in values_of(folder).items()}


def test_the_values_are_those_of_the_update_which_has_the_same_bits_without_them(
    tiny_model: str, tmp_path: Path
) -> None:
    with_log, without = Learner(plan_of(tiny_model, tmp_path)), Learner(plan_of(tiny_model, None))
    assert len(with_log.pack(batch(1).samples)) > 3
    for update in (1, 2):
        now = batch(update)
        before = with_log.logprobs(now.samples, "policy")
        assert with_log.update(now).digest == without.update(now).digest
        found = {
            one: values for entry in entries(tmp_path) if entry.update == update for one, values in entry.values.items()
        }
        assert sorted(found) == [sample.id for sample in now.samples]
        for sample, policy in zip(now.samples, before, strict=True):
            values = found[sample.id]
            np.testing.assert_array_equal(values.policy, policy)
            np.testing.assert_array_equal(values.proximal, policy)  # decoupled
            np.testing.assert_allclose(values.ratio, np.exp(policy - sample.behavior_logprobs), rtol=1e-6)
            np.testing.assert_array_equal(values.weight, np.minimum(values.ratio, np.float32(1.05)))
            assert set(values.marks.tolist()) == {KEPT}
    assert any((values.weight < values.ratio).any() for values in values_of(tmp_path).values())


def test_only_the_drawn_questions_are_noted_and_none_without_a_token_that_trains(
    tiny_model: str, tmp_path: Path
) -> None:
    learner = Learner(plan_of(tiny_model, tmp_path, questions=3))
    asked = {sample.id.group.asked for sample in batch(1).samples}
    learner.update(batch(1))
    noted = {entry.asked for entry in entries(tmp_path)}
    assert noted == drawn(asked, update=1, num=3)
    assert len(noted) == 3
    masked = tuple(dataclasses.replace(one, loss_mask=np.zeros_like(one.loss_mask)) for one in batch(2).samples)
    learner.update(batch(2, masked))
    assert {entry.update for entry in entries(tmp_path)} == {1}


def test_what_is_drawn_from_all_is_drawn_from_a_part() -> None:
    asked = [AskedId(question_id=f"q{index}", epoch=index % 3) for index in range(40)]
    for update in range(20):
        chosen = drawn(asked, update=update, num=5)
        part = asked[update:]
        assert len(chosen) == 5
        assert chosen & set(part) <= drawn(part, update=update, num=5)
    assert len({drawn(asked, update=update, num=5) for update in range(20)}) > 10
    assert drawn(asked, update=1, num=0) == frozenset()


def test_masked_tokens_have_no_weight_and_say_why(tiny_model: str, tmp_path: Path) -> None:
    samples = make_samples(4)
    policy = Learner(plan_of(tiny_model, None)).logprobs(samples, "policy")
    masked = dataclasses.replace(samples[0], loss_mask=np.zeros_like(samples[0].loss_mask))

    def shifted(index: int, *by: float) -> TrainingSample:
        """Whose first tokens were sampled with these log-ratios."""
        behavior = policy[index].copy()
        behavior[: len(by)] -= np.array(by, np.float32)
        return dataclasses.replace(samples[index], behavior_logprobs=behavior)

    given = (masked, shifted(1, np.log(0.5)), shifted(2, np.log(1.5)), shifted(3))
    found = one_update(tiny_model, tmp_path / "veto", given, correction=CorrectionSettings(veto=0.6))
    assert set(found[0].marks.tolist()) == {0}
    assert np.isnan([found[0].proximal, found[0].ratio, found[0].weight]).all()
    np.testing.assert_array_equal(found[0].policy, policy[0])
    assert set(found[1].marks.tolist()) == {IN_LOSS | VETOED}
    assert set(found[2].marks.tolist()) == set(found[3].marks.tolist()) == {KEPT}
    assert found[2].ratio[0] == pytest.approx(1.5, rel=1e-5)
    band = CorrectionSettings(veto=None, token_band=(0.7, 1.2))
    found = one_update(tiny_model, tmp_path / "band", given, correction=band)
    for index in (1, 2):
        assert found[index].marks.tolist() == [IN_LOSS | IN_KL | OFF_BAND] + [KEPT] * (len(found[index].marks) - 1)
        assert found[index].weight[0] == 0
    sequence = CorrectionSettings(veto=None, sequence_band=(0.999, 1.001))
    found = one_update(tiny_model, tmp_path / "sequence", given, correction=sequence)
    assert [set(found[index].marks.tolist()) for index in (1, 2, 3)] == [{IN_LOSS | SEQUENCE_OFF_BAND}] * 2 + [{KEPT}]


def test_a_clipped_token_is_marked_where_its_advantage_points_out_of_the_band(tiny_model: str, tmp_path: Path) -> None:
    samples = make_samples(2)
    policy = Learner(plan_of(tiny_model, None)).logprobs(samples, "policy")
    given = tuple(
        dataclasses.replace(one, advantage=advantage, behavior_logprobs=found - np.float32(np.log(1.5)))
        for one, found, advantage in zip(samples, policy, (1.0, -1.0), strict=True)
    )
    found = one_update(tiny_model, tmp_path, given, correction=CorrectionSettings(mode="bypass", veto=None))
    assert set(found[0].marks.tolist()) == {KEPT | CLIPPED}
    assert set(found[1].marks.tolist()) == {KEPT}
    np.testing.assert_array_equal(found[0].weight, np.ones_like(found[0].weight))


def test_two_ranks_note_together_what_one_notes(tiny_model: str, tmp_path: Path) -> None:
    learner = Learner(plan_of(tiny_model, tmp_path / "one"))
    packed = pack(batch(1).samples, micro_batch_tokens=40, row_tokens=24, ranks=2)
    for rank, micros in enumerate(packed):
        log = TokenLog(
            TokenLogPlan(folder=str(recorded(tmp_path / "two")), questions=None), rank=rank, device=learner.device
        )
        watched = log.watch(batch(1), micros)
        assert watched is not None
        learner.accumulate(micros, watched=watched)
        log.write(watched)
    learner.optimizer.zero_grad()
    learner.update(batch(1))
    one, two = values_of(tmp_path / "one"), values_of(tmp_path / "two")
    assert [folder.name for folder in folders(tmp_path / "two")] == ["rank-0", "rank-1"]
    assert one.keys() == two.keys()
    assert sum(len(entry.values) for entry in entries(tmp_path / "two")) == len(one)
    for name, values in one.items():
        np.testing.assert_allclose(two[name].policy, values.policy, atol=1e-5)
        np.testing.assert_array_equal(two[name].marks, values.marks)


def test_a_learner_that_comes_back_writes_on_after_a_torn_end(tiny_model: str, tmp_path: Path) -> None:
    first = Learner(plan_of(tiny_model, tmp_path))
    first.update(batch(1))
    (segment,) = segments(folders(tmp_path)[0])
    os.truncate(segment, segment.stat().st_size - 3)
    num = len(entries(tmp_path))
    assert num == len({sample.id.group.asked for sample in batch(1).samples}) - 1
    again = Learner(plan_of(tiny_model, tmp_path))
    again.update(batch(1))
    torn: list[Torn] = []
    for _ in read(segment, torn=torn):
        pass
    assert [one.path for one in torn] == [segment]
    assert {one.asked for one in entries(tmp_path)} == {sample.id.group.asked for sample in batch(1).samples}


def entry(update: int, length: int = 3) -> TokenEntry:
    asked = AskedId(question_id="q", epoch=update)
    one = asked.group("original", "policy").completion(0)
    floats = {name: np.full(length, update, np.float32) for name in ("policy", "proximal", "ratio", "weight")}
    values = TokenValues(**floats, marks=np.full(length, KEPT, np.uint8))
    return TokenEntry(update=update, asked=asked, values={one: values}, checksums={one: 7})


def test_segments_before_an_update_are_forgotten_and_none_that_holds_a_later_one(tmp_path: Path) -> None:
    folder = recorded(tmp_path) / "rank-0"
    for updates in ((1, 2), (3, 4), (3, 4, 5), (6,)):  # the third is of a learner that came back
        writer = SegmentWriter(folder)
        for update in updates:
            writer.append(to_bytes(entry(update)))
        writer.close()
    forget_before(tmp_path, 3)
    assert sorted({one.update for one in entries(tmp_path)}) == [3, 4, 5, 6]
    forget_before(tmp_path, 5)
    assert [one.update for one in entries(tmp_path)] == [3, 4, 5, 6]
    forget_before(tmp_path, 7)
    assert [one.update for one in entries(tmp_path)] == [6]


def test_a_payload_of_another_kind_is_refused() -> None:
    good = entry(4)
    assert from_bytes(to_bytes(good)).checksums == good.checksums
    (name, values), *_ = good.values.items()
    ragged = dataclasses.replace(values, marks=values.marks[:-1])
    other = dataclasses.replace(values, ratio=values.ratio.astype(np.float64))
    for wrong in (ragged, other):
        with pytest.raises(JournalError, match="cannot be read"):
            from_bytes(to_bytes(dataclasses.replace(good, values={name: wrong})))
    for payload in (b"", b"\x93\x01\x02\x03", to_bytes(good)[:-9]):
        with pytest.raises(JournalError, match="cannot be read"):
            from_bytes(payload)


def test_completions_that_differ_in_a_token_a_version_or_a_probability_have_other_checksums() -> None:
    sample = make_samples(1)[0]
    others = [
        dataclasses.replace(sample, token_ids=sample.token_ids + 1),
        dataclasses.replace(sample, token_versions=sample.token_versions + 1),
        dataclasses.replace(sample, behavior_logprobs=sample.behavior_logprobs - 1),
    ]
    assert len({checksum(one) for one in [sample, *others]}) == 4
