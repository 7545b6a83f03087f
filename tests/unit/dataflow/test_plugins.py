"""Plug-ins: found, loaded once, blamed by file and line; and the tables they register in."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corewarding.dataflow import plugins
from corewarding.dataflow.errors import UserError
from corewarding.dataflow.registry import Registry, UnknownNameError
from corewarding.launch.cli import main
from corewarding.launch.commands.evaluate import EvalArguments, plan_of
from corewarding.launch.config.load import load_config, make_config
from corewarding.rewards.rules.labels import trained_completions, without_label
from corewarding.rewards.rules.table import REWARD_RULES, reward_rule
from tests.unit.rewards.rollouts import context_of, rollouts_of

ROOT = Path(__file__).resolve().parents[3]
RULE = """
import corewarding.rewards.rules.table as table

@table.reward_rule("{name}")
def score(rollouts, context):
    return {returned}
"""


pytestmark = pytest.mark.usefixtures("fresh_tables")


def plugin(folder, name, text):
    path = folder / f"{name}.py"
    path.write_text(text)
    return str(path)


def test_a_file_is_found_beside_the_configuration_and_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    plugin(tmp_path, "beside", RULE.format(name="beside", returned="[]"))
    for entry in ("beside.py", "beside", str(tmp_path / "beside.py")):
        (tmp_path / "mine.yaml").write_text(f"rule: beside\nplugins: [{entry}]")
        config = load_config(tmp_path / "mine.yaml")
        assert config.plugins == (str(tmp_path / "beside.py"),)
        assert config.reward_rule.trained == (("original", "policy"),)


def test_a_file_that_is_not_there_is_named_with_the_places(tmp_path):
    with pytest.raises(plugins.PluginError, match=rf"no file rules/mine\.py \(looked for {tmp_path}/rules/mine\.py"):
        plugins.resolve(["rules/mine.py"], folders=[tmp_path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("x = 1\n\ndef f(:\n", "line 3: SyntaxError: invalid syntax"),
        ("import nowhere_to_be_found\n", "line 1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_blamed_by_file_and_line(tmp_path, text, message):
    path = plugin(tmp_path, "broken", text)
    with pytest.raises(plugins.PluginError) as caught:
        make_config({"plugins": [path]}, where="test")
    assert str(caught.value) == f"plug-in {path} cannot be imported: {path} {message}"


def test_a_module_that_is_not_installed_is_named():
    with pytest.raises(plugins.PluginError, match=r"plug-in no_such_module_of_ours cannot be imported: ModuleNotFound"):
        plugins.load(["no_such_module_of_ours"])


def test_a_failing_rule_is_blamed_by_file_and_line(tmp_path):
    path = plugin(tmp_path, "failing", RULE.format(name="failing", returned="[rollouts.nothing]"))
    config = make_config({"rule": "failing", "plugins": [path]}, where="test")
    with pytest.raises(plugins.PluginError) as caught:
        config.reward_rule.score(object(), object())
    told = "AttributeError: 'object' object has no attribute 'nothing'"
    assert str(caught.value) == f"rule 'failing' failed: {path} line 6: {told}"


def test_another_process_loads_the_list_at_its_first_lookup(tmp_path):
    path = plugin(tmp_path, "elsewhere", RULE.format(name="elsewhere", returned="[]"))
    code = "from corewarding.rewards.rules.table import REWARD_RULES; print(REWARD_RULES['elsewhere'].name)"
    env = os.environ | {plugins.VARIABLE: json.dumps([path]), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "elsewhere", done.stderr


def test_the_copy_that_a_job_carries_is_used_instead_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "SHIPPED", tmp_path)
    path = "/of/another/machine/carried.py"
    (tmp_path / plugins.shipped_name(path)).write_text(RULE.format(name="carried", returned="[]"))
    assert make_config({"rule": "carried", "plugins": [path]}, where="test").plugins == (path,)
    assert path in json.loads(plugins.environment()[plugins.VARIABLE])


def test_names_are_taken_once_but_a_file_may_be_read_again(tmp_path):
    table = Registry("thing")
    table.register("one", 1)
    assert table.named("two")(2) == 2
    table.register("one", 3)  # from the same file
    assert dict(table) == {"one": 3, "two": 2}
    other = compile("table.register('one', 4)", "/elsewhere.py", "exec")
    with pytest.raises(
        UserError, match=r"/elsewhere\.py line 1: thing 'one' is registered already, at .*test_plugins\.py"
    ):
        exec(other, {"table": table, "__name__": "elsewhere"})
    exec(compile("table.register('cell', 1)", "cell 1", "exec"), {"table": table, "__name__": "__main__"})
    exec(compile("table.register('cell', 2)", "cell 2", "exec"), {"table": table, "__name__": "__main__"})
    assert table["cell"] == 2


def test_an_unknown_name_tells_the_nearest_or_all():
    table = Registry("thing")
    table.register("apple", 1)
    table.register("pear", 2)
    with pytest.raises(UnknownNameError, match=r"^thing 'aple' does not exist; did you mean apple\?$"):
        table["aple"]
    with pytest.raises(UserError, match=r"^thing 'x' does not exist; there are apple, pear$"):
        table["x"]
    assert "x" not in table
    assert table.get("x") is None


def test_a_rule_that_only_this_process_has_is_refused():
    code = compile(RULE.format(name="of_a_notebook", returned="[]"), "cell", "exec")
    exec(code, {"__name__": "__main__"})
    assert "of_a_notebook" in REWARD_RULES
    with pytest.raises(UserError, match="save it in a file and name that file in plugins"):
        make_config({"rule": "of_a_notebook"}, where="test")


def test_a_plugin_that_votes_must_score_the_trained_completions_and_no_others():
    rollouts = rollouts_of({("original", "policy"): ["1", "2", "2"]})

    @reward_rule("halves", voters=[("original", "policy")])
    def halves(rollouts, context):
        kept = trained_completions(rollouts, context, ("original", "policy"))
        return [without_label(rollouts, trained=("original", "policy"), rewards=[0.5] * len(kept))]

    @reward_rule("all_of_them", voters=[("original", "policy")])
    def all_of_them(rollouts, context):
        return [without_label(rollouts, trained=("original", "policy"), rewards=[0.5] * 3)]

    (scored,) = REWARD_RULES["halves"].score(rollouts, context_of(train_size=2))
    assert scored.rewards.tolist() == [0.5, 0.5]
    with pytest.raises(UserError, match=r"must score the completions of cw\.trained_completions"):
        REWARD_RULES["all_of_them"].score(rollouts, context_of(train_size=2))


def test_a_need_that_does_not_exist_is_refused_by_name():
    with pytest.raises(UserError, match="rule 'odd': needs 'golds' does not exist; there are gold, token_statistics"):
        reward_rule("odd", needs=["golds"])  # type: ignore[list-item]


@pytest.mark.parametrize("entry", ["one.py", 3])
def test_plugins_must_be_a_list(entry):
    with pytest.raises(UserError, match="plugins must be a list of files or modules"):
        make_config({"plugins": entry if isinstance(entry, str) else [entry]}, where="test")


def test_names_of_plugins_are_in_the_help(tmp_path, capsys):
    path = plugin(tmp_path, "helped", RULE.format(name="helped", returned="[]"))
    (tmp_path / "mine.yaml").write_text(f"plugins: [{path}]")
    for words in (["--help"], [str(tmp_path / "mine.yaml"), "--help"]):
        with pytest.raises(SystemExit):
            main(["train", *words])
    first, second = (text.splitlines()[0] for text in capsys.readouterr().out.split("names:\n")[1:])
    assert first.split()[:2] == ["rule", "ground_truth,"]
    assert "helped" not in first
    assert second.endswith(", helped")


def test_evaluation_sets_of_plugins_are_found_and_the_nearest_name_is_told(tmp_path):
    text = "import corewarding as cw\ncw.evaluation_set('shop', source='shop.csv', samples=3, columns={'question': 'task'})\n"
    path = plugin(tmp_path, "sets", text)
    arguments = EvalArguments(model="models/arithmetic-base", data="shop", plugins=(path,))
    plan = plan_of(arguments)
    assert (plan.data.heldout, plan.data.heldout_columns, plan.samples) == ("shop.csv", {"question": "task"}, 3)
    with pytest.raises(UserError, match=r"--data: evaluation set 'shopp' does not exist; did you mean shop\?"):
        plan_of(dataclasses.replace(arguments, data="shopp"))
