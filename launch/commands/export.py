"""Copies the trained model out of a run, as a Hugging Face folder with a model card; --push sends it to the hub."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import Channel
from corewarding.launch.config.arguments import ArgumentError, read_arguments
from corewarding.launch.report.card.model_card import write_card
from corewarding.launch.report.run_directory import RunDir

if TYPE_CHECKING:
    from corewarding.learner.checkpoint.store import Checkpoint


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Copies the trained model, a Hugging Face folder with a model card, out of a run. Nothing leaves this machine without --push."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory, for example runs/cpu."""
    out: Path
    """New folder for the model; must not exist."""
    which: Literal["policy", "teacher"] = "policy"
    """The policy, or the EMA teacher."""
    push: str | None = None
    """Also send the folder to the Hugging Face hub, as OWNER/NAME. The repository is made if need be."""
    public: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --push: a repository that is made is public, not private."""
    adapter: bool = False
    """Of a run with learner.lora: the adapter alone, a folder that peft loads, instead of a whole model with the adapter merged in."""
    base: Path | None = None
    """Of a run with learner.lora: the folder of its base model, if that has moved since."""


class ExportError(UserError):
    """The run has no checkpoint, or the output folder exists."""


def run(words: list[str]) -> int:
    arguments = read_arguments(ExportArguments, words, prog="corewarding export")
    if arguments.public and arguments.push is None:
        raise ArgumentError(
            "--public says how --push makes a repository: give --push OWNER/NAME, or leave out --public"
        )
    if arguments.push is not None:
        from corewarding.launch.report.card.upload import refuse_unready

        refuse_unready(arguments.push)
    done = export_run(arguments.run_dir, arguments.out, arguments.which, adapter=arguments.adapter, base=arguments.base)
    print(done, flush=True)
    if arguments.push is not None:
        from corewarding.launch.report.card.upload import upload

        print(f"sent to {upload(arguments.out, arguments.push, public=arguments.public, message=done)}")
    return 0


def last_checkpoint(run_dir: Path) -> Checkpoint:
    """The run's newest valid checkpoint. ExportError if there is none, or none that can be opened."""
    from corewarding.learner.checkpoint.store import CheckpointStore

    store = CheckpointStore(run_dir / "checkpoints", keep=1)
    checkpoint = store.latest() if run_dir.is_dir() else None
    if checkpoint is None:
        why = "; ".join(store.refused) or "is it a run directory?"
        raise ExportError(f"{run_dir} holds no committed checkpoint that is whole: {why}")
    return checkpoint


def export_run(run_dir: Path, out: Path, which: Channel, *, adapter: bool = False, base: Path | None = None) -> str:
    """Writes the model of the last checkpoint to `out`, and returns a line that says so.

    adapter: only the adapter of a run with learner.lora. base: where its base model is now. The run may be a stranger's: of its folder
    only JSON, tensors, a tokenizer and, for the card, config.yaml are read, and no code.
    """
    from corewarding.learner.lora.files import is_adapter, write_merged

    checkpoint = last_checkpoint(run_dir)
    if out.exists():
        raise ExportError(f"--out {out} exists already; choose another folder")
    has_adapter = is_adapter(checkpoint.model)
    for flag, given in (("--adapter", adapter), ("--base", base is not None)):
        if given and not has_adapter:
            raise ExportError(f"{flag}: {run_dir} trains all weights, without learner.lora; leave {flag} out")
    if adapter and base is not None:
        raise ExportError(
            f"--base {base} is not needed for --adapter, which holds no base weights; leave one of them out"
        )
    if which == "teacher":
        _require_teacher(checkpoint)
    if has_adapter and not adapter:
        write_merged(checkpoint.learner, which, checkpoint.model, out, base=base)
    else:
        _copy(checkpoint, out, which)
    write_card(_run_at(run_dir), out, which=which, update=checkpoint.update, is_adapter=adapter)
    what = f"{which}'s adapter" if adapter else which
    return f"{what} after update {checkpoint.update} written to {out}"


def whole_model(run_dir: Path) -> Path:
    """The trained model as a Hugging Face folder: that of the last checkpoint, or, where it holds an adapter, `merged/` of the run.

    UserError if there is no checkpoint, or no base model for its adapter.
    """
    from corewarding.learner.lora.files import is_adapter

    checkpoint = last_checkpoint(run_dir)
    if not is_adapter(checkpoint.model):
        return checkpoint.model
    merged = run_dir / "merged" / checkpoint.folder.name
    if not merged.is_dir():
        shutil.rmtree(merged.parent, ignore_errors=True)
        unfinished = merged.with_suffix(".new")
        export_run(run_dir, unfinished, "policy")
        unfinished.rename(merged)
    return merged


def _require_teacher(checkpoint: Checkpoint) -> None:
    from corewarding.learner.checkpoint.learner_state import read_index

    if "teacher" not in read_index(checkpoint.learner).sets:
        raise ExportError(f"{checkpoint.folder} holds no teacher: the run's rule keeps none")


def _copy(checkpoint: Checkpoint, out: Path, which: Channel) -> None:
    """Copies `model/`, with the weights of `which`."""
    if which == "teacher":
        _write_teacher(checkpoint, out)
    for name in checkpoint.files:
        path = PurePosixPath(name)
        if path.parts[0] == "model" and (which == "policy" or not _is_weights(path.name)):
            target = out.joinpath(*path.parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint.folder / name, target)


def _run_at(folder: Path) -> RunDir:
    where = folder.resolve()
    return RunDir(where.parent, where.name)


def _write_teacher(checkpoint: Checkpoint, out: Path) -> None:
    """Writes the teacher's weights as the policy's are stored in the checkpoint."""
    import torch

    from corewarding.learner.checkpoint.model_export import write_weights
    from corewarding.learner.lora.files import is_adapter, stored_shapes, write_adapter_weights
    from corewarding.weights.model_loading import BaseWeights, empty_model
    from corewarding.weights.names import parts_of

    if is_adapter(checkpoint.model):
        write_adapter_weights(checkpoint.learner, "teacher", out, stored_shapes(checkpoint.model))
        return
    model = empty_model(checkpoint.model, dtype=torch.float32, attention="sdpa", device=torch.device("cpu"))
    stored = BaseWeights(checkpoint.model, model)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    dtype = stored.dtype(next(iter(shapes)))
    write_weights(checkpoint.learner, "teacher", out, parts=parts_of(model), shapes=shapes, dtype=dtype)


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))
