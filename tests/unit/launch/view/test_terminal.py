"""`corewarding samples` and `corewarding view --out`, by their commands."""

import json
import re
from pathlib import Path

import pytest

from corewarding.launch.cli import main
from corewarding.launch.view.export import MODULES, STYLES
from corewarding.launch.view.server import PAGE
from tests.sampled_run import SampledRun, note


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = SampledRun(tmp_path_factory.mktemp("runs") / "one")
    made.make(4)
    note(made.folder, 2)
    made.wait(["\x1b[2J \\boxed{3}", "\\boxed{3.0}", "4", "\\boxed{5}"])
    return str(made.folder)


def test_questions_are_printed_with_votes_labels_and_texts(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samples", folder, "--update", "2", "--wrong", "--limit", "1"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^arith-train-\S+/e0  update 2$", told, re.MULTILINE)
    assert re.search(r"^    label \S+, (right|wrong), from (original|rephrased)/teacher$", told, re.MULTILINE)
    assert len(re.findall(r"^    #\d", told, re.MULTILINE)) == 16
    assert re.search(r"^\d questions?.*; 17 in the journal of one$", told, re.MULTILINE)


def test_control_characters_are_written_out(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samples", folder, "--fate", "waiting"]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\\x1b[2J" in told
    assert "policy, original: 3 x 2, 5 x 1 (share 0.67)" in told


def test_json_lines(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samples", folder, "--update-from", "3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["made"] for row in rows] == [3, 3, 3, 3, 4]
    assert all(len(group["completions"]) == 4 for row in rows for group in row["groups"])


def test_tokens_are_printed_with_what_the_learner_made_of_them(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samples", folder, "--update", "2", "--limit", "1", "--tokens"]) == 0
    told = capsys.readouterr().out
    line = re.search(r"^ +0 +v(\d) +(-\d\.\d+) +(-?\d\.\d+) +(-?\d\.\d+) +1\.500 +1\.250  '\S+'$", told, re.MULTILINE)
    assert line is not None
    sampler, learner, proximal = map(float, line.groups()[1:])
    assert learner == proximal == pytest.approx(sampler + 0.405, abs=0.002)
    assert main(["samples", folder, "--update", "3", "--limit", "1", "--tokens"]) == 0
    assert "--update 3 --recompute` computes its importance weights" in capsys.readouterr().out
    assert main(["samples", folder, "--update", "2", "--limit", "1", "--tokens", "--json"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    seen = {(group["source"], one["learnt"] is None) for group in row["groups"] for one in group["tokens"]}
    assert seen == {("policy", False), ("teacher", True)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--recompute makes updates again: say which, with --update 20"),
        (["--update-from", "3"], "say which"),
        (["--update-from", "3", "--update-to", "2"], "comes after"),
    ],
)
def test_updates_to_compute_again_are_named(
    folder: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["samples", folder, "--recompute", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_file_holds_what_fits_and_no_more_than_its_limit(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run.html"
    assert main(["view", folder, "--out", str(out)]) == 0
    assert main(["view", folder, "--out", str(out), "--limit", "100", "--update-to", "4"]) == 0
    assert f"{out}: 96 completions" in capsys.readouterr().out
    page = out.read_text()
    assert "default-src 'none'" in page
    assert "unsafe" not in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert main(["view", folder, "--out", str(out), "--follow"]) == 2
    assert main(["view", folder, "--limit", "7"]) == 2


def test_the_scripts_can_be_put_together() -> None:
    """In one scope, so each name is declared once, and every import is of a module before it."""
    seen: set[str] = set()
    for at, name in enumerate(MODULES):
        path = PAGE / f"{name}.js"
        text = path.read_text()
        imported = re.findall(r'^import \{[^}]*\} from "(\.{1,2}/[a-z/]+)\.js";$', text, re.MULTILINE)
        assert text.count("\nimport ") + text.startswith("import ") == len(imported)
        places = {(path.parent / one).resolve().relative_to(PAGE.resolve()).as_posix() for one in imported}
        assert {"file" if one == "source" else one for one in places} <= set(MODULES[:at]), name
        declared = re.findall(r"^(?:export )?(?:async )?(?:function|const|let) (\w+)", text, re.MULTILINE)
        assert not seen & set(declared), name
        seen.update(declared)
    scripts = {path.relative_to(PAGE).with_suffix("").as_posix() for path in PAGE.rglob("*.js")}
    assert scripts == {*MODULES, "source"}
    assert {path.relative_to(PAGE).with_suffix("").as_posix() for path in PAGE.rglob("*.css")} == set(STYLES)
