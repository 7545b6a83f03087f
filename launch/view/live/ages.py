"""How old the questions of each update were: the histogram staleness/question, from the index of the run's journal."""

from __future__ import annotations

import sqlite3
from collections import Counter

_QUERY = """
SELECT askings.made AS made, askings.made - 1 - min(completions.first) AS age
FROM askings JOIN completions ON completions.n = askings.n
WHERE askings.made > ? AND NOT askings.again AND completions.source = 'policy' AND completions.fate = 'trained'
GROUP BY askings.n
"""


class Ages:
    """Reads on from where it stopped: what an update trained does not change."""

    def __init__(self) -> None:
        self._known: dict[int, Counter[int]] = {}
        self._again = 0

    def read(self, db: sqlite3.Connection) -> dict[int, Counter[int]]:
        """Update to age to the number of questions whose oldest trained token was so old."""
        (again,) = db.execute("SELECT count(*) FROM askings WHERE again").fetchone()
        if again != self._again:  # a later start makes updates again
            self._known, self._again = {}, again
        for made, age in db.execute(_QUERY, (max(self._known, default=0),)):  # an update's questions come all at once
            self._known.setdefault(made, Counter())[max(0, age)] += 1
        return self._known


def strip(ages: dict[int, Counter[int]], step: int) -> list[list[object]]:
    """[update, [[age, number], ...]] of each bucket of `step` updates, at the last of them."""
    buckets: dict[int, Counter[int]] = {}
    for update, found in ages.items():
        buckets.setdefault(-(-update // step), Counter()).update(found)
    last = max(ages, default=0)
    return [
        [min(last, bucket * step), [list(pair) for pair in sorted(found.items())]]
        for bucket, found in sorted(buckets.items())
    ]
