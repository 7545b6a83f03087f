"""Any number of ranks restores, bit for bit, what any other number wrote; damage is named."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from corewarding.learner.checkpoint import learner_state
from corewarding.learner.checkpoint.learner_state import StagedState, read_index
from corewarding.learner.checkpoint.manifest import CheckpointError
from corewarding.learner.checkpoint.model_export import write_rest, write_weights
from corewarding.learner.checkpoint.tensor_files import ShardFiles
from corewarding.learner.model import local_shard
from corewarding.weights.names import parts_of
from tests.tiny_models import write_model
from tests.unit.learner.checkpoint.states import PROGRESS, bits, content, rank_of, save


@pytest.mark.parametrize("writing", [1, 2, 3])
@pytest.mark.parametrize("reading", [1, 2, 3])
def test_other_numbers_of_ranks_restore_the_same_bits(writing: int, reading: int, base: Path, tmp_path: Path) -> None:
    save(base, writing, tmp_path / "one")
    before = content(tmp_path / "one")
    kinds = {name.partition("/")[0] for name in before}
    assert kinds == {"policy", "teacher", "initial", "exp_avg", "exp_avg_sq"}
    assert {before[name].dtype for name in before if name.startswith("initial/")} == {torch.bfloat16}
    for rank in range(reading):
        own = rank_of(base, rank, reading, steps=0)
        progress = learner_state.load(tmp_path / "one", sets=own.sets, optimizer=own.optimizer)
        assert progress == PROGRESS
        expected = rank_of(base, rank, reading, steps=3)
        for kept in ("policy", "teacher", "initial"):
            for mine, theirs in zip(own.sets.shards_of(kept), expected.sets.shards_of(kept), strict=True):
                assert torch.equal(bits(mine), bits(theirs))
        for mine, theirs in zip(own.sets.parameters, expected.sets.parameters, strict=True):
            assert own.optimizer.state[mine].keys() == expected.optimizer.state[theirs].keys()
            for key, value in expected.optimizer.state[theirs].items():
                assert torch.equal(bits(local_shard(own.optimizer.state[mine][key])), bits(local_shard(value)))
        own.save(tmp_path / "again")
    after = content(tmp_path / "again")
    assert before.keys() == after.keys()
    assert all(torch.equal(bits(before[name]), bits(after[name])) for name in before)


def test_the_next_step_is_the_same_and_a_state_before_the_first_step_has_no_moments(base: Path, tmp_path: Path) -> None:
    for steps in (0, 2):
        save(base, 1, tmp_path / str(steps), steps=steps)
        own = rank_of(base, 0, 1, steps=1)  # holds other moments
        learner_state.load(tmp_path / str(steps), sets=own.sets, optimizer=own.optimizer)
        expected = rank_of(base, 0, 1, steps=steps)
        assert len(own.optimizer.state) == len(expected.optimizer.state)
        for one in (own, expected):
            for parameter in one.sets.parameters[1:]:
                parameter.grad = torch.ones_like(parameter)
            one.optimizer.step()
        for mine, theirs in zip(own.sets.shards_of("policy"), expected.sets.shards_of("policy"), strict=True):
            assert torch.equal(mine, theirs)


def test_training_goes_on_while_a_state_is_written(base: Path, tmp_path: Path) -> None:
    one, staged = rank_of(base, 0, 1, steps=1), StagedState()
    for number in range(2):
        staged.take(one.sets, one.optimizer, progress=PROGRESS, rank=0, ranks=1)
        then = {name: p.detach().clone() for name, p in zip(one.sets.names, one.sets.parameters, strict=True)}
        for local in one.sets.shards_of("policy"):
            local.detach().add_(1)
        staged.write(tmp_path / str(number))
        found = content(tmp_path / str(number))
        for name, values in then.items():
            assert torch.equal(found[f"policy/{name}"], local_shard(values).reshape(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_bytes", [10**9, 30_000])
def test_a_model_of_any_number_of_files_opens(dtype: torch.dtype, max_bytes: int, base: Path, tmp_path: Path) -> None:
    save(base, 3, tmp_path / "state")
    model = AutoModelForCausalLM.from_pretrained(base)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    out = tmp_path / "out"
    write_weights(
        tmp_path / "state", "policy", out, parts=parts_of(model), shapes=shapes, dtype=dtype, max_shard_bytes=max_bytes
    )
    write_rest(out, base, dtype)
    files = list(out.glob("*.safetensors"))
    assert (len(files) == 1) == (max_bytes == 10**9)
    assert all(sum(t.nbytes for t in load_file(file).values()) <= max_bytes for file in files)
    opened = AutoModelForCausalLM.from_pretrained(out)
    assert opened.dtype == dtype
    saved = content(tmp_path / "state")
    for name, parameter in opened.named_parameters():
        assert torch.equal(parameter.detach().reshape(-1), saved[f"policy/{name}"].to(dtype)), name


@pytest.mark.parametrize("missing", ["teacher", "policy"])
def test_weights_that_are_not_there_are_named(missing: str, base: Path, tmp_path: Path) -> None:
    save(base, 1, tmp_path)
    index = json.loads((tmp_path / "learner.json").read_text())
    index["sets"].remove(missing)
    (tmp_path / "learner.json").write_text(json.dumps(index))
    own = rank_of(base, 0, 1, steps=0)
    with pytest.raises(CheckpointError, match=f"holds no {missing} weights"):
        learner_state.load(tmp_path, sets=own.sets, optimizer=own.optimizer)


def test_another_model_is_named(base: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "other", vocab=60)
    save(base, 2, tmp_path / "state")
    own = rank_of(tmp_path / "other", 0, 1, steps=0)
    with pytest.raises(CheckpointError, match="of another model or configuration"):
        learner_state.load(tmp_path / "state", sets=own.sets, optimizer=own.optimizer)


def test_a_rank_s_file_that_is_missing_or_doubled_is_named(base: Path, tmp_path: Path) -> None:
    save(base, 2, tmp_path)
    first, second = sorted(tmp_path.glob("rank-*"))
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(CheckpointError, match="rank-00001-of-00002"):
        learner_state.open_state(tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(CheckpointError, match="do not fit together"):
        learner_state.open_state(tmp_path)
    second.write_bytes(kept)
    learner_state.open_state(tmp_path)


def test_garbled_files_raise_our_own_error_only(base: Path, tmp_path: Path) -> None:
    save(base, 1, tmp_path)
    draws = random.Random(0)
    file, index = next(tmp_path.glob("rank-*")), tmp_path / "learner.json"
    for path in (file, index):
        whole = path.read_bytes()
        length = min(len(whole), 4000)
        for _ in range(300):
            damaged = bytearray(whole[: draws.choice([len(whole), draws.randrange(length)])])
            for _ in range(draws.choice([0, 1, 5, 50])):
                if damaged:
                    damaged[draws.randrange(min(len(damaged), length))] = draws.randrange(256)
            path.write_bytes(damaged)
            with suppress(CheckpointError):  # or it was not damaged where it matters
                learner_state.open_state(tmp_path)
        path.write_bytes(whole)
    for index_text in (
        '{"format": 1, "ranks": 1e300}',
        '{"format": 1, "ranks": true, "progress": {}}',
        "[]",
        "1" * 9999,
    ):
        index.write_text(index_text)
        with pytest.raises(CheckpointError):
            read_index(tmp_path)


def test_shard_files_without_parts_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no policy/x"):
        ShardFiles([]).read("policy/x", (1,), 0, torch.empty(1))
