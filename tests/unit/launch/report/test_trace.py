"""Traces written by hand."""

import json

import pytest

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.spans import Span
from corewarding.launch.report.trace import TraceLog, busy, chrome_trace, merged, read_spans, write_trace

SPANS = [
    Span("policy-0", "sample q1/e0/original/policy", 10.0, 12.0),
    Span("policy-0", "sample q2/e0/original/policy", 11.0, 13.0),
    Span("policy-0", "sample q3/e0/original/policy", 13.0, 14.0),
    Span("learner", "update 1", 12.5, 15.0),
]


def test_overlapping_spans_of_a_lane_get_rows_of_their_own_and_the_learner_comes_first():
    events = chrome_trace(SPANS)["traceEvents"]
    assert [event["args"]["name"] for event in events if event["ph"] == "M"] == ["learner", "policy-0"]
    spans = {event["name"]: event for event in events if event["ph"] == "X"}
    assert [spans[f"sample q{i}/e0/original/policy"]["tid"] for i in (1, 2, 3)] == [0, 1, 0]
    assert (spans["update 1"]["ts"], spans["update 1"]["dur"]) == (2_500_000, 2_500_000)


def test_busy_is_the_union():
    assert busy(SPANS, "policy-0") == [(10.0, 14.0)]
    assert merged([(3, 4), (1, 2), (1.5, 2.5)]) == [(1, 2.5), (3, 4)]


def test_what_was_written_is_read_and_drawn(tmp_path):
    log = TraceLog(tmp_path / "trace.jsonl")
    log.write(SPANS)
    log.close()
    assert read_spans(tmp_path / "trace.jsonl") == sorted(SPANS, key=lambda span: span.started_s)
    assert "4 spans" in write_trace(tmp_path, seconds=5)
    assert len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"]) == 6
    assert (tmp_path / "trace.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_a_trace_is_named(tmp_path):
    with pytest.raises(UserError, match="is no run directory"):
        write_trace(tmp_path, seconds=5)


def test_a_half_written_span_of_a_killed_process_is_dropped(tmp_path):
    (tmp_path / "trace.jsonl").write_text('{"lane": "learner", "na')
    log = TraceLog(tmp_path / "trace.jsonl")
    log.write(SPANS[:1])
    log.close()
    assert read_spans(tmp_path / "trace.jsonl") == SPANS[:1]
