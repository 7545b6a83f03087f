"""What `import corewarding` offers: light, documented, with the command's messages."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import corewarding as cw

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_importing_is_light_and_every_name_is_there() -> None:
    code = (
        "import sys, corewarding\n"
        "heavy = {'torch', 'ray', 'numpy', 'pydantic', 'transformers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "for name in corewarding.__all__: assert getattr(corewarding, name).__doc__, name\n"
        "assert not {'torch', 'ray'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(cw.__all__) <= set(dir(cw))
    with pytest.raises(AttributeError, match="no attribute 'majority'"):
        _ = cw.majority


def test_a_vote_reads_well() -> None:
    vote = cw.majority_vote([r"\frac12", "0.5", None, "1/3"])
    assert repr(vote) == r"Vote(answer='\\frac12', share=0.67, votes={'\\frac12': 2, '1/3': 1}, version=0)"


def test_a_recipe_is_changed_key_by_key() -> None:
    base = cw.recipe("cpu")
    changed = base.override(rule="entropy", train={"updates": 7}, rollout={"resources": {"node": 1}})
    assert (changed.config.rule, changed.config.train.updates) == ("entropy", 7)
    assert changed.config.train.lr == base.config.train.lr
    assert changed.override(rollout={"resources": {}}).config.rollout.resources == {}
    assert base.config.rule == "co_rewarding_ii"
    assert "updates: 7" in repr(changed)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": {"update": 7}}, r"override: unknown key train\.update; did you mean train\.updates\?"),
        ({"trian": {"updates": 7}}, r"override: unknown key trian; did you mean train\?"),
        ({"train": {"updates": 0}}, r"override: train\.updates: Input should be greater than or equal to 1, got 0"),
        ({"train": 3}, r"override: train: .*got 3"),
        ({"rule": "entropi"}, r"rule 'entropi' does not exist; did you mean entropy\?"),
        ({"plugins": ["nowhere.py"]}, r"plugins: there is no file nowhere\.py"),
    ],
)
def test_mistakes_are_told_as_the_command_tells_them(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(cw.UserError, match=message):
        cw.recipe("cpu").override(**sections)


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(cw.UserError, match="did you mean cpu"):
        cw.recipe("cpy")


@pytest.fixture
def run(tmp_path: Path) -> cw.Run:
    folder = tmp_path / "mine"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"train": {"updates": 9}}))
    rows = [{"update": 1, "kind": "update", "reward/mean": 0.25}, {"update": 1, "kind": "eval_quick", "greedy": 0.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"update": 2, "ki')
    for update in (1, 2):
        (folder / "samples" / f"update-{update:06d}.jsonl").write_text(
            json.dumps({"update": update, "text": "t"}) + "\n"
        )
    return cw.load_run(folder)


def test_a_run_gives_its_tables(run: cw.Run) -> None:
    assert run.metrics().to_dict("records") == [{"update": 1, "kind": "update", "reward/mean": 0.25}]
    assert list(run.evaluations()["greedy"]) == [0.5]
    assert list(run.samples()["update"]) == [1, 2]
    assert list(run.samples(update=2)["update"]) == [2]
    assert run.recipe.config.train.updates == 9
    assert repr(run) == f"Run({str(run.folder)!r}, not ended)"


def test_tables_are_columns_where_pandas_is_not_installed(run: cw.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert run.metrics() == {"update": [1], "kind": ["update"], "reward/mean": [0.25]}


def test_what_a_run_lacks_is_named(run: cw.Run, tmp_path: Path) -> None:
    with pytest.raises(cw.UserError, match=r"has not ended: summary\.json"):
        _ = run.summary
    with pytest.raises(cw.UserError, match="holds no samples of update 3"):
        run.samples(update=3)
    with pytest.raises(cw.UserError, match="holds no committed checkpoint"):
        _ = run.model
    with pytest.raises(cw.UserError, match=r"is no run directory: it holds no config\.yaml"):
        cw.load_run(tmp_path)


@pytest.mark.parametrize("name", ["vote", "loss_by_hand"])
def test_examples_that_only_calculate(name: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    words = [sys.executable, EXAMPLES / f"{name}.py"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
