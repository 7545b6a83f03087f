"""What other settings would have made of the same completions: `corewarding replay RUN --what-if KEY=VALUE`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from corewarding.dataflow.carriers import QuestionRollouts, StepResult, TokenStatistics, TrainBatch
from corewarding.dataflow.codec import decode_list, encode
from corewarding.dataflow.errors import UserError
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.changes import Change
from corewarding.launch.report.files import whole_rows
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.run.plans import buffer_plan
from corewarding.launch.run.protocols import Learner
from corewarding.learner.replay.batching import scored_update, unscored_samples
from corewarding.learner.replay.journal.history import PastUpdate
from corewarding.learner.replay.scoring import Scorer
from corewarding.questions.gold import GoldAnswers

SCORING = ("rule", "rule_options", "vote", "label.source", "labels", "advantage")
SCORING_OF_LOSS = ("loss.skip_zero_advantage", "loss.mask_truncated")
SCHEDULES = "schedules"
LEARNING = (
    *("correction", "loss", "kl", "teacher"),
    *(
        "train.lr",
        "train.schedule",
        "train.warmup_frac",
        "train.betas",
        "train.eps",
        "train.weight_decay",
        "train.grad_clip",
    ),
)


class WhatIfError(UserError):
    """A setting that decided what was sampled, so its other values have no completions."""


@dataclass(slots=True)
class Row:
    """One update with the run's settings and with the others."""

    update: int
    loss: float
    reward: tuple[float, float]  # mean over the trained completions
    labels_changed: float  # share of the trained groups


@dataclass(slots=True, kw_only=True)
class WhatIf:
    """The other settings, and what they made of each update."""

    changes: list[Change]
    config: TrainConfig  # with the changes
    gold: GoldAnswers
    known: tuple[str, ...]
    learner: Learner | None = None  # for rules that need token statistics; set before the first batch
    rows: list[Row] = field(default_factory=list)

    async def batch(self, past: PastUpdate) -> TrainBatch:
        """The batch that these settings make of the update's completions."""
        before = dict(zip(past.scored.groups, past.scored.labels, strict=True))
        mean = float(past.scored.rewards.mean()) if len(past.scored.rewards) else 0.0
        if not rescores(self.changes):
            self.rows.append(Row(past.batch.update, float("nan"), (mean, mean), 0.0))
            return past.batch
        plan = buffer_plan(self.config, past.batch.incarnation, known=self.known)
        scorer = Scorer(plan, self.gold)
        statistics = await self._statistics(scorer, past.rollouts)
        groups = [group for rollouts in past.rollouts for group in scorer.score(rollouts, statistics)]
        changed = [group.label != before.get(group.id) for group in groups]
        rewards = np.concatenate([group.rewards for group in groups])
        self.rows.append(
            Row(
                past.batch.update,
                float("nan"),
                (mean, float(rewards.mean())),
                float(np.mean(changed)) if changed else 0.0,
            )
        )
        return scored_update(plan, past.batch.update, past.rollouts, groups).batch

    def made(self, result: StepResult) -> None:
        """The learner made the update of the last batch."""
        self.rows[-1].loss = result.metrics.scalars.get("loss/total", 0.0)

    async def _statistics(self, scorer: Scorer, rollouts: list[QuestionRollouts]) -> list[TokenStatistics] | None:
        if "token_statistics" not in scorer.rule.needs:
            return None
        assert self.learner is not None, "the learner was not given"
        samples = unscored_samples(scorer.rule, rollouts, self.config.rollout.group_size)
        return decode_list(await self.learner.token_statistics(encode(samples)), TokenStatistics)


def rescores(changes: list[Change]) -> bool:
    """Whether rewards and advantages are to be computed again."""
    return any(_in(change.key, (*SCORING, *SCORING_OF_LOSS)) for change in changes)


def refuse_unsampled(changes: list[Change], *, then: TrainConfig, now: TrainConfig) -> None:
    """WhatIfError for a change that the run's completions cannot answer."""
    for change in changes:
        if change.key in now.schedules:
            raise WhatIfError(
                f"--what-if {change.key}: the run changes this key by schedules; write --what-if '{SCHEDULES}={{{change.key}: "
                f"{{0: {change.new}}}}}', with the run's other schedules"
            )
        if change.key == SCHEDULES:
            refuse_unsampled(_rescheduled(change), then=then, now=now.model_copy(update={SCHEDULES: {}}))
        elif not _in(change.key, (*SCORING, *LEARNING)):
            raise WhatIfError(
                f"--what-if {change.key}: it decided what was sampled or where the run worked, so the journal has no completions for "
                f"another value; keys that can be changed: {', '.join((*SCORING, *LEARNING))}"
            )
    missing = [kind for kind in now.reward_rule.groups if kind not in then.reward_rule.groups]
    if missing:
        words = ", ".join(f"{view}/{source}" for view, source in missing)
        raise WhatIfError(
            f"--what-if rule={now.rule}: it needs the groups {words}, which a run of {then.rule} never samples"
        )
    if "initial_answers" in now.reward_rule.needs:
        raise WhatIfError(
            f"--what-if rule={now.rule}: it needs the initial model's answers, which are not in the journal"
        )


def _rescheduled(change: Change) -> list[Change]:
    """The keys whose schedules differ."""
    keys = sorted({*change.old, *change.new})
    pairs = [(key, change.old.get(key), change.new.get(key)) for key in keys]
    return [Change(key, old, new) for key, old, new in pairs if old != new]


def _in(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def table(what_if: WhatIf, run_dir: RunDir) -> str:
    """One line per update: loss and mean reward then and now, and how many labels have changed."""
    then = {
        row["update"]: row.get("loss/total", float("nan"))
        for row in whole_rows(run_dir.metrics)
        if row.get("kind") == "update"
    }
    lines = ["update  loss then    loss now  reward then  now    labels changed"]
    for row in what_if.rows:
        loss = then.get(row.update, float("nan"))
        lines.append(
            f"{row.update:6}  {loss:9.5f}  {row.loss:9.5f}  {row.reward[0]:11.3f}  {row.reward[1]:5.3f}  {row.labels_changed:.0%}"
        )
    return "\n".join(lines)
