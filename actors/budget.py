"""How many failures a run bears, counted in a window of time, so that a long run does not end of old ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 2.0, 60.0


class Budget:
    """Bears `most` failures in any `window_s` seconds."""

    def __init__(self, most: int, window_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.window_s = most, window_s
        self._clock = clock
        self._spent: deque[float] = deque()

    def spend(self) -> int | None:
        """Counts one failure; returns how many the window holds now, or None if that is more than `most`."""
        now = self._clock()
        while self._spent and self._spent[0] <= now - self.window_s:
            self._spent.popleft()
        if len(self._spent) == self.most:
            return None
        self._spent.append(now)
        return len(self._spent)


def backoff_s(number: int) -> float:
    """Seconds to wait before the restart of this number in the window: 0, 2, 4, 8, ... 60. The first failure is often the only one."""
    return 0.0 if number <= 1 else min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** (number - 2))
