"""The budget of failures, with a clock by hand."""

from corewarding.actors.budget import Budget, backoff_s


def test_a_window_bears_so_many_failures_and_forgets_old_ones() -> None:
    now = 100.0
    budget = Budget(2, 10.0, clock=lambda: now)
    assert (budget.spend(), budget.spend(), budget.spend()) == (1, 2, None)
    now = 109.9
    assert budget.spend() is None
    now = 110.0  # both have left the window; what was refused never entered it
    assert (budget.spend(), budget.spend(), budget.spend()) == (1, 2, None)


def test_a_failure_now_and_then_never_uses_a_budget_up() -> None:
    times = iter(range(0, 1000, 6))
    budget = Budget(2, 10.0, clock=lambda: float(next(times)))
    assert [budget.spend() for _ in range(100)] == [1, *[2] * 99]


def test_a_budget_of_nothing_bears_nothing() -> None:
    assert Budget(0, 10.0).spend() is None


def test_the_first_restart_is_at_once_and_five_in_a_row_take_half_a_minute() -> None:
    assert [backoff_s(number) for number in range(1, 6)] == [0.0, 2.0, 4.0, 8.0, 16.0]
    assert backoff_s(10) == backoff_s(1000) == 60.0
