"""Each check on a machine that has the fault, and on one that has not."""

import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from corewarding.actors.engines import ENGINES, engine_kind
from corewarding.launch.cli import main
from corewarding.launch.commands import doctor
from corewarding.launch.commands.doctor import Finding
from corewarding.launch.run.preflight.known_holes import holes_of


def statuses(findings: Iterable[Finding]) -> dict[str, str]:
    return {finding.what: finding.status for finding in findings}


def test_this_machine_can_run_without_a_token_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert doctor.doctor(pythons={}, root=".") == 0


def test_an_engines_environment_counts_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = tmp_path / ".venv-vllm"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(sys.executable)  # as while `make engines` still installs
    assert doctor.doctor(pythons={}, root=".") == 0
    (environment / ".installed").touch()
    assert doctor.doctor(pythons={}, root=".") == 1, "whole, but without vLLM"


def test_an_interface_that_is_not_there_fails_and_the_ones_that_are_get_named() -> None:
    (finding, *_) = doctor.network({"GLOO_SOCKET_IFNAME": "nonesuch0"})
    assert finding.status == "fail"
    assert socket.if_nameindex()[0][1] in finding.remedy
    assert "GLOO_SOCKET_IFNAME" not in statuses(doctor.network({"GLOO_SOCKET_IFNAME": "lo"}))


def test_a_proxy_for_loopback_is_named() -> None:
    assert statuses(doctor.proxy({"http_proxy": "http://proxy:3128"}))["http_proxy"] == "warn"
    assert "http_proxy" not in statuses(doctor.proxy({"http_proxy": "http://proxy:3128", "no_proxy": "127.0.0.1"}))


def test_a_cluster_that_does_not_answer_and_a_token_that_is_missing_fail(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]  # taken, and nobody listens
        environment = {
            "RAY_ADDRESS": f"127.0.0.1:{port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(tmp_path / "no"),
        }
        found = statuses(doctor.ray_setup(environment))
        listener.listen()
        assert statuses(doctor.ray_setup({"RAY_ADDRESS": f"127.0.0.1:{port}"}))["RAY_ADDRESS"] == "ok"
    assert found["RAY_ADDRESS"] == found["Ray token"] == "fail"


def test_an_engine_that_cannot_be_imported_fails_with_the_command_to_see_why(tmp_path: Path) -> None:
    (finding,) = doctor.engine("sglang", ENGINES["sglang"], sys.executable)
    assert finding.status == "fail"
    assert sys.executable in finding.remedy
    (finding,) = doctor.engine("vllm", ENGINES["vllm"], str(tmp_path / "no-python"))
    assert finding.status == "fail"


def test_an_engine_of_another_version_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "output_of", lambda *_, **__: "9.9 2.13.0")
    assert next(doctor.engine("vllm", ENGINES["vllm"], "python")) == Finding(
        "vllm",
        "warn",
        "9.9, torch 2.13.0 by python",
        "tested with 0.32.0; make test-engines tests this one",
    )


def test_the_engines_of_the_table_are_checked_and_brackets_are_printed(
    fresh_tables: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # or the table breaks the words
    engine_kind("mine", package="no_such_package", remedy="pip install 'mine[all]'")(lambda context: context)  # type: ignore[arg-type, return-value]
    doctor.doctor(pythons={}, root=".")
    assert "only for engine.kind mine: pip install 'mine[all]'" in capsys.readouterr().out


def test_a_python_of_an_engine_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--python", "vllm=/no/python"]) == 2
    assert "--python vllm=/no/python: there is no such program" in capsys.readouterr().err


@pytest.mark.parametrize(("wanted", "status"), [(1, "ok"), (2**60, "warn")])
def test_space_is_that_of_the_folder_that_will_hold_it(tmp_path: Path, wanted: int, status: str) -> None:
    (finding,) = doctor.space(str(tmp_path / "not" / "yet"), wanted, "more")
    assert finding.status == status
    assert finding.remedy == ("" if status == "ok" else "more")


def test_more_threads_than_cores_is_a_warning() -> None:
    assert statuses(doctor.threads_and_files({"OMP_NUM_THREADS": "4096"}))["OMP_NUM_THREADS"] == "warn"
    assert "OMP_NUM_THREADS" not in statuses(doctor.threads_and_files({"OMP_NUM_THREADS": "1"}))


@pytest.mark.parametrize(
    ("package", "version", "named"),
    [
        ("ray", "2.51.1", ["CVE-2023-48022"]),
        ("ray", "2.52.0", []),
        ("torch", "2.5.1+cu124", ["CVE-2025-32434", "CVE-2026-24747"]),
        ("torch", "2.9.1", ["CVE-2026-24747"]),
        ("torch", "2.10.0a0+git1", []),
        ("vllm", "0.14.0", ["CVE-2026-22778"]),
        ("vllm", "0.14.1.dev3+cpu", []),
        ("sglang", "0.5.9", ["CVE-2026-3059", "CVE-2026-7301"]),
        ("sglang", "0.5.23", []),
        ("vllm", "unknown", []),
    ],
)
def test_versions_with_known_critical_holes_are_named(package: str, version: str, named: list[str]) -> None:
    remedies = [hole.remedy for hole in holes_of(package, version)]
    assert len(remedies) == len(named)
    for remedy, name in zip(remedies, named, strict=True):
        assert name in remedy
        assert f'pip install "{package}>=' in remedy


def test_doctor_refuses_an_installed_version_with_a_known_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda package: {"ray": "2.9.0"}.get(package, "99.0"))
    (finding,) = doctor.known_holes()
    assert (finding.what, finding.status, finding.found) == ("ray", "fail", "2.9.0")
