"""The viewer's page "Run" in a real Chromium: a run that goes on, collapses and fails, seeds, hostile names, and one file."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, expect

from corewarding.dataflow.spans import Span
from corewarding.launch.report.run_lock import run_lock
from tests.more.cluster import environment
from tests.more.view.conftest import CHROMIUM
from tests.more.view.test_page import Viewer
from tests.sampled_run import SampledRun

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here (apt-get install chromium)"),
]
HOSTILE = "<img src=x onerror=window.hacked=1>"
TAG = "<script>window.hacked=1</script>"


def report(folder: Path, update: int, *, no_answer: float = 0.1) -> None:
    """Appends the numbers and spans of one update, as a run does."""
    seed = yaml.safe_load((folder / "config.yaml").read_text())["train"]["seed"]
    row = {
        "reward/mean": 0.1 * update + 0.05 * seed,
        "label/accuracy_frac": 0.8,
        "reward/policy_accuracy_frac": 0.5,
        "vote/no_answer_frac": no_answer,
        "staleness/question_mean": 1.0,
        "time/learner_idle_frac": 0.25,
        TAG: 7.0 + update,
    }
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"update": update, "kind": "update", "time_s": 100.0 + update, **row}) + "\n")
    begin = 10.0 * update
    spans = [
        Span("policy-0", f"sample q{update}/e0/original/policy", begin, begin + 6),
        Span("learner", "wait", begin, begin + 6),
        Span("learner", f"update {update}", begin + 6, begin + 9),
        Span("weights to policy", f"publish {update}", begin + 9, begin + 10),
    ]
    with (folder / "trace.jsonl").open("a") as file:
        file.writelines(json.dumps(asdict(span)) + "\n" for span in spans)


def made(folder: Path, updates: int, *, seed: int = 0, rule: str = "co_rewarding_ii") -> Path:
    with ThreadPoolExecutor(1) as writer:  # playwright has the event loop of this thread
        run = writer.submit(SampledRun, folder, updates=20, seed=seed, rule=rule).result()
        writer.submit(run.make, updates).result()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"train": config["train"] | {"seed": seed}}))
    for update in range(1, updates + 1):
        report(folder, update)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    runs = [made(root / f"mine_seed-{seed}", 4, seed=seed) for seed in (0, 1, 2)]
    return [*runs, made(root / HOSTILE, 3, rule="co_rewarding_iii")]


@pytest.fixture
def viewer(browser: Browser) -> Iterator[Viewer]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    seen = Viewer(page)
    page.on("request", lambda request: seen.asked.append(request.url))
    page.on("console", lambda message: seen.complaints.append(message.text))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    yield seen
    assert seen.complaints == []
    assert page.evaluate("window.hacked") is None
    page.close()


@contextmanager
def viewing(folders: Sequence[Path]) -> Iterator[str]:
    """The address of `corewarding view --follow`."""
    command = [sys.executable, "-m", "corewarding.launch.cli", "view", *map(str, folders), "--follow"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", process.stdout.readline())
        assert found is not None
        yield found[0]
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture(scope="module")
def address(folders: list[Path]) -> Iterator[str]:
    with viewing(folders) as found:
        yield found


def test_seeds_are_a_band_and_hostile_names_are_text(viewer: Viewer, address: str) -> None:
    page = viewer.open(address)
    page.get_by_role("link", name="Run").click()
    expect(page.locator(".group-of")).to_have_text(["mine (3 seeds)", HOSTILE])
    assert "page=run" in page.url
    panel = page.locator(".panel", has_text="is it getting better?").first
    expect(panel.locator(".band")).to_have_count(1)
    expect(panel.locator(".tag b")).to_have_text(["0.45", "0.30"])  # the median of three seeds at update 4; update 3
    expect(panel.locator(".meaning")).to_contain_text("Turn: a lower train.lr")
    expect(page.locator(".panel h3", has_text=TAG)).to_be_visible()
    page.set_viewport_size({"width": 420, "height": 900})
    assert page.evaluate("document.querySelector('.live').scrollWidth <= innerWidth")


def test_a_run_is_followed_until_it_fails(viewer: Viewer, address: str, folders: list[Path]) -> None:
    folder = folders[0]
    with run_lock(folder):
        page = viewer.open(address + "#page=run&run=mine_seed-0")
        state = page.locator(".state").first
        expect(state).to_contain_text("running")
        expect(state).to_contain_text("update 4 of 20")
        for update in (5, 6, 7):
            report(folder, update, no_answer=0.95)
        expect(state).to_contain_text("update 7 of 20", timeout=20_000)
        alarm = page.locator(".alarms > *").first
        expect(alarm).to_contain_text("most completions hold no answer")
        expect(page.locator(".panel.lanes .bar.update").last).to_be_visible()
        (folder / "failure.txt").write_text(f"the learner died {TAG}\n")
    expect(state).to_contain_text("failed", timeout=20_000)
    expect(page.locator(".alarms > *").first).to_contain_text(f"the learner died {TAG}")
    assert {url.split("/")[2] for url in viewer.asked if url.startswith("http")} == {address.split("/")[2]}


def test_a_click_on_an_update_shows_its_samples(viewer: Viewer, address: str) -> None:
    page = viewer.open(address + "#page=run&run=mine_seed-1")
    page.locator(".panel.ages .cell").nth(1).hover()
    expect(page.locator(".panel.ages .told")).to_have_text("update 2, age 1: 4 of 4 questions")
    page.locator(".panel.ages .cell").nth(1).click()
    expect(page.locator(".count")).to_have_text("4 questions of 16")
    expect(page.locator(".updates output")).to_have_text("update 2")
    page.go_back()
    expect(page.locator(".panel.ages .cell").first).to_be_visible()


def test_a_run_that_failed_before_its_first_question_says_why(viewer: Viewer, tmp_path: Path) -> None:
    """And its samples appear when it has started again."""
    folder = tmp_path / "early"
    made(folder, 1)
    kept = {name: tmp_path / name for name in ("journal", "metrics.jsonl", "trace.jsonl")}
    for name, place in kept.items():
        (folder / name).rename(place)
    (folder / "failure.txt").write_text("the model cannot be read\n")
    with viewing([folder]) as found:
        page = viewer.open(found)
        expect(page.locator(".problem")).to_contain_text("the run has asked no question yet")
        expect(page.locator(".count")).to_have_text("0 questions")
        page.get_by_role("link", name="Run").click()
        expect(page.locator(".alarms > *").first).to_contain_text("the model cannot be read")
        for name, place in kept.items():
            place.rename(folder / name)
        page.get_by_role("link", name="Samples").click()
        expect(page.locator(".count")).to_have_text("4 questions", timeout=20_000)
        expect(page.locator(".problem")).to_be_hidden()


def test_the_file_has_the_page_and_asks_for_nothing(viewer: Viewer, folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "run.html"
    command = [sys.executable, "-m", "corewarding.launch.cli", "view", *map(str, folders), "--out", str(out)]
    subprocess.run(command, env=environment(), capture_output=True, check=True)
    assert out.stat().st_size < 5_000_000
    page = viewer.open(out.as_uri() + "#page=run")
    expect(page.locator(".group-of")).to_have_text(["mine (3 seeds)", HOSTILE])
    expect(page.locator(".panel.lanes .bar").first).to_be_visible()
    expect(page.locator(".panel.ages .cell").first).to_be_visible()
    assert {url.partition("#")[0] for url in viewer.asked} == {"about:blank", out.as_uri()} - {"about:blank"}
