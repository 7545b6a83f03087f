"""A span of wall-clock time in which some part of the run did something. Spans make the trace of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time, in seconds since the epoch by the clock of the machine it ran on."""

    lane: str  # where it is drawn: the learner, a weight channel, a rollout actor
    name: str  # its first word is its kind, as in "sample q1/e0/original/policy"
    started_s: float
    ended_s: float
