"""A token for a cluster that a test starts. Without one, Ray looks into the home folder, where a newcomer has none."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import pytest

from corewarding.launch.run.ending.own_ray import forget_token


@contextlib.contextmanager
def a_token() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        forget_token()
        yield
    forget_token()
