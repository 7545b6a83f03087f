"""Recipes are composed of parts: who sets which key, what overrides what, and how a mistake is named."""

from pathlib import Path

import pytest
import yaml

from corewarding.launch.cli import main
from corewarding.launch.config.load import load_config
from corewarding.launch.config.paths import RECIPES
from corewarding.launch.config.recipes import ConfigError, compose, parts, recipes, render


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_every_file_has_one_name_and_a_first_line() -> None:
    files = [path for path in RECIPES.rglob("*.yaml") if path.is_file()]
    named = [*recipes(), *parts()]
    assert len(files) == len(named) == len(set(named))
    assert all(path.read_text().startswith("# ") for path in files)
    used = {file for name in recipes() for file in compose(name).files}
    assert used == set(files)  # no part is left over


def test_the_recipes_cover_rules_data_sets_models_and_hardware() -> None:
    configs = {name: load_config(name) for name in recipes()}
    baselines = {"majority_vote", "self_certainty", "entropy", "random", "ground_truth"}
    assert {config.rule for config in configs.values()} >= {
        "co_rewarding_i",
        "co_rewarding_ii",
        "co_rewarding_iii",
        *baselines,
    }
    for rule in ("co_rewarding_i", "co_rewarding_ii", "co_rewarding_iii"):
        trained_on = {str(config.data.train) for config in configs.values() if config.rule == rule}
        assert trained_on >= {f"data/{name}_original.parquet" for name in ("math", "dapo14k", "openrs")}
    for name, config in configs.items():
        assert config.run.name == name.replace("_", "-")
        assert config.data.kind == "arithmetic" or config.data.heldout, f"{name} would evaluate on nothing"


def test_own_keys_override_bases_and_every_key_knows_its_file(tmp_path: Path) -> None:
    write(tmp_path, "sizes.yaml", "train: {updates: 7, lr: 1.0e-3}\nrollout: {group_size: 4}\n")
    mine = write(tmp_path, "mine.yaml", "base: [sizes.yaml, data/math]\ntrain: {updates: 9}\nrule: entropy\n")
    composed = compose(mine)
    assert composed.content()["train"] == {"updates": 9, "lr": 1e-3}
    assert composed.content()["rollout"] == {"group_size": 4}
    assert composed.settings["train", "lr"].file == tmp_path / "sizes.yaml"
    assert composed.settings["train", "updates"].file == mine
    assert composed.description() == f"{mine} = {tmp_path / 'sizes.yaml'} + data/math"
    assert load_config(mine).run.name == "run"


def test_plus_composes_from_left_to_right_and_names_the_run(tmp_path: Path) -> None:
    config = load_config("co_rewarding_iii+data/dapo+models/qwen3_4b")
    assert (config.rule, config.model.path) == ("co_rewarding_iii", "Qwen/Qwen3-4B-Base")
    assert (config.data.train, config.train.updates) == ("data/dapo14k_original.parquet", 330)
    assert config.run.name == "co-rewarding-iii-dapo-qwen3-4b"
    assert config == load_config("co_rewarding_iii_dapo+models/qwen3_4b").model_copy(update={"run": config.run})
    odd = write(tmp_path, "a+b.yaml", "rule: random\n")
    assert load_config(odd).rule == "random"


def test_a_rendered_recipe_is_the_recipe(tmp_path: Path) -> None:
    for name in recipes():
        text = render(compose(name))
        assert load_config(write(tmp_path, "copy.yaml", text)) == load_config(name)
        assert "base" not in yaml.safe_load(text)
    assert "lr: 3.0e-06  # training/paper" in text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.yaml": "base: [b.yaml]", "b.yaml": "base: [c.yaml]", "c.yaml": "base: [b.yaml]"},
            r"circle: .*b.yaml -> .*c.yaml -> .*b.yaml",
        ),
        ({"a.yaml": "base: [a.yaml]"}, r"goes in a circle"),
        ({"a.yaml": "base: [data/mathe]"}, r"base 'data/mathe' does not exist; did you mean data/math\?"),
        ({"a.yaml": "base: [xyz]"}, r"base 'xyz' does not exist; there are data/dapo, .*ends in .yaml"),
        ({"a.yaml": "base: [other.yaml]"}, r"base other.yaml: there is no such file \(looked for "),
        ({"a.yaml": "base: {x: 1}"}, r"base must be a list of files, .* got \{'x': 1\}"),
        ({"a.yaml": "base: [b.yaml]", "b.yaml": "- 1"}, r"b.yaml: the top level must be keys, got a list"),
        ({"a.yaml": "base: [b.yaml]", "b.yaml": "train: 3"}, r"b.yaml: train: must be keys with values, got 3"),
        ({"a.yaml": "base: [b.yaml]", "b.yaml": "trian: {lr: 1}"}, r"unknown key trian; did you mean train\?"),
        (
            {"a.yaml": "base: [b.yaml, c.yaml]", "b.yaml": "train: {lr: 1.0}", "c.yaml": "train: {lr: 2.0}"},
            r"a.yaml: two bases set train.lr: .*b.yaml \(1.0\) and .*c.yaml \(2.0\); set it in .*a.yaml, or leave one",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_bases_are_named(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in files.items():
        write(tmp_path, name, text + "\n")
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "a.yaml")


def test_two_bases_may_share_a_base_and_the_file_settles_what_they_disagree_on(tmp_path: Path) -> None:
    write(tmp_path, "low.yaml", "train: {lr: 1.0}\n")
    write(tmp_path, "b.yaml", "base: low.yaml\nrule: entropy\n")
    write(tmp_path, "c.yaml", "base: low.yaml\ntrain: {updates: 2}\n")
    assert load_config(write(tmp_path, "a.yaml", "base: [b.yaml, c.yaml]\n")).train.lr == 1.0
    write(tmp_path, "c.yaml", "train: {lr: 2.0}\n")
    settled = write(tmp_path, "a.yaml", "base: [b.yaml, c.yaml]\ntrain: {lr: 3.0}\n")
    assert load_config(settled).train.lr == 3.0


def test_a_part_alone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "data/dapo"]) == 2
    assert "is a part of recipes, not a recipe; add it to one: co_rewarding_ii+data/dapo" in capsys.readouterr().err


def test_the_command_shows_a_recipes_keys_with_their_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "co_rewarding_i_dapo"]) == 0
    shown = capsys.readouterr().out
    assert "co_rewarding_i_dapo = training/paper + models/qwen3_8b + data/dapo + hardware/8_gpus" in shown
    assert "updates: 330  # data/dapo" in shown
    assert main(["recipes", "co_rewarding_4"]) == 2


def test_a_rule_that_asks_one_wording_needs_no_file_of_the_other() -> None:
    assert load_config("co_rewarding_ii").asked_data.rephrased is None
    assert load_config("co_rewarding_iii").asked_data.rephrased == "data/math_rephrased.parquet"
