"""The ledger counts every event once and refuses a buffer that lost a completion."""

import numpy as np
import pytest

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup, TrainBatch
from corewarding.learner.objective.advantages import training_samples
from corewarding.learner.replay.events import GroupAccepted, GroupRefused, QuestionEvicted, UpdateScored
from corewarding.learner.replay.ledger import Ledger, LedgerError
from tests.fakes import fake_group


def update_of_one_question() -> UpdateScored:
    """Four policy completions, of which one is withheld, and four of the teacher, which only vote."""
    policy = tuple(fake_group("q", ["1", "1", "2", "3"]))
    teacher = tuple(fake_group("q", ["1"] * 4, source="teacher"))
    asked = policy[0].id.group.asked
    rollouts = QuestionRollouts(asked=asked, groups={group[0].id.group: group for group in (policy, teacher)})
    rewards = np.array([1, 1, 0, 0], np.float32)
    scored = ScoredGroup(
        id=policy[0].id.group, completions=policy, rewards=rewards, label="1", vote=None, abstained=False
    )
    samples = training_samples([scored], normalize="std", mask_truncated=False, skip_zero_advantage=False)
    batch = TrainBatch(incarnation=0, update=1, samples=tuple(samples))
    return UpdateScored(batch=batch, rollouts=[rollouts], groups=[scored], trained=samples[1:], withheld=samples[:1])


def test_each_completion_is_counted_where_it_ends() -> None:
    ledger = Ledger()
    group = fake_group("q", ["1"] * 4)
    for _ in range(4):
        ledger.record(GroupAccepted(completions=group))
    ledger.check(16)
    ledger.record(GroupRefused(reason="duplicate", completions=group))
    ledger.record(QuestionEvicted(asked=group[0].id.group.asked, reason="stale_policy", completions=group))
    ledger.record(update_of_one_question())
    ledger.check(4)
    assert ledger.scalars(4) == {
        "ledger/num_generated": 20,
        "ledger/num_trained": 3,
        "ledger/num_voted_only": 4,
        "ledger/num_withheld": 1,
        "ledger/num_waiting": 4,
        "ledger/num_dropped": 8,
        "ledger/num_failed_questions": 0,
        "dropped/num_duplicate": 4,
        "dropped/num_stale_policy": 4,
    }


@pytest.mark.parametrize("waiting", [3, 5])
def test_a_lost_or_doubled_completion_stops_the_run(waiting: int) -> None:
    ledger = Ledger()
    ledger.record(GroupAccepted(completions=fake_group("q", ["1"] * 4)))
    with pytest.raises(LedgerError, match=rf"generated 4 != .* waiting {waiting}"):
        ledger.check(waiting)


def test_completions_that_waited_at_a_checkpoint_are_lost_after_it() -> None:
    ledger = Ledger()
    ledger.record(GroupAccepted(completions=fake_group("q", ["1"] * 4)))
    restored = Ledger.restore(ledger.state())
    restored.check(0)
    assert restored.dropped == {"lost_incarnation": 4}
