"""From token ids back to their texts, with the tokenizer of the run's model as it lies on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.paths import PACKAGE
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.run.model_record import recorded_revision

_FILE = "tokenizer.json"


def find_tokenizer(run_dir: RunDir, model_path: str | None) -> Tokenizer | None:
    """The tokenizer of the run's model: of a checkpoint, of the model's folder or of the hub's cache. None if there is none.
    UserError if it cannot be read."""
    places = sorted(run_dir.checkpoints.glob(f"step-*/model/{_FILE}"), reverse=True)
    if model_path is not None:
        places += [Path(model_path) / _FILE, PACKAGE / model_path / _FILE]
        try:
            cached = try_to_load_from_cache(model_path, _FILE, revision=recorded_revision(run_dir.path, model_path))
        except HFValidationError:  # a folder's path, and no hub id
            cached = None
        places += [Path(cached)] if isinstance(cached, str) else []
    found = next((place for place in places if place.is_file()), None)
    try:
        return None if found is None else Tokenizer.from_file(str(found))
    except Exception as error:  # the tokenizers library raises Exception itself for a malformed file
        raise UserError(f"{found} is no tokenizer: {error}") from error


def pieces(tokenizer: Tokenizer, token_ids: Sequence[int]) -> list[str]:
    """The text of each token, special tokens included; a letter of several tokens belongs to the last of them."""
    stream = DecodeStream(skip_special_tokens=False)
    return [stream.step(tokenizer, token) or "" for token in token_ids]


def prompt_text(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """A prompt as the model got it, special tokens written out."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=False))
