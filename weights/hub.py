"""Brings a model of the Hugging Face hub onto this machine: only the files that are read, and before anything is started.

All processes of a run get the folder, so none of them asks the hub.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from corewarding.dataflow.custom_code import refuse_custom_code
from corewarding.dataflow.errors import UserError
from corewarding.weights.model_files import INDEX, SINGLE, shards_of

ANSWER_S = 10.0
"""How long the hub may take to answer."""
GB = 10**9
_HUB_ID = re.compile(r"[\w-]+[\w.-]*/[\w.-]+")
_SMALL = (".json", ".jinja", ".txt", ".model")
"""Ends of the files that are read besides the weights."""
_FAILURES: tuple[type[Exception], ...] = (OSError, ValueError, HfHubHTTPError.__mro__[1])
"""What a download may raise: an invalid id is a ValueError, and the errors of the HTTP library are no OSError."""


class HubError(UserError):
    """There is no such model folder, and no such model can be fetched from the hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """Where a model lies on this machine."""

    path: Path
    hub_id: str | None = None  # None: a folder was named
    revision: str | None = None  # the commit, for a hub id


def model_folder(
    path: str | Path,
    revision: str | None = None,
    *,
    cache: str | Path | None = None,
    check: Callable[[Path], object] = lambda folder: None,
    say: Callable[[str], object] = lambda text: None,
) -> ModelFolder:
    """The folder of a model. For a hub id it is in the hub's cache; files that are missing there are downloaded.

    revision: branch, tag or commit of a hub id. cache: the folder of the hub's cache, if not the usual one. check: called with the
    folder when it holds all files except the weights, so that its error saves their download. say: gets a line on each download.
    HubError, with the remedy, if there is no such model, the hub refuses it or cannot be reached, or the disk is full.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise HubError(
                f"model.revision {revision}: model.path {path} is a folder, which has no revisions; remove model.revision"
            )
        refuse_custom_code(folder)
        return ModelFolder(path=folder)
    if not _HUB_ID.fullmatch(str(path)):
        raise HubError(
            f"model.path={path}: there is no such folder; a folder that from_pretrained opens, or a hub id, is expected"
        )
    request = _Request(str(path), revision, Path(cache or constants.HF_HUB_CACHE).expanduser())
    try:
        info = HfApi().model_info(request.hub_id, revision=revision, files_metadata=True, timeout=ANSWER_S)
    except _FAILURES as error:
        if refusal := request.refusal(error):
            raise HubError(refusal) from error
        return request.cached(error, say)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    found = request.download(
        revision or constants.DEFAULT_REVISION, [name for name in sizes if "/" not in name and name.endswith(_SMALL)]
    )
    refuse_custom_code(found)
    check(found)
    request.download_weights(found, sizes, say)
    return ModelFolder(path=found, hub_id=request.hub_id, revision=found.name)


def hub_config(hub_id: str, revision: str | None = None) -> Path:
    """A folder of the hub's cache that holds config.json of a model, and whatever an earlier download left; no weights are fetched.

    HubError, with the remedy, if there is no such model, or it is neither in the cache nor to be reached.
    """
    if not _HUB_ID.fullmatch(hub_id):
        raise HubError(f"model.path={hub_id}: there is no such folder; a model folder or a hub id is expected")
    request = _Request(hub_id, revision, Path(constants.HF_HUB_CACHE).expanduser())
    try:
        found = Path(
            hf_hub_download(hub_id, "config.json", revision=revision, cache_dir=request.cache, etag_timeout=ANSWER_S)
        )
    except _FAILURES as error:
        raise HubError(
            request.refusal(error)
            or f"model.path={hub_id}: there is no such folder, {constants.ENDPOINT} cannot be reached ({_words(error)}), and "
            f"{request.cache} does not hold its config.json"
        ) from error
    refuse_custom_code(found.parent)
    return found.parent


def local_folder(path: str | Path) -> Path:
    """`model_folder`, for a caller that needs no more than the folder. Says on standard output what it downloads."""
    return model_folder(path, say=lambda text: print(text, flush=True)).path


@dataclass(frozen=True, slots=True)
class _Request:
    """A model that is wanted of the hub."""

    hub_id: str
    revision: str | None
    cache: Path

    def download(self, revision: str, names: Sequence[str]) -> Path:
        """The folder of that revision, named by its commit, with these files in it."""
        try:
            return Path(
                snapshot_download(self.hub_id, revision=revision, cache_dir=self.cache, allow_patterns=[*names])
            )
        except _FAILURES as error:
            raise HubError(
                self.refusal(error)
                or f"model.path {self.hub_id}: its download into {self.cache} broke off ({_words(error)}); the same command goes on"
            ) from error

    def download_weights(self, folder: Path, sizes: dict[str, int], say: Callable[[str], object]) -> None:
        """Fetches the weights that `folder`, which holds the other files, lacks."""
        if SINGLE not in sizes and INDEX not in sizes:
            raise HubError(
                f"model.path {self.hub_id}: the hub holds no safetensors of it ({', '.join(sorted(sizes)[:8])}); take a model "
                "that has them, or load it with transformers and save it with `save_pretrained`"
            )
        names = [SINGLE] if SINGLE in sizes else shards_of(folder)
        if absent := sorted(set(names) - sizes.keys()):
            raise HubError(
                f"model.path {self.hub_id}: its {INDEX} names {absent[0]}, which the hub does not hold; take another model"
            )
        missing = [name for name in names if not (folder / name).is_file()]
        if not missing:
            return
        size, free = sum(sizes[name] for name in missing), shutil.disk_usage(self.cache).free
        if size > free:
            raise HubError(
                f"model.path {self.hub_id}: its weights have {size / GB:.1f} GB, and {self.cache} has {free / GB:.1f} GB free; make "
                "room, or set HF_HOME to a folder on a larger disk"
            )
        files = f"{len(missing)} files of revision {folder.name[:12]}"
        say(f"model.path {self.hub_id}: downloading {size / GB:.2f} GB in {files} into {self.cache}")
        self.download(folder.name, names)

    def cached(self, unreached: Exception, say: Callable[[str], object]) -> ModelFolder:
        """What an earlier download has left, where the hub does not answer."""
        try:
            found = Path(
                snapshot_download(
                    self.hub_id,
                    revision=self.revision,
                    cache_dir=self.cache,
                    local_files_only=True,
                    allow_patterns=["config.json"],
                )
            )
            names = shards_of(found)
        except (LocalEntryNotFoundError, UserError):
            names, found = [SINGLE], self.cache
        if not all((found / name).is_file() for name in names):
            raise HubError(
                f"model.path={self.hub_id}: there is no such folder, and as a hub id it cannot be fetched: {constants.ENDPOINT} "
                f"cannot be reached ({_words(unreached)}), and {self.cache} does not hold it whole; connect this machine, unset "
                "HF_HUB_OFFLINE, or download the model elsewhere and give its folder"
            ) from unreached
        refuse_custom_code(found)
        say(
            f"note: {constants.ENDPOINT} cannot be reached ({_words(unreached)}); model.path {self.hub_id} is read from {found}"
        )
        return ModelFolder(path=found, hub_id=self.hub_id, revision=found.name)

    def refusal(self, error: Exception) -> str | None:
        """The message for what the hub itself says no to; None for a hub that cannot be asked."""
        name, login = f"model.path {self.hub_id}", "log in with `hf auth login`, or set HF_TOKEN"
        if isinstance(error, GatedRepoError):
            page = f"{constants.ENDPOINT}/{self.hub_id}"
            return f"{name}: the hub gives it only to those who accepted its terms; accept them at {page}, and {login}"
        if isinstance(error, RepositoryNotFoundError):
            return f"{name}: the hub at {constants.ENDPOINT} has no such model, or it is private; correct the id, or {login}"
        if isinstance(error, RevisionNotFoundError):
            return f"model.revision {self.revision}: {self.hub_id} has no such branch, tag or commit; correct it, or leave it out"
        if isinstance(error, HFValidationError):
            return f"{name}: that is no hub id ({_words(error)}); give OWNER/NAME or a folder"
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
            return f"{name}: the hub refuses this machine's token ({error.response.status_code}); {login} with one that is valid"
        return None


def _words(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
