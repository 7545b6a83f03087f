"""The viewer's page in a real Chromium, served by the real command from a run whose journal holds hostile texts; and its file."""

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.more.cluster import environment
from tests.more.view.conftest import CHROMIUM
from tests.sampled_run import SampledRun, note

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here (apt-get install chromium)"),
]
HOSTILE = [
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> \\boxed{<b>5</b>}",
    "\x1b[2J\x00\x07 \u202egnorw\u202c \ufeff</div></script><!-- \\boxed{5}",
    "javascript:alert(1) {{constructor.constructor('window.hacked=1')()}} \\boxed{5}",
    "so we " * 175_000 + " the end",
]
FILTERS = [
    "",
    "wrong=1",
    "abstained=1",
    "truncated=1&reward_to=0",
    "reward_from=0.5&update_from=2",
    "differ=sources",
    "differ=views&order=newest",
    "swapped=1&order=reward",
    "fate=waiting",
    "search=LEFT+OVER",
    r"search=take.*boxed\{\d\d\}&regex=1",
    "search=window.hacked",
]


@dataclass
class Viewer:
    """The page, with everything that it asked for and complained about."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, address: str) -> Page:
        self.page.goto("about:blank")
        self.page.goto(address)
        self.page.wait_for_selector("body[data-ready]")
        return self.page

    def filter(self, words: str) -> None:
        """As somebody who changes the address of the page that is open."""
        self.page.evaluate("words => { location.hash = words; }", words)
        self.page.wait_for_function("() => document.querySelector('.count').dataset.shown === location.hash")

    def rows(self) -> list[str]:
        expect(self.page.locator(".row.empty")).to_have_count(0)
        return self.page.locator(".row").all_inner_texts()

    def count(self) -> int:
        return int(self.page.locator(".count").inner_text().split()[0].replace(",", ""))


@dataclass
class Runs:
    """Two runs that a thread of their own writes, because playwright has the event loop of this one."""

    first: SampledRun
    second: SampledRun
    writer: ThreadPoolExecutor

    @property
    def folders(self) -> list[str]:
        return [str(self.first.folder), str(self.second.folder)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    root = tmp_path_factory.mktemp("runs")
    first, second = SampledRun(root / "first"), SampledRun(root / "second", rule="co_rewarding_ii", seed=1)
    with ThreadPoolExecutor(1) as writer:
        writer.submit(first.make, 5).result()
        writer.submit(second.make, 3).result()
        writer.submit(first.wait, HOSTILE).result()
        note(first.folder, 2)
        yield Runs(first, second, writer)


@pytest.fixture(scope="module")
def address(runs: Runs) -> Iterator[str]:
    command = [sys.executable, "-m", "corewarding.launch.cli", "view", *runs.folders, "--follow"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as viewer:
        assert viewer.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", viewer.stdout.readline())
        assert found is not None
        yield found[0]
        viewer.terminate()
        assert viewer.wait(30) == 0


@pytest.fixture
def viewer(browser: Browser) -> Iterator[Viewer]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    made = Viewer(page)
    page.on("request", lambda request: made.asked.append(request.url))
    page.on("console", lambda message: made.complaints.append(message.text))
    page.on("pageerror", lambda error: made.complaints.append(str(error)))
    page.on("dialog", lambda dialog: made.complaints.append(dialog.message))
    yield made
    assert page.evaluate("window.hacked") is None
    page.close()


def test_a_question_is_found_read_and_linked_to(viewer: Viewer, address: str) -> None:
    page = viewer.open(address)
    expect(page.locator(".count")).to_have_text("21 questions")
    page.get_by_role("button", name="wrong label").click()
    expect(page.locator(".count")).to_contain_text("of 21")
    expect(page.locator(".row .badge.bad").first).to_be_visible()
    page.locator(".row").first.click()
    expect(page.locator("h1")).to_contain_text("arith-train")
    expect(page.locator(".verdict.bad").first).to_contain_text("wrong: the answer is")
    expect(page.locator(".group")).to_have_count(4)
    expect(page.locator(".completion")).to_have_count(16)
    token = page.locator(".token").first
    token.hover()
    expect(page.locator(".tip")).to_contain_text("version")
    page.locator("summary").first.click()
    expect(page.locator("dl.reading").first).to_contain_text("found in")
    title = page.locator("h1").inner_text()
    page.keyboard.press("j")
    expect(page.locator("h1")).not_to_have_text(title)
    page.keyboard.press("k")
    expect(page.locator("h1")).to_have_text(title)
    link = page.url
    assert "wrong=1" in link
    viewer.open(link)
    expect(page.locator("h1")).to_have_text(title)
    expect(page.get_by_role("button", name="wrong label")).to_have_attribute("aria-pressed", "true")
    assert {url.split("/")[2] for url in viewer.asked if url.startswith("http")} == {address.split("/")[2]}
    assert viewer.complaints == []


def test_the_next_question_waits_for_rows_that_are_under_way(viewer: Viewer, address: str) -> None:
    page = viewer.page
    page.route("**/api/rows?*", lambda route: (page.wait_for_timeout(500), route.continue_()))
    viewer.open(address + "#wrong=1")
    page.keyboard.press("j")
    expect(page.locator("h1")).to_contain_text("arith-train")


def test_the_slider_and_the_search(viewer: Viewer, address: str) -> None:
    page = viewer.open(address)
    page.get_by_title("later updates").click()
    expect(page.locator(".count")).to_have_text("4 questions of 21")
    expect(page.locator(".updates output")).to_have_text("update 1")
    page.get_by_title("later updates").click()
    expect(page.locator(".updates output")).to_have_text("update 2")
    page.get_by_role("button", name="clear filters").click()
    page.locator(".search").fill("(")
    page.get_by_title("The search is a regular expression").click()
    expect(page.locator(".count")).to_contain_text("no regular expression")


def test_hostile_text_is_shown_as_text_and_does_nothing(viewer: Viewer, address: str) -> None:
    page = viewer.open(address + "#fate=waiting")
    page.locator(".row").first.click()
    expect(page.locator(".completion")).to_have_count(4)
    expect(page.locator(".token").first).to_be_visible()
    for index, words in enumerate(
        ("<script>window.hacked = 1</script><img", "␛[2J␀␇ ⟨202E⟩gnorw", "javascript:alert(1)")
    ):
        expect(page.locator(".completion .text").nth(index)).to_contain_text(words)
    long = page.locator(".completion .text").nth(3)
    expect(long.get_by_role("button")).to_contain_text("show")
    assert len(long.inner_text()) < 100_000
    long.get_by_role("button").click()
    expect(long).to_contain_text("the end")
    assert page.locator("main img, main script, main b > b").count() == 0
    assert viewer.complaints == []


def test_tokens_are_coloured_by_importance_weight_where_the_learner_recorded_them(viewer: Viewer, address: str) -> None:
    page = viewer.open(address + "#update_from=2&update_to=2")
    page.locator(".row").first.click()
    page.get_by_label("colour of tokens").select_option("importance")
    token = page.locator(".group.policy .token.over.cut").first
    assert "rgba(0, 0, 0, 0)" not in token.evaluate("one => getComputedStyle(one).backgroundColor")
    token.hover()
    tip = page.locator(".tip")
    for words in ("log p, learner", "importance ratio1.500", "weight1.500 → 1.250", "losstrained"):
        expect(tip).to_contain_text(words)
    expect(page.locator(".legend.of-importance")).to_be_visible()
    expect(page.locator(".legend.of-version")).to_be_hidden()
    expect(page.locator(".unknown:visible")).to_have_count(0)
    viewer.filter("update_from=3&update_to=3&colour=importance")
    page.locator(".row").first.click()
    expect(page.locator(".unknown").first).to_contain_text("--update 3 --recompute` computes its importance weights")
    assert viewer.complaints == []


def test_two_runs_side_by_side(viewer: Viewer, address: str) -> None:
    page = viewer.open(address + "#id=arith-train-0-000003/e0")
    page.get_by_label("compare with").select_option("second")
    expect(page.locator(".detail.two article")).to_have_count(2)
    expect(page.locator(".run-name")).to_have_text(["first", "second"])
    assert len(set(page.locator("h1").all_inner_texts())) == 1
    viewer.open(page.url)
    expect(page.locator(".detail.two article")).to_have_count(2)


def test_the_file_opens_without_any_request_and_filters_as_the_server(
    viewer: Viewer, browser: Browser, address: str, runs: Runs, tmp_path: Path
) -> None:
    out = tmp_path / "run.html"
    command = [sys.executable, "-m", "corewarding.launch.cli", "view", *runs.folders, "--out", str(out)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert f"{out}: 420 completions" in done.stdout
    assert out.stat().st_size < 5_000_000
    page = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme="dark")
    page.context.set_offline(True)
    alone = Viewer(page)
    page.on("request", lambda request: alone.asked.append(request.url))
    page.on("pageerror", lambda error: alone.complaints.append(str(error)))
    page.on("console", lambda message: alone.complaints.append(message.text))
    viewer.open(address)
    alone.open(out.as_uri())
    for words in FILTERS:
        viewer.filter(words)
        alone.filter(words)
        assert alone.count() == viewer.count() > 0, words
        assert alone.rows() == viewer.rows(), words
    page.locator(".row").first.click()
    expect(page.locator(".token").first).to_be_visible()
    expect(page.locator(".completion .text").first).to_contain_text("<script>window.hacked = 1</script><img")
    assert {url.partition("#")[0] for url in alone.asked} == {out.as_uri()}
    assert alone.complaints == []
    assert page.evaluate("window.hacked") is None
    page.close()


def test_a_run_is_followed(viewer: Viewer, address: str, runs: Runs) -> None:
    page = viewer.open(address + "#run=second")
    before = viewer.count()
    runs.writer.submit(runs.second.make, 1).result()
    expect(page.locator(".count")).to_have_text(f"{before + 4} questions", timeout=20_000)
