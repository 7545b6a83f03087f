"""The part of the configuration that each of admission, learner and replay buffer needs."""

from __future__ import annotations

from dataclasses import replace

from corewarding.launch.config.schedules import stages
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_directory import RunDir
from corewarding.learner.replay.admission import AdmissionLimits
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.learner.settings import LearnerPlan
from corewarding.learner.token_log.entries import recorded
from corewarding.learner.token_log.plan import TokenLogPlan


def admission_limits(config: TrainConfig) -> AdmissionLimits:
    """The bounds of the pipeline, with those that are scheduled. CapacityError if they would deadlock."""
    return replace(_limits(config), later=tuple((start, _limits(later)) for start, later in stages(config)))


def _limits(config: TrainConfig) -> AdmissionLimits:
    teacher, votes = config.teacher, config.reward_rule.needs_teacher
    return AdmissionLimits(
        questions_per_update=config.train.questions_per_update,
        total_updates=config.train.updates,
        staleness_max=config.staleness.max,
        depth=config.staleness.depth,
        publish_every=config.publish.every_updates,
        label_max=config.label.max_staleness if votes and not teacher.freeze else None,
        teacher_lag=teacher.update_every + teacher.publish_every - 2,
        on_exceed=config.staleness.on_exceed,
        label_on_exceed=config.label.on_exceed,
    )


def learner_plan(config: TrainConfig) -> LearnerPlan:
    """The learner's part of the configuration, with what is scheduled."""
    return replace(_plan(config), later=tuple((start, _plan(later)) for start, later in stages(config)))


def _plan(config: TrainConfig) -> LearnerPlan:
    return LearnerPlan(
        model_path=config.model_folder,
        kl_coef=config.kl_coef,
        kl_reference=config.kl_reference,
        keep_teacher=config.keeps_teacher,
        longest_sequence=config.longest_sequence,
        digest=config.keeps_journal,
        export_dtype=config.checkpoint.model_dtype or config.learner.param_dtype,
        allow_unlisted=config.model.allow_unlisted,
        train=config.train,
        learner=config.learner.model_copy(update={"row_tokens": config.row_tokens}),
        loss=config.loss,
        correction=config.correction,
        teacher=config.teacher,
    )


def token_log(config: TrainConfig) -> TokenLogPlan | None:
    """What the run's own ranks note token by token; None without a journal, which holds the tokens."""
    if not config.keeps_journal or config.run.sample_questions == 0:
        return None
    folder = recorded(RunDir(config.run.root, config.run.name).tokens).absolute()
    return TokenLogPlan(folder=str(folder), questions=config.run.sample_questions)


def buffer_plan(config: TrainConfig, incarnation: int, *, known: tuple[str, ...] = ()) -> BufferPlan:
    """The replay buffer's part of the configuration. known: the questions whose answers labels.budget buys."""
    return BufferPlan(
        rule=config.rule,
        group_size=config.rollout.group_size,
        run_seed=config.train.seed,
        incarnation=incarnation,
        limits=admission_limits(config),
        label_from=config.label.source,
        vote_size=config.rollout.vote_size,
        known=known,
        vote=config.vote,
        rule_options=config.resolved_rule_options,
        normalize=config.advantage.normalize,
        mask_truncated=config.loss.mask_truncated,
        skip_zero_advantage=config.loss.skip_zero_advantage,
        num_sample_questions=config.run.sample_questions,
    )
