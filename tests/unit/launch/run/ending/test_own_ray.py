"""The folder of Ray's files is this user's alone."""

import stat
from pathlib import Path

import pytest

from corewarding.launch.run.ending.own_ray import OwnRayError, own_folder


def test_the_folder_is_closed_to_others_also_where_it_was_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "new"))
    folder = own_folder()
    assert folder.parent == tmp_path / "new"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    assert own_folder() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_in_its_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    folder = own_folder()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OwnRayError, match=r"belongs to another user; set RAY_TMPDIR"):
        own_folder()
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o700
