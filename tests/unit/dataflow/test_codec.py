"""The codec: every carrier comes back unchanged, and bad bytes raise CodecError and nothing else."""

import contextlib
import dataclasses
import tracemalloc
import types as python_types
import typing
from typing import Any, Literal

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corewarding.dataflow import codec
from corewarding.dataflow.carriers import Completion, Question, ScoredGroup, TrainBatch, TrainingSample
from corewarding.dataflow.codec import CodecError, decode, decode_as, decode_list, encode
from corewarding.dataflow.ids import AskedId
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.votes import Vote

INTEGERS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False)
TEXTS = st.text(max_size=8)


def arrays(dtype: type[np.generic], length: int | None = None) -> st.SearchStrategy[np.ndarray]:
    low, high = (0, 5) if length is None else (length, length)
    element: dict[Any, st.SearchStrategy[Any]] = {
        np.int32: st.integers(-(2**31), 2**31 - 1),
        np.float32: st.floats(width=32),
        np.bool_: st.booleans(),
    }
    return st.lists(element[dtype], min_size=low, max_size=high).map(lambda values: np.array(values, dtype))


def of(hint: Any) -> st.SearchStrategy[Any]:
    """Values that fit the annotation of a field."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    simple = {
        int: INTEGERS,
        float: FLOATS,
        str: TEXTS,
        bytes: st.binary(max_size=40),
        bool: st.booleans(),
        type(None): st.none(),
    }
    if hint in simple:
        return simple[hint]
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (typing.Union, python_types.UnionType):
        return st.one_of(*(of(arg) for arg in args))
    if origin is tuple:
        return st.lists(of(args[0]), max_size=3).map(tuple)
    if hint is Any:
        return st.one_of(st.none(), INTEGERS, FLOATS, TEXTS, st.lists(INTEGERS, max_size=2))
    if origin is list:
        return st.lists(of(args[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(of(args[0]), of(args[1]), max_size=3)
    if origin is np.ndarray:
        return arrays(typing.get_args(args[1])[0])
    return carrier(hint)


@st.composite
def carrier(draw: st.DrawFn, cls: type) -> Any:
    """A carrier whose fields fit together."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: of(hints[field.name]) for field in dataclasses.fields(cls)}
    length = draw(st.integers(1, 5))
    if cls in (Completion, TrainingSample):
        for name in ("token_ids", "token_versions"):
            fields[name] = arrays(np.int32, length)
        fields["token_versions"] = fields["token_versions"].map(lambda versions: np.sort(np.abs(versions // 2)))
        fields["behavior_logprobs"] = arrays(np.float32, length)
        fields["loss_mask"] = arrays(np.bool_, length)
        fields["prompt_token_ids"] = arrays(np.int32, 3)
        fields["advantage"] = st.floats(allow_nan=False, allow_infinity=False)
        fields["weight"] = st.floats(0, 9)
    if cls is ScoredGroup:
        fields["completions"] = st.just(tuple(draw(carrier(Completion)) for _ in range(2)))
        fields["rewards"] = arrays(np.float32, 2)
        numbers = st.lists(st.floats(0, 9, width=32), min_size=2, max_size=2).map(lambda v: np.array(v, np.float32))
        fields |= {"advantages": st.none() | numbers, "weights": st.none() | numbers}
    if cls is TrainBatch:
        samples = draw(st.lists(carrier(TrainingSample), max_size=3, unique_by=lambda sample: sample.id))
        fields["samples"] = st.just(tuple(sorted(samples, key=lambda sample: sample.id)))
    if cls.__name__ == "RolloutTask":
        fields |= {
            "group_size": st.integers(1, 99),
            "max_new_tokens": st.integers(1, 99),
            "temperature": st.floats(0, 9),
        }
    return cls(**{name: draw(fields[name]) for name in hints})


def same(a: Any, b: Any) -> bool:
    """Equal in value and in type, bit for bit in arrays."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b)


@pytest.mark.parametrize("cls", codec.CARRIERS.values(), ids=codec.CARRIERS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_carrier_comes_back(cls: type, data: st.DataObject) -> None:
    value = data.draw(carrier(cls))
    assert same(decode(encode(value)), value)
    assert same(decode(encode([value, {"inside": (value,)}])), [value, {"inside": (value,)}])


def test_same_finds_differences() -> None:
    """The comparison above must be able to fail."""
    one, two = np.array([1, 2], np.int32), np.array([1, 3], np.int32)
    assert same(one, one.copy())
    assert not same(one, two)
    assert not same(one, one.astype(np.int64))
    assert not same([1], (1,))


@pytest.mark.parametrize("dtype", ["<i4", "<i8", "<f4", "<f8", "|b1", "|u1"])
def test_arrays_of_any_shape_come_back(dtype: str) -> None:
    for shape in [(0,), (3,), (2, 3), (2, 0, 4)]:
        array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        assert same(decode(encode(array)), array)
    assert decode(encode(np.arange(6).reshape(2, 3).T)).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert decode(encode(np.arange(3, dtype=">i4"))).tolist() == [0, 1, 2]
    assert decode(encode([np.float32(0.5), np.int64(3)])) == [0.5, 3]


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, np.array(["a"]), np.array([object()]), np.zeros(2, complex), print]
)
def test_an_object_that_does_not_travel_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="travel"):
        encode([value])


def test_messages_over_the_cap_are_refused_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    message = np.zeros(100, np.uint8)
    data = encode(message)
    monkeypatch.setattr(codec, "MAX_MESSAGE_BYTES", len(data))
    assert same(decode(encode(message)), message)
    monkeypatch.setattr(codec, "MAX_MESSAGE_BYTES", len(data) - 1)
    with pytest.raises(CodecError, match="over the cap"):
        encode(message)
    with pytest.raises(CodecError, match="over the cap"):
        decode(data)


def carrier_bytes(*parts: Any) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(2, encode(list(parts))))
    return packed


def nested(depth: int) -> bytes:
    data: bytes = msgpack.packb([])
    for _ in range(depth):
        data = msgpack.packb(msgpack.ExtType(3, data))
    return data


GROUP = AskedId(question_id="q", epoch=0).group("original", "policy")
ARRAY_OF_OBJECTS = msgpack.packb(msgpack.ExtType(1, msgpack.packb(("|O", (1,))) + b"\0" * 8))
SHORT_ARRAY = msgpack.packb(msgpack.ExtType(1, msgpack.packb(("<i4", (3,))) + b"\0" * 8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (carrier_bytes("os", "system"), "unknown carrier 'os'"),
        (carrier_bytes("Question", "id"), "Question has 3 fields, the message 1"),
        (carrier_bytes("Question", "id", "a", "b", "c"), "Question has 3 fields, the message 4"),
        (carrier_bytes("AskedId"), "AskedId has 2 fields, the message 0"),
        (carrier_bytes(), "not enough values"),
        (carrier_bytes([], 1), "unhashable"),
        (carrier_bytes("TrainBatch", 0, 1, [1, 2]), "not a message"),
        (carrier_bytes("RolloutTask", None, 0, 0, 1, [2**40], 1.0, 1, 0), "not a message"),
        (
            carrier_bytes("RolloutTask", GROUP, 0, 0, 0, np.zeros(1, np.int32), 1.0, 1, 0),
            "group_size and max_new_tokens",
        ),
        (carrier_bytes("RolloutTask", GROUP, 0, 0, 1, [1], 1.0, 1, 0), "RolloutTask.prompt_token_ids cannot be a list"),
        (carrier_bytes("Question", "id", 7, None), "Question.original cannot be a int"),
        (carrier_bytes("AskedId", "q", True), "AskedId.epoch cannot be a bool"),
        (msgpack.packb(msgpack.ExtType(9, b"")), "unknown extension 9"),
        (ARRAY_OF_OBJECTS, "array of dtype"),
        (SHORT_ARRAY, "not a message"),
        (b"", "not a message"),
        (b"\xc1", "not a message"),
        (encode([1]) + b"\0", "extra data"),
        (encode({"key": "value"})[:-1], "not a message"),
        (b"\x91" * 5000, "not a message"),
        (nested(3000), "nested more than 32 deep"),
    ],
)
def test_hostile_bytes_are_a_codec_error(data: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        decode(data)


@settings(max_examples=300, deadline=None)
@given(noise=st.binary(max_size=60), cut=st.integers(0, 400), data=st.data())
def test_damaged_messages_decode_or_are_a_codec_error(noise: bytes, cut: int, data: st.DataObject) -> None:
    message = bytearray(encode([Question(id="q", original="o"), data.draw(carrier(Completion)), {"k": (1, 2.0)}]))
    message[cut : cut + len(noise)] = noise
    with contextlib.suppress(CodecError):
        decode(bytes(message))


@pytest.mark.parametrize("cls", codec.CARRIERS.values(), ids=codec.CARRIERS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_field_of_another_type_is_refused_in_every_carrier(cls: type, data: st.DataObject) -> None:
    good = data.draw(carrier(cls))
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if hints[field.name] is not Any]
    name = data.draw(st.sampled_from(names))
    values = {field.name: getattr(good, field.name) for field in dataclasses.fields(cls)} | {name: [[b"odd"]]}
    with pytest.raises(CodecError, match=rf"{cls.__name__}\.{name} cannot be a list"):
        decode(carrier_bytes(cls.__name__, *values.values()))


MIB = 2**20
FAT = {
    "empty lists": b"\xdd" + MIB.to_bytes(4, "big") + b"\x90" * MIB,
    "empty dicts": b"\xdd" + MIB.to_bytes(4, "big") + b"\x80" * MIB,
    "lists of one": b"\xdd" + (MIB // 2).to_bytes(4, "big") + b"\x91\x01" * (MIB // 2),
    "empty tuples": b"\xdd" + (MIB // 3).to_bytes(4, "big") + b"\xd4\x03\x90" * (MIB // 3),
    "nested claims": (b"\xdd" + MIB.to_bytes(4, "big")) * (MIB // 5),
    "short texts": b"\xdd" + (MIB // 3).to_bytes(4, "big") + b"\xa2ab" * (MIB // 3),
    "numbers": b"\xdd" + (MIB // 9).to_bytes(4, "big") + b"\xcb\x3f\xf1\x99\x99\x99\x99\x99\x9a" * (MIB // 9),
    "keys": b"\xdf"
    + (MIB // 4).to_bytes(4, "big")
    + b"".join(b"\xa2" + i.to_bytes(2, "big") + b"\xc0" for i in range(2**15)),
    "tuples within tuples": nested(30) + b"",
}


@pytest.mark.parametrize("name", FAT)
def test_a_message_takes_little_more_memory_than_its_size(name: str) -> None:
    data = FAT[name]
    tracemalloc.start()
    try:
        with contextlib.suppress(CodecError):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


def test_a_message_of_another_type_is_a_codec_error() -> None:
    question = Question(id="q", original="o")
    assert decode_as(encode(question), Question) == question
    assert decode_list(encode([question]), Question) == [question]
    with pytest.raises(CodecError, match="expected Vote, got Question"):
        decode_as(encode(question), Vote)
    with pytest.raises(CodecError, match="expected list, got Question"):
        decode_list(encode(question), Question)
    with pytest.raises(CodecError, match="expected a list of Question, got one of int"):
        decode_list(encode([question, 1]), Question)


def test_a_class_that_only_shares_a_carriers_name_does_not_travel() -> None:
    @dataclasses.dataclass
    class Question:
        id: str

    with pytest.raises(TypeError, match="Question does not travel"):
        encode(Question(id="q"))


def test_decoded_arrays_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        decode(encode(np.zeros(3)))[0] = 1.0


def test_a_dict_keyed_by_carriers_comes_back() -> None:
    asked = AskedId(question_id="q", epoch=0)
    assert same(decode(encode({asked: 1})), {asked: 1})
    assert same(decode(encode(Metrics(scalars={"a/b": 1.0}))), Metrics(scalars={"a/b": 1.0}))


def test_a_tuple_of_carriers_stays_a_tuple() -> None:
    vote = Vote(winner=None, answer=None, share=0.0, num_voters=0, classes=(), version=3)
    assert same(decode(encode((vote, vote))), (vote, vote))
