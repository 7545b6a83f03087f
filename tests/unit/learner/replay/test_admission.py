"""Laws of admission, for any order of arrival: the bound always holds, nothing deadlocks, nothing is lost."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewarding.dataflow.ids import AskedId
from corewarding.learner.replay.admission import Admission, AdmissionLimits, CapacityError, LabelOnExceed, OnExceed


def asked(number: int) -> AskedId:
    return AskedId(question_id=f"q{number}", epoch=0)


def admit_all(admission: Admission) -> list[AskedId]:
    new = []
    while admission.room():
        new.append(asked(admission.num_admitted))
        admission.admit(new[-1])
    return new


def test_a_full_pipeline_by_hand() -> None:
    admission = Admission(AdmissionLimits(questions_per_update=2, total_updates=9, staleness_max=1, depth=1))
    first = admit_all(admission)
    assert first == [asked(i) for i in range(4)]  # this update's two and the next one's two
    for one in (first[1], first[2], first[3]):
        admission.mark_ready(one, oldest_policy=0, oldest_teacher=None)
    # three are ready, but leaving q0 behind is fine only while it can still go into the next update, beside one other
    taken = admission.select()
    assert taken == [first[1], first[2]]
    admission.consume(taken)
    assert admission.room() == 0  # nothing new before weights 1 are acknowledged
    assert admission.select() is None  # q0 would be two updates old after this one: the learner waits for it
    assert admission.missing() == [first[0]]
    admission.mark_ready(first[0], oldest_policy=0, oldest_teacher=None)
    assert admission.select() == [first[0], first[3]]


def test_a_synchronous_run_admits_only_after_acknowledgement() -> None:
    admission = Admission(AdmissionLimits(questions_per_update=3, total_updates=2, staleness_max=0, depth=0))
    batch = admit_all(admission)
    assert len(batch) == 3
    for one in batch:
        admission.mark_ready(one, oldest_policy=0, oldest_teacher=None)
    admission.consume(admission.select() or [])
    assert admission.room() == 0
    admission.acknowledge("policy", 1)
    assert admission.room() == 3
    admit_all(admission)
    assert admission.num_admitted == 6
    admission.acknowledge("policy", 2)
    assert admission.room() == 0  # the run is over after two updates


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        ({"depth": 3, "staleness_max": 2}, "staleness.pipeline_depth must be at most staleness.max"),
        ({"depth": 0, "staleness_max": 2, "publish_every": 2}, "publish.every_updates"),
        ({"depth": 2, "staleness_max": 2, "label_max": 2, "teacher_lag": 1}, "label.max_staleness must be at least 3"),
        ({"depth": 4, "staleness_max": 1, "publish_every": 3, "on_exceed": "drop"}, "staleness.max must be at least"),
        (
            {"depth": 2, "staleness_max": 2, "label_max": 1, "teacher_lag": 2, "label_on_exceed": "drop"},
            "label.max_staleness must be at least 2",
        ),
    ],
)
def test_settings_that_would_deadlock_are_refused(limits: dict[str, Any], names: str) -> None:
    with pytest.raises(CapacityError, match=names):
        AdmissionLimits(questions_per_update=4, total_updates=4, **limits)


def test_drop_evicts_what_is_too_old_and_refills_with_exactly_one_new() -> None:
    limits = AdmissionLimits(questions_per_update=1, total_updates=5, staleness_max=1, depth=2, on_exceed="drop")
    admission = Admission(limits)
    first = admit_all(admission)
    assert len(first) == 3
    for update, one in enumerate(first[1:], start=1):  # the straggler q0 does not hold them up
        admission.mark_ready(one, oldest_policy=0, oldest_teacher=None)
        assert admission.select() == [one]
        admission.consume([one])
        assert admission.updates_done == update
    admission.mark_ready(first[0], oldest_policy=0, oldest_teacher=None)
    assert admission.evict() == [(first[0], "stale_policy")]
    # three were asked and two trained: only the dropped one is replaced before weights 1 are acknowledged
    assert admission.room() == 1
    assert first[0] not in admission


def test_a_stale_label_is_dropped_under_its_own_name() -> None:
    limits = AdmissionLimits(
        questions_per_update=1, total_updates=5, staleness_max=9, depth=2, label_max=0, label_on_exceed="drop"
    )
    admission = Admission(limits)
    fresh, stale, _ = admit_all(admission)
    admission.mark_ready(fresh, oldest_policy=0, oldest_teacher=0)
    admission.consume(admission.select() or [])
    admission.mark_ready(stale, oldest_policy=0, oldest_teacher=0)
    assert admission.evict() == [(stale, "stale_label")]


def test_withhold_never_waits_and_never_evicts() -> None:
    limits = AdmissionLimits(questions_per_update=1, total_updates=5, staleness_max=0, depth=2, on_exceed="withhold")
    admission = Admission(limits)
    for one in admit_all(admission):
        admission.mark_ready(one, oldest_policy=0, oldest_teacher=None)
        assert admission.select() == [one]
        admission.consume([one])
        assert admission.evict() == []
    assert admission.updates_done == 3


@st.composite
def pipelines(draw: st.DrawFn) -> AdmissionLimits:
    depth = draw(st.integers(0, 4))
    publish_every = draw(st.integers(1, depth + 1))
    on_exceed: OnExceed = draw(st.sampled_from(["wait", "drop", "withhold"]))
    label_on_exceed: LabelOnExceed = draw(st.sampled_from(["wait", "drop"]))
    teacher = draw(st.booleans())
    lag = draw(st.integers(0, 3)) if teacher else 0
    least = depth if on_exceed == "wait" else publish_every - 1
    least_label = (depth if label_on_exceed == "wait" else publish_every - 1) + lag
    return AdmissionLimits(
        questions_per_update=draw(st.integers(1, 5)),
        total_updates=draw(st.integers(1, 12)),
        staleness_max=least + draw(st.integers(0, 3)),
        depth=depth,
        publish_every=publish_every,
        label_max=least_label + draw(st.integers(0, 2)) if teacher else None,
        teacher_lag=lag,
        on_exceed=on_exceed,
        label_on_exceed=label_on_exceed,
    )


@st.composite
def schedules(draw: st.DrawFn) -> AdmissionLimits:
    """Bounds and depths that change at any updates, wider or tighter."""
    first = draw(pipelines())
    later = []
    for start in sorted(draw(st.sets(st.integers(0, first.total_updates), max_size=3))):
        depth = draw(st.integers(first.publish_every - 1, first.publish_every + 3))
        if first.label_max is not None and first.label_on_exceed == "wait":
            depth = min(depth, first.label_max - first.teacher_lag)
        least = depth if first.on_exceed == "wait" else first.publish_every - 1
        later.append((start, dataclasses.replace(first, depth=depth, staleness_max=least + draw(st.integers(0, 3)))))
    return dataclasses.replace(first, later=tuple(later))


def test_a_tightened_bound_holds_for_the_questions_of_later_updates() -> None:
    tight = AdmissionLimits(questions_per_update=2, total_updates=9, staleness_max=0, depth=0)
    admission = Admission(dataclasses.replace(tight, staleness_max=2, depth=2, later=((2, tight),)))
    early = admit_all(admission)
    assert len(early) == 4  # of updates 1 and 2; the third's start only when its own bound lets them
    for one in early:
        admission.mark_ready(one, oldest_policy=0, oldest_teacher=None)
    admission.consume(admission.select() or [])
    admission.acknowledge("policy", 1)
    assert admission.room() == 0
    admission.consume(admission.select() or [])  # one update old, as its bound allows
    admission.acknowledge("policy", 2)
    assert len(admit_all(admission)) == 2


def test_a_widened_depth_lets_the_next_updates_start() -> None:
    narrow = AdmissionLimits(questions_per_update=1, total_updates=9, staleness_max=0, depth=0)
    admission = Admission(
        dataclasses.replace(narrow, later=((1, dataclasses.replace(narrow, staleness_max=2, depth=2)),))
    )
    assert len(admit_all(admission)) == 3  # of update 1, and of 2 and 3, whose depth is 2


@given(limits=st.one_of(pipelines(), schedules()), data=st.data())
def test_any_order_of_arrival_ends_within_the_bounds_for_every_on_exceed(
    limits: AdmissionLimits, data: st.DataObject
) -> None:
    """Order of arrival and (possible) token ages are arbitrary; the run ends within the bounds with nothing left over."""
    admission = Admission(limits)
    flying: list[tuple[AskedId, int, int]] = []
    ages: dict[AskedId, tuple[int, int]] = {}
    trained: list[AskedId] = []
    evicted: list[AskedId] = []
    given_up: list[AskedId] = []
    bounds: dict[AskedId, int] = {}
    while admission.updates_done < limits.total_updates:
        first = admission.num_admitted - admission.num_evicted
        new = admit_all(admission)
        bounds |= {
            one: limits.at((first + place) // limits.questions_per_update).staleness_max
            for place, one in enumerate(new)
        }
        flying += [(one, admission.acknowledged["policy"], admission.acknowledged["teacher"]) for one in new]
        taken = admission.select()
        if taken is not None and (not flying or data.draw(st.booleans())):
            for one in taken:
                policy, teacher = ages[one]
                assert limits.on_exceed == "withhold" or admission.updates_done - policy <= bounds[one]
                if limits.label_max is not None:
                    assert admission.updates_done - teacher <= limits.label_max
            admission.consume(taken)
            trained += taken
            done = admission.updates_done
            if done % limits.publish_every == 0:
                admission.acknowledge("teacher", max(admission.acknowledged["teacher"], done - limits.teacher_lag))
                admission.acknowledge("policy", done)
        else:
            assert flying, "nothing in flight and nothing to select: a deadlock"
            one, policy, teacher = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
            if len(given_up) < 3 and data.draw(st.integers(0, 7)) == 0:
                assert admission.give_up(one)
                assert not admission.give_up(one)
                given_up.append(one)
                continue
            policy = data.draw(st.integers(policy, admission.acknowledged["policy"]))
            teacher = data.draw(st.integers(teacher, admission.acknowledged["teacher"]))
            ages[one] = (policy, teacher)
            admission.mark_ready(
                one, oldest_policy=policy, oldest_teacher=None if limits.label_max is None else teacher
            )
        evicted += [one for one, _ in admission.evict()]
    total = limits.total_updates * limits.questions_per_update
    assert len(trained) == total
    assert admission.num_admitted == total + len(evicted) + len(given_up) + len(admission.pending())
    assert len({*trained, *evicted, *given_up}) == total + len(evicted) + len(given_up)
    if "drop" not in (limits.on_exceed, limits.label_on_exceed):
        assert not evicted
        assert not admission.pending()
