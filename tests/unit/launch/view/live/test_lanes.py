"""Lanes by hand: which version an actor samples with, where its bars part, and what the newest updates cover."""

import json
from dataclasses import asdict
from pathlib import Path

from corewarding.dataflow.spans import Span
from corewarding.launch.view.live.lanes import lanes_of, newest_spans

SPANS = [
    Span("weights to policy", "publish 0", 0.0, 1.0),
    Span("policy-0", "sample a/e0/original/policy", 1.0, 3.0),
    Span("policy-0", "sample b/e0/original/policy", 2.0, 5.0),
    Span("learner", "wait", 0.5, 3.0),
    Span("learner", "update 1", 3.0, 4.0),
    Span("weights to policy", "publish 1", 4.0, 4.5),
    Span("policy-0", "sample c/e0/original/policy", 6.0, 8.0),
    Span("learner", "wait", 4.0, 8.0),
    Span("learner", "update 2", 8.0, 9.0),
]


def test_an_actor_samples_with_the_version_that_was_published_last() -> None:
    found = lanes_of(SPANS, 2)
    assert (found["began_s"], found["length_ms"]) == (0.5, 8500)
    lanes = {row["lane"]: row["bars"] for row in found["lanes"]}
    assert list(lanes) == ["learner", "weights to policy", "policy-0"]
    assert lanes["learner"] == [
        ["wait", 0, 2500, None],
        ["update", 2500, 3500, 1],
        ["wait", 3500, 7500, None],
        ["update", 7500, 8500, 2],
    ]
    assert lanes["weights to policy"] == [["publish", 0, 500, 0], ["publish", 3500, 4000, 1]]
    # a and b overlap from 1 to 5, and version 1 was published at 4.5
    assert lanes["policy-0"] == [["sample", 500, 4000, 0], ["sample", 4000, 4500, 1], ["sample", 5500, 7500, 1]]


def test_the_newest_update_alone_begins_with_its_wait() -> None:
    found = lanes_of(SPANS, 1)
    assert (found["began_s"], found["length_ms"]) == (4.0, 5000)
    lanes = {row["lane"]: row["bars"] for row in found["lanes"]}
    assert lanes["policy-0"] == [["sample", 0, 500, 0], ["sample", 500, 1000, 1], ["sample", 2000, 4000, 1]]


def test_no_update_yet() -> None:
    assert lanes_of(SPANS[:3], 3) == {"began_s": 0.0, "length_ms": 0, "lanes": []}


def test_lines_that_are_no_spans_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    assert newest_spans(path) == []
    lines = [json.dumps(asdict(span)) for span in SPANS]
    path.write_text(
        "\n".join(['{"lane": 1, "name": "x", "started_s": 0, "ended_s": 1}', "torn", *lines, lines[0][:20]])
    )
    assert newest_spans(path) == sorted(SPANS, key=lambda span: span.started_s)
