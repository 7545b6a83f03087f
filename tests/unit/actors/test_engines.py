"""The table of engine kinds: what a row decides, what is refused before an engine is built, and a kind from outside."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from corewarding.actors.engine import EngineContext, EngineSettingsError, EngineStats
from corewarding.actors.engines import ENGINES, EngineKind, kinds_with, make_engine
from corewarding.actors.settings import EngineSettings
from corewarding.actors.stats import combined, stats_between
from corewarding.dataflow.registry import UnknownNameError


def context_of(**keys: Any) -> EngineContext:
    return EngineContext(settings=EngineSettings(**keys), model_path="no-model", max_model_len=8)


def test_a_kind_from_outside_is_built_from_the_context(fresh_tables: None) -> None:
    ENGINES.register("recording", EngineKind(make=lambda context: [context], takes_url=True))  # type: ignore[arg-type, return-value]
    context = context_of(kind="recording")
    assert make_engine(context) == [context]  # type: ignore[comparison-overlap]
    assert kinds_with("takes_url") == "sglang or recording"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "scripted"}, r"engine\.kind scripted needs engine\.script"),
        (
            {"kind": "scripted", "deterministic": True},
            r"engine\.deterministic needs engine\.kind embedded, got scripted",
        ),
    ],
)
def test_settings_that_do_not_fit_the_kind_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineSettingsError, match=message):
        make_engine(context_of(**keys))


def test_an_unknown_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="engine kind 'vlm' does not exist; did you mean vllm"):
        make_engine(context_of(kind="vlm"))


def test_the_table_is_read_without_torch_ray_or_an_engine() -> None:
    blocked = ("torch", "ray", "transformers", "vllm", "sglang")
    code = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        "from corewarding.actors.engines import ENGINES\nprint(*ENGINES)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["embedded", "vllm", "sglang", "scripted"]


def test_reports_of_two_actors_add_counts_and_average_shares() -> None:
    def at(tokens: int, busy_s: float, idle_s: float) -> EngineStats:
        return EngineStats(
            generated_tokens=tokens, prefill_tokens=0, steps=0, busy_s=busy_s, idle_s=idle_s, swap_s=0.0, running=1, queued=2
        )  # fmt: skip

    first = stats_between(at(100, 1.0, 1.0), at(300, 4.0, 2.0), seconds=4.0)
    second = stats_between(at(0, 0.0, 0.0), at(40, 1.0, 3.0), seconds=4.0)
    both = combined([first, second])
    assert (both["tokens"], both["tokens_per_s"], both["running"], both["queued"]) == (340, 60, 2, 4)
    assert (both["busy_frac"], both["idle_frac"]) == (0.5, 0.5)
    assert combined([]) == {}
