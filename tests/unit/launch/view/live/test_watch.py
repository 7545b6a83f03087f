"""The viewer beside a run: there before the run, gone with it, and a viewer that fails ends nothing."""

import http.client
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from corewarding.launch.view.live import watch
from corewarding.launch.view.live.watch import watched
from corewarding.launch.view.live.watching import has_begun
from tests.sampled_run import SampledRun

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def place(printed: str) -> tuple[int, str]:
    found = re.search(r"watch the run: http://127\.0\.0\.1:(\d+)(/\S+/)#page=run", printed)
    assert found is not None
    return int(found[1]), found[2]


def runs(port: int, base: str) -> list[Any]:
    """The answer waits in the line until the viewer has started."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("GET", f"{base}api/runs")
    return list(json.loads(connection.getresponse().read()))


def answers(port: int, base: str) -> bool:
    """One that is only slow fails the test."""
    try:
        runs(port, base)
    except ConnectionError:
        return False
    return True


def test_the_page_is_there_before_the_run_and_gone_after_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with watched(tmp_path / "one"):
        port, base = place(capsys.readouterr().out)
        assert runs(port, base) == []
        SampledRun(tmp_path / "one").make(1)
        deadline = time.monotonic() + PATIENCE_S
        while not (found := runs(port, base)):
            assert time.monotonic() < deadline
        assert found[0]["name"] == "one"
    assert not answers(port, base)
    assert capsys.readouterr().err == ""


def test_a_viewer_that_fails_is_named_when_the_run_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "END_S", PATIENCE_S)
    folder = tmp_path / "one"
    with watched(folder):
        port, base = place(capsys.readouterr().out)
        (folder / "journal").mkdir(parents=True)
        (folder / "config.yaml").write_text("[")
        (folder / "journal" / "segment-000001.cwj").touch()
        deadline = time.monotonic() + PATIENCE_S
        while answers(port, base):
            assert time.monotonic() < deadline
    words = capsys.readouterr().err
    assert "the viewer ended before the run" in words
    assert "config.yaml is empty or garbled" in words


def test_the_journal_of_an_earlier_start_is_not_the_run(tmp_path: Path) -> None:
    segment = tmp_path / "journal" / "segment-000001.cwj"
    assert not has_begun(tmp_path, 100.0)
    segment.parent.mkdir()
    segment.touch()
    os.utime(segment, (99.0, 99.0))
    assert not has_begun(tmp_path, 100.0)
    os.utime(segment, (101.0, 101.0))
    assert has_begun(tmp_path, 100.0)


def test_a_run_without_a_journal_has_begun_with_its_first_numbers(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.touch()
    os.utime(metrics, (99.0, 99.0))
    assert not has_begun(tmp_path, 100.0)
    os.utime(metrics, (101.0, 101.0))
    assert has_begun(tmp_path, 100.0)
