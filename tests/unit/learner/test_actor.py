"""Ranks as processes, without Ray: they meet with the key that rank 0 made, on loopback, and answer alike."""

import multiprocessing
import os
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from corewarding.dataflow.codec import decode, encode
from corewarding.learner.actor import LearnerActor
from tests.tiny_models import write_model
from tests.unit.learner.conftest import VOCAB, make_samples
from tests.unit.learner.test_learner import plan_of


def _rank(rank: int, model: str, meeting: "Queue[Any]", answers: "Queue[Any]") -> None:
    os.environ.pop("GLOO_SOCKET_IFNAME", None)
    actor = LearnerActor(
        plan_of(model), rank=rank, world_size=2, incarnation=0, bucket_bytes=1024, wire_dtype="float32"
    )
    if rank == 0:
        point = actor.meeting_point(True)
        meeting.put(point)
    else:
        point = meeting.get(timeout=60)
    list(actor.open(*point))
    logprobs = decode(actor.logprobs(encode(list(make_samples(4))), "policy"))
    listening = {c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}
    answers.put((rank, logprobs, listening))


def test_two_ranks_meet_on_loopback_and_answer_alike(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", tied=True, vocab=VOCAB, spread=0.02)
    context = multiprocessing.get_context("forkserver")
    meeting: Queue[Any] = context.Queue()
    answers: Queue[Any] = context.Queue()
    ranks = [context.Process(target=_rank, args=(rank, model, meeting, answers)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    (_, mine, here), (_, theirs, there) = sorted(
        (answers.get(timeout=200) for _ in ranks), key=lambda answer: answer[0]
    )
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    assert len(mine) == 4
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert {ip.removeprefix("::ffff:") for ip in here | there} == {"127.0.0.1"}
