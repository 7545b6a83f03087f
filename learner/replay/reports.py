"""What there is to say of each update's batch. It is made apart from the batch, so that the learner need not wait for it."""

from __future__ import annotations

from functools import partial

from corewarding.dataflow.carriers import UpdateReport
from corewarding.dataflow.metrics import Metrics
from corewarding.learner.replay.events import UpdateScored
from corewarding.learner.replay.metrics import rollout_times, sampling_spans, zero_advantages
from corewarding.learner.replay.sample_log import sample_rows
from corewarding.learner.replay.scoring import BufferPlan, Scorer
from corewarding.questions.gold import GoldAnswers
from corewarding.rewards.diagnostics import reward_diagnostics


class Reports:
    """The batches that were not reported yet."""

    def __init__(self, plan: BufferPlan, gold: GoldAnswers, scorer: Scorer) -> None:
        self._plan, self._gold, self._scorer = plan, gold, scorer
        self._open: dict[int, tuple[UpdateScored, Metrics]] = {}  # by update
        self._newest: tuple[UpdateScored, Metrics] | None = None  # of those that were reported

    def add(self, event: UpdateScored, counted: Metrics) -> None:
        """A batch was made. counted: what was counted at that moment."""
        self._open[event.update] = event, counted

    def make(self, update: int) -> UpdateReport:
        """The report of this update's batch; once, and of the newest one again."""
        if update in self._open:
            self._newest = self._open.pop(update)
        assert self._newest is not None, f"update {update} has no batch to report of"
        event, counted = self._newest
        assert event.update == update, f"the report of update {update} was given"
        gold = partial(self._gold.read, reader="diagnostics")
        return UpdateReport(
            update=update,
            metrics=Metrics.union(
                [
                    reward_diagnostics(event.rollouts, event.groups, gold=gold, key=self._scorer.key),
                    zero_advantages(event.groups),
                    rollout_times(event.rollouts),
                    counted,
                ]
            ),
            rows=sample_rows(
                event.rollouts,
                event.groups,
                update=update,
                num_questions=self._plan.num_sample_questions,
                normalize=self._plan.normalize,
            ),
            spans=sampling_spans(event.rollouts),
        )

    def clear(self) -> None:
        """Forgets all of them."""
        self._open.clear()

    def __contains__(self, update: object) -> bool:
        return update in self._open

    def __len__(self) -> int:
        return len(self._open)
