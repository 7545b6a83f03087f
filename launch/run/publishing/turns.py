"""Who may use the learner: one alone, or the transfers of both channels together.

An update and the building of a weight group need the learner for themselves. Transfers may run beside each other, since the weights
stay as they are, but their streams follow one another: a receiver waits only so long for each bucket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class LearnerTurns:
    """Used from one event loop. Whoever waits is let in in order; a transfer may join one under way."""

    def __init__(self) -> None:
        self._held = asyncio.Lock()
        self._entering = asyncio.Lock()
        self._together = 0
        self.stream = asyncio.Lock()
        """Held by a transfer while its weights leave the learner."""

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nobody else uses the learner."""
        async with self._entering, self._held:
            yield

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """The weights stay as they are; others that need no more than that may run, too."""
        async with self._entering:
            if self._together == 0:
                await self._held.acquire()
            self._together += 1
        try:
            yield
        finally:
            self._together -= 1
            if self._together == 0:
                self._held.release()
