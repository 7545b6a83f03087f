"""The samples of the questions that an update takes."""

from __future__ import annotations

from collections.abc import Sequence

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup, TrainBatch, TrainingSample
from corewarding.learner.objective.advantages import training_samples
from corewarding.learner.replay.events import UpdateScored
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.rewards.rules.contract import RewardRule


def unscored_samples(rule: RewardRule, taken: Sequence[QuestionRollouts], group_size: int) -> list[TrainingSample]:
    """The completions that will be trained, with advantage 0, sorted by id."""
    samples = [
        TrainingSample.of(completion, advantage=0.0)
        for rollouts in taken
        for view, source in rule.trained
        for completion in rollouts.group(view, source)[:group_size]
    ]
    return sorted(samples, key=lambda sample: sample.id)


def scored_update(
    plan: BufferPlan, update: int, taken: Sequence[QuestionRollouts], groups: Sequence[ScoredGroup]
) -> UpdateScored:
    """The batch of `update`. taken: its questions, in the order of admission. groups: their trained groups."""
    limits = plan.limits.at(update - 1)
    samples = training_samples(
        groups,
        normalize=plan.normalize,
        mask_truncated=plan.mask_truncated,
        skip_zero_advantage=plan.skip_zero_advantage,
        mask_abstained=plan.vote.on_abstain == "mask",
        oldest_version=update - 1 - limits.staleness_max if limits.on_exceed == "withhold" else 0,
    )
    return UpdateScored(
        batch=TrainBatch(incarnation=plan.incarnation, update=update, samples=tuple(samples)),
        rollouts=taken,
        groups=groups,
        trained=[sample for sample in samples if sample.loss_mask.any()],
        withheld=[sample for sample in samples if not sample.loss_mask.any()],
    )
