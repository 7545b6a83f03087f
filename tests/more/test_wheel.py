"""The wheel in an environment of its own, used from an empty folder: nothing of a checkout is within reach."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from corewarding.launch.cli import COMMANDS
from tests.more.cluster import ROOT, SMALL, cluster_of, environment

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of an environment that has the wheel and, through a .pth file, the packages of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\n")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    words = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(source)]
    subprocess.run([*pip, *words], check=True)
    (wheel,) = folder.glob("corewarding-*.whl")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    packages = site_packages(python)
    assert {path.name.partition("-")[0] for path in packages.iterdir()} == {"corewarding"}
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def site_packages(python: Path) -> Path:
    (folder,) = (python.parents[1] / "lib").glob("python*/site-packages")
    return folder


@dataclass(frozen=True)
class Installed:
    """Calls the installed command in one empty folder, and returns what it prints."""

    python: Path
    cwd: Path

    def __call__(self, *words: str, code: int = 0) -> str:
        command = [self.python.with_name("corewarding"), *words]
        env = environment(self.python, checkout=None)
        done = subprocess.run(command, cwd=self.cwd, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def run(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(python, tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def trained(run: Installed) -> Path:
    run("train", "cpu", *SMALL, "--run.name", "wheel")
    return run.cwd / "runs" / "wheel"


def test_commands_that_need_no_run(run: Installed) -> None:
    shown = run("--help")
    assert all(f"  {command} " in shown for command in COMMANDS)
    assert run("--version").startswith("corewarding ")
    assert "--endpoint" in run("rephrase", "--help")
    assert "cpu " in run("recipes")
    run("init", "my.yaml", "--from", "cpu")
    assert "0 failed" in run("doctor")


def test_a_recipe_trains_and_its_model_is_evaluated_and_exported(run: Installed, trained: Path) -> None:
    assert json.loads((trained / "summary.json").read_text())["updates"] == 2
    assert "mean@2" in run("eval", str(trained), "--num-questions", "4", "--samples", "2")
    run("export", str(trained), "--out", "model")
    assert (run.cwd / "model" / "config.json").is_file()
    assert "reward rule" in (run.cwd / "model" / "README.md").read_text()
    run("trace", str(trained))


def test_every_process_uses_the_installed_package(trained: Path, python: Path) -> None:
    """The actors' folder on PYTHONPATH shows corewarding alone: an engine's interpreter must not see other site-packages."""
    path = site_packages(python) / "corewarding" / "import_path"
    code = "import corewarding, corewarding.actors.settings as s; print(corewarding.__file__, s.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=trained,
        env={"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == [
        str(site_packages(python) / "corewarding" / name) for name in ("__init__.py", "actors/settings.py")
    ]
    assert [entry.name for entry in path.iterdir()] == ["corewarding"]


def test_submit_sends_the_installed_package(run: Installed, python: Path, tmp_path: Path) -> None:
    env = environment(python, checkout=None)
    with cluster_of(tmp_path, env, python) as address:
        told = run("submit", "cpu", "--address", address, *SMALL, "--run.name", "job")
    assert "update    2/2" in told
    assert json.loads((run.cwd / "runs" / "job" / "summary.json").read_text())["updates"] == 2


def test_the_wheel_has_what_the_checkout_has(python: Path) -> None:
    """Every module and data file of the linked folders, under one name each."""
    installed = site_packages(python) / "corewarding"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\n")
    folders = {path.name for path in (ROOT / "corewarding").iterdir() if path.is_symlink()}
    wanted = {name for name in tracked if name.partition("/")[0] in folders and (ROOT / name).exists()}
    found = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert {
        name
        for name in wanted
        if Path(name).suffix in {".py", ".yaml", ".json", ".safetensors", ".html", ".css", ".js", ".svg"}
    } <= found
