"""A job is handed to a cluster that may have just started."""

from pathlib import Path
from typing import Any

import pytest

from corewarding.dataflow.errors import UserError
from corewarding.launch.commands import submit
from corewarding.launch.commands.submit import Submission, start_job

JOB = Submission(address="http://head:8265", entrypoint="train", working_dir=Path("/tmp"), env_vars={})
BUSY = "Request failed with status code 500: No available agent to submit job, please try again later.."


class Client:
    """Answers as Ray's client does: an error for each of `refusals`, then a job id."""

    def __init__(self, *refusals: str) -> None:
        self.refusals = list(refusals)

    def submit_job(self, **_: Any) -> str:
        if self.refusals:
            raise RuntimeError(self.refusals.pop(0))
        return "job-1"


async def test_a_cluster_that_has_just_started_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "RETRY_S", 0.0)
    client: Any = Client(BUSY, BUSY)
    assert await start_job(client, JOB) == "job-1"
    assert client.refusals == []


@pytest.mark.parametrize(("refusal", "patience_s"), [(BUSY, -1.0), ("status code 400: working_dir is too large", 60.0)])
async def test_a_refused_job_is_one_message(monkeypatch: pytest.MonkeyPatch, refusal: str, patience_s: float) -> None:
    monkeypatch.setattr(submit, "START_S", patience_s)
    client: Any = Client(refusal, refusal)
    with pytest.raises(UserError, match=r"head:8265 does not take the job: .*status code"):
        await start_job(client, JOB)
    assert len(client.refusals) == 1
