"""A rank that loads its part of a model never holds more than that part, two tensors and a little."""

from pathlib import Path

from benchmarks.models.loading import MB, measure, write_model

RANKS = 2
LITTLE = 40 * MB


def test_a_rank_holds_no_more_than_its_part(tmp_path: Path) -> None:
    whole = write_model(tmp_path, 240 * MB, width=512, vocabulary=4000)
    for one in measure(tmp_path, RANKS):
        bound = one.part + 2 * one.largest + LITTLE
        assert one.part <= 0.51 * whole
        assert one.part <= one.peak - one.start <= bound < 0.85 * whole
