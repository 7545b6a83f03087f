"""Several carriers of one class travel as columns: they come back unchanged, equal ones as equal bytes; bad columns are refused."""

import contextlib
import copy
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corewarding.dataflow import codec
from corewarding.dataflow.carriers import Completion, Question, Timings, TrainingSample
from corewarding.dataflow.codec import CodecError, decode, encode
from corewarding.dataflow.ids import AskedId, CompletionId
from corewarding.dataflow.spans import Span
from tests.unit.dataflow.test_codec import MIB, carrier, same

GROUP = AskedId(question_id="q", epoch=3).group("original", "policy")


def completions(num: int, *, length: int = 20) -> list[Completion]:
    prompt = np.arange(40, dtype=np.int32)
    return [
        Completion(
            id=GROUP.completion(index),
            incarnation=0,
            attempt=0,
            prompt_token_ids=prompt,
            token_ids=np.arange(length + index, dtype=np.int32),
            behavior_logprobs=-np.ones(length + index, np.float32),
            token_versions=np.full(length + index, 7, np.int32),
            temperature=1.0,
            text=f"answer {index}",
            answer=str(index),
            finish_reason="stop",
            actor_id="policy-0",
            timings=Timings(submitted_s=1.0, started_s=2.0 + index, finished_s=3.0 + index),
        )
        for index in range(num)
    ]


@pytest.mark.parametrize("cls", codec.CARRIERS.values(), ids=codec.CARRIERS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_several_carriers_come_back(cls: type, data: st.DataObject) -> None:
    different = data.draw(st.lists(carrier(cls), min_size=1, max_size=3))
    picked = data.draw(st.lists(st.sampled_from(different), min_size=2, max_size=9))
    for message in (picked, tuple(picked), {"inside": tuple(picked)}, [picked, 1]):
        assert same(decode(encode(message)), message)
        assert same(decode(encode(message, columns=False)), message)


@pytest.mark.parametrize("cls", codec.CARRIERS.values(), ids=codec.CARRIERS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_equal_carriers_have_equal_bytes_whichever_objects_they_share(cls: type, data: st.DataObject) -> None:
    one = data.draw(carrier(cls))
    shared = [one, one, one]
    assert encode(shared) == encode([copy.deepcopy(one) for _ in shared]) == encode(decode(encode(shared)))


def test_what_a_group_has_in_common_is_sent_once() -> None:
    group = completions(8)
    each = [len(encode(one)) for one in group]
    in_common = group[0].prompt_token_ids.nbytes + len(encode(group[0].id.group))
    assert len(encode(group)) < sum(each) - 7 * in_common
    found = decode(encode(group))
    assert all(one.prompt_token_ids is found[0].prompt_token_ids and one.id.group is found[0].id.group for one in found)


def test_floats_that_are_equal_and_not_the_same_come_back() -> None:
    spans = [Span(lane="a", name="b", started_s=value, ended_s=1.0) for value in (0.0, -0.0, 0.0)]
    assert [str(span.started_s) for span in decode(encode(spans))] == ["0.0", "-0.0", "0.0"]


def columns_bytes(*parts: Any) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(4, encode(list(parts))))
    return packed


TWO = np.zeros(2, np.int32).tobytes()
NAMES = [AskedId(question_id="q", epoch=epoch) for epoch in (0, 1)]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("os", 2, []), "unknown carrier 'os'"),
        (("Question", 2, [[0, "q"]]), "Question has 3 fields, the message 1"),
        (("Question", -1, [[0, "q"]] * 3), "no columns of 'Question'"),
        (("Question", True, [[0, "q"]] * 3), "no columns of 'Question'"),
        (("Question", 2, "abc"), "no columns of 'Question'"),
        (("Question", 2), "positional argument"),
        (("Question", 2**62, [[0, "q"]] * 3), "too many"),
        (("Question", 2, [[0, "q"], [0, 7], [0, None]]), "Question.original cannot be a int"),
        (("Question", 2, [[0, "q"], [3, ["a", 7]], [0, None]]), "Question.original cannot be a int"),
        (("Question", 2, [[0, "q"], [3, ["a"]], [0, None]]), "no column of 2 values"),
        (("Question", 2, [[0, "q"], [0, {}], [0, None]]), "no column of 2 values"),
        (("Question", 2, [[0, "q"], [9, ["a", "b"]], [0, None]]), "no column of 2 values"),
        (("Question", 2, [[0, "q"], [], [0, None]]), "no column of 2 values"),
        (("Question", 2, [[0, "q"], 5, [0, None]]), "no column of 2 values"),
        (("Question", 2, [[0, "q"], [1, ["a"], [0, 0]], [0, None]]), "neither an array nor a name"),
        (("GroupId", 2, [[1, NAMES, [0, 2]], [0, "original"], [0, "policy"]]), "shares more values"),
        (("GroupId", 2, [[1, NAMES, [0, -1]], [0, "original"], [0, "policy"]]), "shares more values"),
        (("GroupId", 2, [[1, NAMES, [0, True]], [0, "original"], [0, "policy"]]), "shares more values"),
        (("GroupId", 2, [[1, NAMES, [0]], [0, "original"], [0, "policy"]]), "no column of 2 values"),
        (("GroupId", 2, [[3, NAMES], [0, "original"], [0, "nobody"]]), "GroupId.source cannot be a str"),
        (("ScoredGroup", 2, [[2, "<i4", [1, 1], TWO]] * 9), "ScoredGroup.id cannot be a int32 array"),
        (("ScoredGroup", 2, [[2, "|O", [1, 1], TWO]] * 9), "dtype '|O'"),
        (("ScoredGroup", 2, [[2, "<i4", [1, -1], TWO]] * 9), "no column of arrays"),
        (("ScoredGroup", 2, [[2, "<i4", [1, 2], TWO]] * 9), "has not the length"),
        (("ScoredGroup", 2, [[2, "<i4", [1, 1], TWO[:7]]] * 9), "not a message"),
    ],
)
def test_bad_columns_are_a_codec_error(parts: tuple[Any, ...], message: str) -> None:
    with pytest.raises(CodecError, match=message.replace("|", r"\|")):
        decode(columns_bytes(*parts))


def test_an_array_of_another_dtype_is_refused() -> None:
    """Making it the declared one would take memory again for each carrier that shares it."""
    (sample, *_) = (TrainingSample.of(one, advantage=0.0) for one in completions(1))
    wide = {name: getattr(sample, name) for name in TrainingSample.__dataclass_fields__}
    wide["prompt_token_ids"] = np.arange(3, dtype=np.int64)
    data = msgpack.packb(msgpack.ExtType(2, encode(["TrainingSample", *wide.values()])))
    with pytest.raises(CodecError, match=r"TrainingSample.prompt_token_ids cannot be a int64 array"):
        decode(data)


FAT: dict[str, list[Any]] = {
    "questions of nothing": ["Question", MIB // 5, [[0, "q"], [0, "o"], [0, None]]],
    "names": ["AskedId", MIB // 5, [[0, "q"], [0, 1]]],
    "shared texts": ["Question", MIB // 5, [[3, ["q" * 9] * (MIB // 5)], [0, "o"], [0, None]]],
    "empty arrays": ["ScoredGroup", MIB // 5, [[2, "<i4", [0] * (MIB // 5), b""]] * 9],
    "metrics that share a dict": ["Metrics", MIB // 5, [[1, [{str(key): 1.0 for key in range(9999)}], [0] * (MIB // 5)]] * 2],
}  # fmt: skip


@pytest.mark.parametrize("name", FAT)
def test_columns_take_little_more_memory_than_their_size(name: str) -> None:
    data = columns_bytes(*FAT[name], b"x" * (MIB // 4))  # a fourth part: more bytes, more containers
    wide = columns_bytes(*FAT[name])
    for message in (data, wide, msgpack.packb([msgpack.ExtType(4, encode(FAT[name])), b"x" * MIB])):
        tracemalloc.start()
        try:
            with contextlib.suppress(CodecError):
                decode(message)
            assert tracemalloc.get_traced_memory()[1] < 64 * MIB
        finally:
            tracemalloc.stop()


def test_honest_messages_are_within_the_bound_on_containers() -> None:
    """However short the completions, and however many: each is about 6 containers."""
    short = completions(3000, length=1)
    one_token = [
        Completion(**{name: getattr(one, name) for name in Completion.__dataclass_fields__} | {
            "token_ids": one.token_ids[:1], "behavior_logprobs": one.behavior_logprobs[:1], "token_versions": one.token_versions[:1],
            "text": "", "answer": None,
        })
        for one in short
    ]  # fmt: skip
    assert len(decode(encode(one_token))) == 3000
    samples = [TrainingSample.of(one, advantage=0.5) for one in one_token]
    assert len(decode(encode(samples))) == 3000
    assert len(decode(encode([CompletionId(group=GROUP, sample_index=index) for index in range(20_000)]))) == 20_000
    assert len(decode(encode([Question(id=str(index), original="") for index in range(20_000)]))) == 20_000
