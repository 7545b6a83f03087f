"""How fast the viewer is with many completions, in headless Chromium.

    python -m benchmarks.view.speed [--completions 50000] [--tokens 200] [--chromium /usr/bin/chromium] [--folder FOLDER]

Writes a run through the real replay buffer and its journal, opens it 5 times without an index and 5 times with one, and prints:
seconds until the first rows are in sight (median and worst), seconds to index, milliseconds from a click on a filter or the end of a
search until the list shows what fits (median and worst; and CPU of the process that serves), until a question is shown, and the size
of the page that --out writes for 2,000 completions.
--folder: keeps the run there, and uses the one that is there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from playwright.async_api import Page, async_playwright

from corewarding.launch.view.export import write_page
from corewarding.launch.view.index import FILE
from corewarding.launch.view.loopback import listening
from corewarding.launch.view.run import ViewedRun
from corewarding.launch.view.search.filters import Filter
from corewarding.launch.view.server import Server
from tests.sampled_run import SampledRun

QUESTIONS, GROUP = 64, 8
SEARCHES = {
    "search": "left over and then take",
    "regular expression": r"(the|two) numbers.*left over\. \\boxed\{4[0-9]\}",
}
FIRSTS = 5
FLAGS = ("wrong label", "truncated", "no label", "swapped in flight")


def write(folder: Path, completions: int, tokens: int) -> None:
    if (folder / "journal").is_dir():
        return
    made = SampledRun(folder, rule="co_rewarding_ii", questions=QUESTIONS, group_size=GROUP, length=tokens)
    updates = -(-completions // (2 * GROUP * QUESTIONS))
    began = time.monotonic()
    made.make(updates)
    size = sum(path.stat().st_size for path in (folder / "journal").iterdir()) / 1e6
    print(
        f"{updates * 2 * GROUP * QUESTIONS} completions, {size:.0f} MB of journal, written in {time.monotonic() - began:.0f} s"
    )


async def first_view(page: Page, server: Server) -> float:
    began = time.monotonic()
    await page.goto(server.address)
    await page.wait_for_selector(".row .marks i", timeout=120_000)
    return time.monotonic() - began


async def changed(page: Page, act: str, value: str) -> float:
    """Milliseconds until the list shows the answer to a new filter."""
    script = """async ([act, value]) => {
        const count = document.querySelector(".count");
        const done = new Promise((resolve) => new MutationObserver((_, seen) => { seen.disconnect(); resolve(); })
            .observe(count, { childList: true }));
        const began = performance.now();
        if (act === "flag") [...document.querySelectorAll("button.chip")].find((one) => one.textContent === value).click();
        else { const box = document.querySelector(".search"); box.value = value; box.dispatchEvent(new Event("input")); }
        await done;
        await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
        return performance.now() - began;
    }"""
    return float(await page.evaluate(script, [act, value]))


async def shown(page: Page) -> float:
    began = time.monotonic()
    await page.keyboard.press("j")
    await page.wait_for_selector(".token")
    passed = time.monotonic() - began
    await page.evaluate("document.querySelector('.detail').replaceChildren()")
    return 1000 * passed


async def told(what: str, acts: Sequence[Callable[[], Awaitable[float]]]) -> None:
    began = time.process_time()
    found = [await act() for act in acts]
    cpu = 1000 * (time.process_time() - began) / len(acts)
    print(
        f"{what:<34} median {statistics.median(found):5.0f} ms, worst {max(found):5.0f} ms; server {cpu:.0f} ms of CPU",
        flush=True,
    )


async def measure(folder: Path, chromium: str) -> None:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for state in ("without an index", "with an index"):
            firsts, read_s = [], 0.0
            for last in (False,) * (FIRSTS - 1) + (True,):
                if state == "without an index":
                    (folder / FILE).unlink(missing_ok=True)
                page = await browser.new_page(viewport={"width": 1400, "height": 900})
                with contextlib.closing(ViewedRun(folder, folder / "journal")) as run:
                    server = Server([run], listening(0))
                    await server.start()
                    began = time.monotonic()
                    run.start(follow=False)
                    firsts.append(await first_view(page, server))
                    while last and not run.is_read:
                        await asyncio.sleep(0.05)
                    read_s = time.monotonic() - began
                    if last and state == "with an index":
                        size, num = write_page(folder.parent / "many.html", [run], Filter(), 2000)
                        print(f"--out: {num} completions in {size / 1e6:.2f} MB")
                        await page.wait_for_timeout(1500)
                        await filters(page)
                    await page.close()
                    await server.close()
            middle, worst = statistics.median(firsts), max(firsts)
            print(
                f"{state}: first view after {middle:.2f} s (worst {worst:.2f}); all is indexed after {read_s:.1f} s",
                flush=True,
            )
        await browser.close()


async def filters(page: Page) -> None:
    for flag in FLAGS:
        await told(f"filter: {flag}", [partial(changed, page, "flag", flag)] * 6)
    words = [SEARCHES["search"] + "x" * k for k in range(5)]
    await told("search, with 75 ms of waiting", [partial(changed, page, "search", word) for word in words])
    await changed(page, "flag", ".*")
    words = [SEARCHES["regular expression"] + "x?" * k for k in range(5)]
    await told("regular expression, the same", [partial(changed, page, "search", word) for word in words])
    await changed(page, "search", "")
    await told("next question, with its tokens", [partial(shown, page)] * 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=50_000)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="view-")) / "many"
    write(folder, arguments.completions, arguments.tokens)
    asyncio.run(measure(folder, arguments.chromium))


if __name__ == "__main__":
    main()
