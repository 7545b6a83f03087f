"""Every tag of a run is declared once, with unit, meaning and healthy range, and docs/metrics.md is made from that."""

import re
from pathlib import Path
from typing import get_args

import pytest

from corewarding.dataflow.ids import SOURCES
from corewarding.evals.heldout import EvalResult
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.board.layout import CHARTS, charts
from corewarding.launch.report.board.reference import COMMAND, reference
from corewarding.launch.report.board.tags import FILE, Tag, UndeclaredTagError, check, declared, tag
from corewarding.launch.report.statistics import RunStatistics, UpdateTimes
from corewarding.learner.objective.advantages import ZeroCause
from corewarding.learner.replay.ledger import Ledger
from corewarding.learner.replay.metrics import Lengths, staleness, zero_advantages
from corewarding.rewards.collapse import SIGNALS
from corewarding.rewards.diagnostics import QUESTION_METRICS

ROOT = Path(__file__).resolve().parents[4]
PACKAGE = ("actors", "evals", "launch", "learner", "rewards")
SOURCE = "\n".join(path.read_text() for folder in PACKAGE for path in sorted((ROOT / folder).rglob("*.py")))
UNITS = {
    "share", "count", "tokens", "updates", "seconds", "nats", "nats per token", "reward", "weight", "loss", "norm", "ratio", "MiB",
    "learning rate", "tokens per second", "completions per second", "pages", "votes",
}  # fmt: skip


def test_the_page_is_what_the_command_writes() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == reference(), f"a tag's declaration changed; run: {COMMAND}"


@pytest.mark.parametrize("one", declared(), ids=lambda one: one.name)
def test_a_declaration_says_what_the_tag_counts_and_what_is_healthy(one: Tag) -> None:
    assert re.fullmatch(r"[a-z_{}]+(/[a-z0-9_{}@]+)?", one.name)
    assert one.unit in UNITS
    assert len(one.text.split()) >= 3
    assert one.text.endswith((".", ")"))
    assert one.healthy
    assert not one.healthy.endswith(".")
    suffixes = {"_frac": "share", "_s": "seconds", "_mb": "MiB"}
    named = next((unit for suffix, unit in suffixes.items() if one.name.endswith(suffix)), None)
    if named is not None and not one.name.endswith("_per_s"):
        assert one.unit == named


@pytest.mark.parametrize("one", declared(), ids=lambda one: one.name)
def test_what_is_declared_is_also_made(one: Tag) -> None:
    quantity = re.sub(r"\\\{\w+\\\}", r"\\{[^}]+\\}", re.escape(one.name.split("/")[-1]))
    assert re.search(rf"[\"/_]{quantity}\"", SOURCE), f"nothing in {PACKAGE} writes {one.name}"


def test_no_tag_is_declared_twice() -> None:
    for one in declared():
        example = one.name.format(
            source="policy",
            channel="policy",
            fate="trained",
            cause="equal",
            reason="duplicate",
            moment="eval",
            n=8,
            k=4,
        )
        assert [other.name for other in declared() if other.one(example)] == [one.name]


def test_a_family_is_filled_in() -> None:
    found = tag("rollout_teacher/tokens_per_s")
    assert "all teacher actors" in found.text
    assert found.on_board == "5_throughput/rollout_teacher/tokens_per_s"
    assert "of 16 sampled" in tag("eval/mean@16").description


@pytest.mark.parametrize(
    "name", ["reward/men", "rollout_policy/speed", "dropped/num_why", "eval/mean@x", "rewards/mean", ""]
)
def test_a_tag_that_is_declared_nowhere_is_refused_with_the_place_to_declare_it(name: str) -> None:
    with pytest.raises(UndeclaredTagError, match=re.escape(str(FILE))):
        check(["reward/mean", name])


def test_the_parts_of_a_run_write_declared_tags_only() -> None:
    """Each part at its widest: every reason, cause and fate. What a run writes is checked where it is written."""
    ledger, times = Ledger(), UpdateTimes(asked=0, began=1, ended=2, published=3)
    ledger.dropped.update(
        {
            "duplicate": 1,
            "unasked": 1,
            "lost_incarnation": 1,
            "stale_policy": 1,
            "stale_label": 1,
            "zero_advantage": 1,
            "failed_task": 1,
        }
    )
    evaluated = EvalResult(num_questions=1, n=8, greedy=0.5, mean=0.5, maj=0.5, pass_at={4: 1.0})
    parts = [
        Lengths().report(),
        staleness([], [], {}, version=0),
        zero_advantages([]),
        times.metrics(),
        RunStatistics().rates(),
    ]
    check(name for part in parts for name in [*part.scalars, *part.histograms])
    check(ledger.scalars(0))
    check(f"eval/{key}" for key, value in evaluated.as_dict().items() if not isinstance(value, list))
    check(SIGNALS.values())
    assert {one.name for one in declared()} >= set(QUESTION_METRICS)
    check(f"advantage/num_zero_{cause}" for cause in get_args(ZeroCause))


def test_a_metric_of_a_plug_in_is_declared_by_its_registration() -> None:
    def digits(_: object) -> list[float]:
        """Digits in an answer."""
        return []

    QUESTION_METRICS.register("mine/digits", digits)
    try:
        assert tag("mine/digits").text == "Digits in an answer."
        assert tag("mine/digits").on_board == "2_labels/mine/digits"
    finally:
        QUESTION_METRICS.unregister("mine/digits")
        tag.cache_clear()


def test_at_most_60_scalars_are_shown_by_default_and_each_page_begins_with_some() -> None:
    shown = [one for one in declared() if one.kind == "scalar" and one.default]
    sizes = {"source": len(SOURCES), "cause": len(get_args(ZeroCause)), "n": 1, "k": 1}
    number = 0
    for one in shown:
        family = 1
        for place in re.findall(r"\{(\w+)\}", one.name):
            family *= sizes[place]
        number += family
    assert number <= 60
    assert {one.page for one in shown} == {one.page for one in declared()}


def test_every_chart_of_the_layout_shows_tags_that_are_shown_by_default() -> None:
    by_name = {one.name: one for one in declared()}
    assert list(CHARTS) == list(dict.fromkeys(one.page for one in declared()))
    assert all(by_name[name].default for pictures in CHARTS.values() for names in pictures.values() for name in names)
    patterns = [re.compile(one) for pictures in charts().values() for tags in pictures.values() for one in tags]
    assert any(one.match("5_throughput/rollout_teacher/idle_frac") for one in patterns)
    assert not any("?P" in one.pattern for one in patterns)  # a browser's expressions name groups in another way


def test_a_healthy_limit_is_in_the_words_and_a_bound_is_a_key() -> None:
    assert tag("correction/ess_frac").healthy.startswith("above 0.9; below 0.5")
    assert (tag("length/truncated_frac").healthy, tag("length/truncated_frac").below) == ("below 0.05", 0.05)
    for one in declared():
        assert one.below is None or one.above is None
        if one.bound is not None:
            section, key = one.bound.split(".")
            assert key in TrainConfig().model_dump()[section]
