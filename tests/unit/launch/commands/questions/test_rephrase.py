"""`corewarding rephrase` against a real HTTP server that speaks the protocol, and on an engine that replays replies."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from corewarding.launch.cli import main
from corewarding.questions.load import load_training
from corewarding.questions.readers import read_entries
from corewarding.questions.rephrase import BEGIN, END, rephrase_prompt
from corewarding.questions.settings import DataSettings

QUESTIONS = [
    {"id": "a", "question": "Ann has 12 apples and eats 5 of them. How many apples does she keep?", "answer": "7"},
    {"id": "b", "question": "Bob drives 30 miles on each of 4 days. How far does he drive?", "answer": "120"},
    {"id": "c", "question": "Cy pays 9 coins out of 20. How many coins are left to him?", "answer": "11"},
]
WORDINGS = {
    "Ann": "A basket held 12 pears until 5 were taken out. What number of pears stayed in it?",
    "Bob": "On 4 days in a row somebody travels 30 miles a day. What distance is that?",
    "Cy": "From a purse with 20 coins, 9 are spent. What number of coins does it hold now?",
}


Answer = Callable[[str, int], tuple[int, str]]
Serve = Callable[[Answer], "Server"]


class Server(ThreadingHTTPServer):
    """Answers chat completions by `answer(user message, how often it was asked)`, which returns (status, text)."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked, self.keys, self.lock = answer, Counter(), set(), threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def words(self) -> list[str]:
        return ["--endpoint", f"http://127.0.0.1:{self.server_port}/v1", "--endpoint-model", "served"]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        user = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.asked[user] += 1
            self.server.keys.add(self.headers.get("Authorization"))
            status, text = self.server.answer(user, self.server.asked[user])
        assert (self.path, body["model"]) == ("/v1/chat/completions", "served")
        choices = [{"index": i, "message": {"role": "assistant", "content": text}} for i in range(body["n"])]
        content = json.dumps({"choices": choices} if status == 200 else {"error": text}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr("corewarding.actors.chat.FIRST_BACKOFF_S", 0.01)
    servers = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return path


def wording_of(user: str) -> str:
    return next(wording for name, wording in WORDINGS.items() if name in user)


def good(user: str, _: object) -> tuple[int, str]:
    return 200, f"{BEGIN}{wording_of(user)}{END}"


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def test_a_pair_of_files_that_training_reads(
    serve: Serve, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server, out = serve(good), tmp_path / "out"
    assert main(["rephrase", str(source), "--out", str(out), *server.words]) == 0
    assert server.keys == {"Bearer secret"}
    settings = DataSettings(kind="files", train=str(out / "original.parquet"), rephrased=str(out / "rephrased.parquet"))
    questions = load_training(settings, seed=0, needs_rephrased=True).questions
    assert [(q.id, q.original, q.rephrased) for q in questions] == [
        (row["id"], row["question"], wording) for row, wording in zip(QUESTIONS, WORDINGS.values(), strict=True)
    ]
    answers = [entry.answer for entry in read_entries(str(out / "original.parquet"), key="k", split="train")]
    assert answers == ["7", "120", "11"]
    assert "3 of 3 questions rephrased" in capsys.readouterr().out


def test_bad_replies_are_asked_for_again_and_what_never_comes_is_left_out(
    serve: Serve, source: Path, tmp_path: Path
) -> None:
    def answer(user: str, times: int) -> tuple[int, str]:
        if "Ann" in user:
            return 200, "I would rather not."
        return good(user, times) if "Cy" in user or times > 1 else (200, f"{BEGIN}On 4 days he went 31 miles.{END}")

    server, out = serve(answer), tmp_path / "out"
    assert main(["rephrase", str(source), "--out", str(out), "--attempts", "2", *server.words]) == 0
    assert report(out)["left_out"] == ["a"]
    assert report(out)["refused"] == {"markers": 2, "number lost": 1}
    assert [e.id for e in read_entries(str(out / "rephrased.parquet"), key="k", split="train")] == ["b", "c"]


def test_an_endpoint_that_fails_loses_nothing_and_the_same_command_goes_on(
    serve: Serve, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    down = serve(lambda user, times: good(user, times) if "Ann" in user else (401, "bad key"))
    out = tmp_path / "out"
    words = ["rephrase", str(source), "--out", str(out), "--concurrency", "1", *down.words]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "HTTP 401" in told
    assert "1 of 3 rephrasings are kept" in told
    with (out / "journal.jsonl").open("a") as file:
        file.write('{"id": "b", "att')  # cut off while it was written
    down.answer = good
    assert main(words) == 0
    assert report(out)["kept"] == 3
    assert down.asked[rephrase_prompt(QUESTIONS[0]["question"])] == 1  # what was kept is not asked again


def test_what_passes_is_tried_again(serve: Serve, source: Path, tmp_path: Path) -> None:
    server = serve(lambda user, times: (503, "loading") if times < 3 else good(user, times))
    assert main(["rephrase", str(source), "--out", str(tmp_path / "out"), *server.words]) == 0
    assert set(server.asked.values()) == {3}


def test_wordings_whose_votes_differ_are_refused(serve: Serve, source: Path, tmp_path: Path) -> None:
    def answer(user: str, times: int) -> tuple[int, str]:
        if BEGIN in user:
            return good(user, times)
        bob_reworded = "somebody travels" in user
        return 200, r"so \boxed{34}" if bob_reworded else r"so \boxed{\frac{14}{2}}"

    server, out = serve(answer), tmp_path / "out"
    words = ["rephrase", str(source), "--out", str(out), "--agreement", "3", "--attempts", "1", *server.words]
    assert main(words) == 0
    assert report(out)["left_out"] == ["b"]
    assert report(out)["refused"] == {"answers differ": 1}


def test_an_engine_in_this_process(source: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    rows = [
        {"question": rephrase_prompt(row["question"]), "completions": [f"{BEGIN}{wording}{END}"]}
        for row, wording in zip(QUESTIONS, WORDINGS.values(), strict=True)
    ]
    script.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    words = ["--model", "models/arithmetic-base", "--engine.kind", "scripted", "--engine.script", str(script)]
    assert main(["rephrase", str(source), "--out", str(out), "--max-new-tokens", "300", *words]) == 0
    assert report(out)["kept"] == 3


def test_a_model_that_cannot_rephrase_is_reported_not_hidden(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--model", "models/arithmetic-base", "--max-new-tokens", "24", "--attempts", "1"]
    assert main(["rephrase", str(source), "--out", str(out), *words]) == 1
    assert "none of 3 questions has a rephrasing that can be kept" in capsys.readouterr().err
    assert report(out)["refused"] == {"markers": 3}
    assert not (out / "rephrased.parquet").exists()


def test_mistakes_are_one_message(
    serve: Serve, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, out = serve(good), tmp_path / "out"
    words = ["rephrase", str(source), "--out", str(out)]
    assert main(words) == 2
    assert "needs a model" in capsys.readouterr().err
    assert main([*words, *server.words]) == 0
    assert main([*words, *server.words, "--temperature", "1.0"]) == 2
    assert "differs in temperature" in capsys.readouterr().err
    assert main(["rephrase", str(source), "--out", str(tmp_path), *server.words]) == 2
    assert "is not empty" in capsys.readouterr().err
