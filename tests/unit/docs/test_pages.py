"""The pages name keys, commands, flags and names that exist, and the files that they offer can be used as they are."""

import re
import shlex
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import corewarding as cw
from corewarding.launch.commands.train import TrainArguments
from corewarding.launch.config.command_line import parse_config
from corewarding.launch.config.reference import sections

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
KEYS = {key.name for _, _, keys in sections() for key in keys}
SECTIONS = {name for name, _, _ in sections() if name}
PAGES = ["own_data", "own_rule", "first_gpu_run", "cluster", "migrating", "troubleshooting", "tutorial"]


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def keys_in(text: str) -> Iterator[str]:
    """Words in code that look like a key of ours, `section.key` or `section.key: value`."""
    for code in re.findall(r"`([^`\n]+)`", text):
        for section, key in re.findall(r"(?<![\w./-])([a-z_]+)\.([a-z_]+)(?![\w./(])", code):
            if section in SECTIONS:
                yield f"{section}.{key}"


def tables(text: str) -> Iterator[list[str]]:
    """The rows of all tables, without heads, as cells."""
    for row in text.splitlines():
        if row.startswith("| `"):
            yield [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_keys_that_exist(name: str) -> None:
    text = page(name)
    if name == "migrating":  # the first column has the names of others
        text = "\n".join(" ".join(cells[1:]) for cells in tables(text)) + text.split("## From verl")[0]
    known = KEYS | {"model.json", "config.yaml"}
    assert [key for key in keys_in(text) if key not in known] == []


def test_every_row_of_the_migration_has_a_key_of_ours_or_says_that_there_is_none() -> None:
    rows = list(tables(page("migrating")))
    assert len(rows) > 55
    for _, ours, *_ in rows:
        assert ours == "-" or all(key in KEYS for key in re.findall(r"`([^`]+)`", ours)), ours
        assert ours == "-" or "`" in ours
    assert len({cells[0] for cells in rows}) == len(rows)


def test_the_reference_of_python_has_every_public_name_where_it_is() -> None:
    named = dict(re.findall(r"^::: corewarding\.([\w.]+)\.(\w+)$", page("api"), re.MULTILINE))
    listed = {(name, module) for module, name in re.findall(r"^::: corewarding\.([\w.]+)\.(\w+)$", page("api"), re.M)}
    assert named
    assert {name for name, _ in listed} == set(cw.__all__)
    for name, module in listed:
        assert getattr(cw, name).__module__ == f"corewarding.{module}"


def test_the_rule_of_the_page_is_the_example() -> None:
    (rule,) = re.findall(r"^```python\n(.*?)^```", page("own_rule"), re.DOTALL | re.MULTILINE)
    assert rule in (ROOT / "examples" / "custom_rule.py").read_text(encoding="utf-8")


def ray_start_flags() -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, at import
        from ray.scripts.scripts import start
    return {flag for option in start.params if isinstance(option, click.Option) for flag in option.opts}


def test_the_slurm_script_is_bash_and_its_commands_exist() -> None:
    script = DOCS / "cluster" / "slurm.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text().replace("\\\n", " ")
    starts = re.findall(r"ray start (.*)", text)
    assert len(starts) == 2
    for line in starts:
        assert set(re.findall(r"--[\w-]+", line)) <= ray_start_flags(), line
    (train,) = re.findall(r"^corewarding train (.*) &$", text, re.MULTILINE)
    parse_config(TrainArguments, shlex.split(train.replace('"$recipe"', "cpu")), command="train")


def test_the_manifest_has_the_keys_of_a_rayjob_and_its_entrypoint_is_accepted() -> None:
    job: dict[str, Any] = yaml.safe_load((DOCS / "cluster" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) <= {
        "entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec", "runtimeEnvYAML",
        "submissionMode", "activeDeadlineSeconds",
    }  # fmt: skip
    cluster = spec["rayClusterSpec"]
    assert f"ray[default]=={cluster['rayVersion']}" in (ROOT / "pyproject.toml").read_text()
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    resources = {}
    for group in groups:
        assert {f"--{name}" for name in group["rayStartParams"]} <= ray_start_flags()
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        (given,) = shlex.split(group["rayStartParams"].get("resources", "{}"))
        resources |= yaml.safe_load(given)
    program, command, *words = shlex.split(spec["entrypoint"])
    assert (program, command) == ("corewarding", "train")
    config = parse_config(TrainArguments, words, command="train").settings
    assert {*config.rollout.resources, *config.learner.resources} == set(resources)


def test_every_page_is_in_the_navigation() -> None:
    nav = re.findall(r"^ +- [^:]+: (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(nav) == sorted(path.name for path in DOCS.glob("*.md"))
