"""Every shipped recipe parses; what cannot be run is refused with key, value and remedy."""

from pathlib import Path
from typing import Any

import pytest

from corewarding.launch.cli import main
from corewarding.launch.commands.train import TrainArguments
from corewarding.launch.config.command_line import parse_config
from corewarding.launch.config.load import load_config, make_config
from corewarding.launch.config.recipes import ConfigError, recipes
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.plans import learner_plan
from corewarding.launch.run.preflight.needs import needed

CPU = str(Path(__file__).resolve().parents[4] / "configs" / "cpu.yaml")


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_parses(name: str) -> None:
    config = load_config(name)
    assert Path(config.run.root).is_absolute()
    assert config.completions_per_update >= config.train.questions_per_update * config.rollout.group_size


def test_a_recipes_line_counts_its_gpus() -> None:
    for name, line in recipes().items():
        gpus = needed(load_config(name)).get("GPU", 0)
        assert f"on {gpus:g} GPUs" in line or (gpus == 1 and "one GPU" in line) or gpus == 0, name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rollout": {"groupsize": 4}}, r"unknown key rollout\.groupsize; did you mean rollout\.group_size\?"),
        ({"rul": "x"}, r"unknown key rul; did you mean rule\?"),
        ({"rule": "co_rewarding_2"}, "did you mean co_rewarding_i"),
        ({"rollout": {"group_size": 1}}, "group of one has no mean"),
        ({"rule_options": {"evol_similarity": "embedding"}}, r"needs rule_options\.evol_embedding_model"),
        ({"rollout": {"vote_size": 4}}, r"vote_size must be at least rollout\.group_size = 8, got 4"),
        ({"rule": "entropy", "rollout": {"vote_size": 64}}, r"vote_size 64: rule entropy elects no label"),
        ({"rule": "entropy", "label": {"from": "teacher"}}, r"rule entropy elects no label .*; remove label\.from"),
        ({"rule": "self_harmony", "label": {"from": "other_view"}}, "it takes policy or teacher"),
        ({"label": {"form": "teacher"}}, r"unknown key label\.form; did you mean label\.from\?"),
        ({"staleness": {"max": 1, "pipeline_depth": 2}}, r"at most staleness\.max = 1, got 2"),
        ({"train": {"lr": -1}}, r"train\.lr: Input should be greater than 0, got -1"),
        ({"data": {"kind": "files"}}, r"needs data\.train"),
        ({"engine": {"kind": "scripted"}}, r"needs engine\.script"),
        ({"engine": {"deterministic": True, "threads": 2}}, r"engine\.threads 1, got embedded and 2"),
        ({"correction": {"mode": "decopled"}}, r"correction\.mode 'decopled' does not exist; did you mean decoupled\?"),
        ({"data": {"reader": "verk"}}, r"data\.reader 'verk' does not exist; did you mean verl\?"),
        ({"correction": {"token_band": [5.0, 0.5]}}, "rising positive"),
        ({"teacher_engine": {"kin": "vllm"}}, r"teacher_engine\.kin does not exist; did you mean kind\?"),
        (
            {"teacher_engine": {"kind": "triton"}},
            r"teacher_engine\.kind: engine kind 'triton' does not exist; there are embedded,",
        ),
        ({"teacher_engine": {"dtype": "bfloat16"}}, r"must be engine\.dtype, float32"),
        (
            {"engine": {"arguments": {"swap_space": 1}}},
            r"engine\.arguments needs engine\.kind vllm or sglang, got embedded",
        ),
        ({"publish": {"backend": "nccl"}}, r"needs a whole GPU for every process, got learner\.gpus_per_rank 0 and"),
        ({"engine": {"tensor_parallel": 2}}, r"tensor_parallel 2 needs engine\.kind vllm or sglang, got embedded"),
        (
            {"engine": {"kind": "vllm", "tensor_parallel": 4}, "rollout": {"gpus_per_actor": 2}},
            r"as many rollout\.gpus_per_actor, got 2",
        ),
        (
            {"engine": {"kind": "vllm", "memory_fraction": 0.3}, "rollout": {"gpus_per_actor": 0.25}},
            r"engine\.memory_fraction 0\.3 is more than an actor's share of a GPU, rollout\.gpus_per_actor 0\.25",
        ),
        (
            {"engine": {"kind": "sglang", "url": "http://x:1"}},
            r"http://x:1 cannot serve policy and teacher, whose weights differ; set teacher_engine\.url",
        ),
        (
            {"engine": {"kind": "sglang", "url": "http://x:1"}, "rollout": {"policy_actors": 2}},
            r"is one server, .* set rollout\.policy_actors 1, got 2",
        ),
        (
            {"engine": {"kind": "sglang", "url": "node3:30000"}},
            r"engine\.url must be like http://node3:30000, got node3",
        ),
        ({"engine": {"kind": "vllm", "url": "http://x:1"}}, r"engine\.url needs engine\.kind sglang, got vllm"),
        ({"engine": {"kind": "vllm", "deterministic": True}}, r"engine\.kind embedded and engine\.threads 1, got vllm"),
    ],
)
def test_mistakes_are_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(content, where="test")


def parse_train(words: list[str]) -> TrainConfig:
    return parse_config(TrainArguments, words, command="train").settings


def test_the_command_line_overrides_any_key() -> None:
    config = parse_train([CPU, "--train.updates", "3", "--staleness.max", "0", "--rule", "majority_vote"])
    assert (config.train.updates, config.staleness.max, config.rule) == (3, 0, "majority_vote")
    assert config.train.lr == pytest.approx(2e-4)  # the file's


def test_key_equals_value_is_yaml_and_mixes_with_flags() -> None:
    words = [
        "engine.arguments={swap: 1}",
        "engine.kind=vllm",
        "data.kind=files",
        "--data.train",
        "a=b",
        "teacher_engine.kind=sglang",
        "--rule",
        "entropy",
    ]
    config = parse_train(["cpu", *words, "train.lr=1e-3", "--dry-run", "vote.fallbacks=[hashes]"])
    assert config.engine.arguments == {"swap": 1}
    assert (config.teacher_engine, config.rule, config.train.lr) == ({"kind": "sglang"}, "entropy", 1e-3)
    assert (config.vote.fallbacks, config.data.train) == (("hashes",), "a=b")
    with pytest.raises(ConfigError, match=r"command line: run\.name: String should match pattern"):
        parse_train(["cpu", "run.name=a=b"])
    with pytest.raises(ConfigError, match=r"command line: unknown key train\.lrr; did you mean train\.lr\?"):
        parse_train(["cpu", "train.lrr=1"])


def test_names_of_plugins_are_in_the_help_and_in_did_you_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fresh_tables: None
) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("import corewarding as cw\n@cw.reward_rule('short_vote')\ndef short_vote(r, c): ...\n")
    with pytest.raises(SystemExit):
        parse_train(["cpu", "--plugins", str(plugin), "--help"])
    assert "restrain, short_vote" in " ".join(capsys.readouterr().out.split())
    config = parse_train(["cpu", "--plugins", str(plugin), "--rule", "short_vote"])
    assert (config.rule, config.plugins) == ("short_vote", (str(plugin),))
    with pytest.raises(ConfigError, match=r"rule 'shortvote' does not exist; did you mean short_vote\?"):
        parse_train(["cpu", f"plugins=[{plugin}]", "rule=shortvote"])


def test_a_recipe_is_named_without_path_and_a_file_with_its_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cpu").write_text("rule: entropy")
    Path("cpu.yaml").write_text("rule: random")
    assert load_config("cpu").rule == "co_rewarding_ii"
    assert load_config("cpu.yaml").rule == load_config("./cpu.yaml").rule == "random"
    assert load_config("./cpu").rule == "entropy"
    with pytest.raises(
        ConfigError,
        match=r"no recipe 'co_rewarding_4'; did you mean co_rewarding_i.*The recipes are cpu, .*needs its suffix",
    ):
        load_config("co_rewarding_4")


def test_a_key_that_occurs_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("rule: entropy\ntrain:\n  lr: 1.0e-3\n  updates: 2\n  lr: 1.0e-4\n")
    with pytest.raises(ConfigError, match=r"key 'lr' occurs twice, in lines 3 and 5"):
        load_config(file)


def test_a_users_mistake_is_one_message_and_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "no-such-file.yaml"]) == 2
    assert capsys.readouterr().err.strip() == "corewarding: no-such-file.yaml: there is no such configuration file"
    assert main(["fly"]) == 2
    assert main(["train"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rollout.group-size", "1"], "command line: rollout.group_size must be at least 2, got 1: a group of one"),
        (["--train.lr", "-1"], "command line: train.lr: Input should be greater than 0, got -1.0"),
        (["--rule", "co_rewarding_iv"], "rule 'co_rewarding_iv' does not exist; did you mean"),
    ],
)
def test_a_bad_override_is_one_line_that_names_the_key(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", CPU, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_unknown_override_is_answered_with_the_nearest_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", CPU, "--trian.lr", "1"]) == 2
    assert "did you mean --train.lr?" in capsys.readouterr().err


def test_labels_from_elsewhere_make_another_rule() -> None:
    from_teacher = parse_train(
        ["cpu", "--rule", "majority_vote", "--label.from", "teacher", "--rollout.vote-size", "16"]
    )
    assert from_teacher.reward_rule.groups == parse_train(["cpu"]).reward_rule.groups
    assert (from_teacher.kl_reference, from_teacher.keeps_teacher) == ("teacher", True)
    assert from_teacher.model_dump()["label"]["from"] == "teacher"
    assert from_teacher.completions_per_update == 32 * (8 + 16)  # the policy's are trained, the teacher's vote
    assert parse_train(["cpu", "label.from=other_view"]).reward_rule.needs_rephrased


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"learner": {"row_tokens": 300}}, 300),
        ({"rollout": {"group_size": 4, "max_new_tokens": 16}, "data": {"max_prompt_tokens": 48}}, 512),
        ({"rollout": {"group_size": 8, "max_new_tokens": 1000}, "data": {"max_prompt_tokens": 200}}, 8200),
        ({"rollout": {"group_size": 8, "max_new_tokens": 3072}, "learner": {"micro_batch_tokens": 16384}}, 16384),
    ],
)
def test_a_row_has_room_for_a_group_unless_the_key_says_otherwise(keys, expected):
    config = make_config({"rule": "majority_vote", **keys}, where="test")
    assert config.row_tokens == expected
    assert learner_plan(config).learner.row_tokens == expected


def test_a_run_whose_kl_term_comes_later_keeps_its_reference() -> None:
    words = ["cpu", "--rule", "majority_vote", "--kl.coef", "0", "--kl.reference", "teacher"]
    assert not parse_train(words).keeps_teacher
    assert not parse_train([*words, "schedules={kl.coef: {3: 0.0}}"]).keeps_teacher
    for later in ("0.1", "null"):  # null: the rule's own
        scheduled = parse_train([*words, f"schedules={{kl.coef: {{3: {later}}}}}"])
        assert scheduled.keeps_teacher
        plan = learner_plan(scheduled)
        assert [plan.of_update(update).kl_coef > 0 for update in (1, 3, 4)] == [False, False, True]
        assert plan.keep_teacher
