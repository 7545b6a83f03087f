"""Keys, votes, rewards, packing, objective, learner and sampler on fixed inputs are as recorded (tests/recorded)."""

from __future__ import annotations

from tests.recorded.record import differences


def test_all_numbers_are_as_recorded() -> None:
    assert differences() == []
