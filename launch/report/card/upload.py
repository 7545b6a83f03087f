"""Sends an exported model to the Hugging Face hub, only when asked."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from corewarding.dataflow.errors import RunError, UserError

_UNREACHED: tuple[type[Exception], ...] = (OSError, HfHubHTTPError.__mro__[1])
"""What a request may raise: the errors of the HTTP library are no OSError."""


class UploadError(RunError):
    """The hub did not take the model."""


def refuse_unready(repository: str) -> None:
    """UserError if `repository` is no OWNER/NAME, or this machine has no token for the hub. Asks nobody."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"--push {repository}: that is no hub id ({error}); give OWNER/NAME") from None
    if "/" not in repository:
        raise UserError(f"--push {repository}: the owner is missing; give OWNER/NAME")
    if get_token() is None:
        raise UserError(
            f"--push {repository}: this machine has no token for {constants.ENDPOINT}; log in with `hf auth login`, or set HF_TOKEN"
        )


def upload(folder: Path, repository: str, *, public: bool, message: str) -> str:
    """Uploads the files of `folder` as one commit, and returns its address. The repository is made if there is none, private unless
    `public`; an existing one keeps its visibility. UploadError if the hub refuses or cannot be reached."""
    hub = HfApi()
    try:
        hub.create_repo(repository, private=not public, exist_ok=True)
        commit = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = "the token may not write there: take one with the right to write" if status in (401, 403) else str(error)
        raise UploadError(
            f"{constants.ENDPOINT} did not take {repository} (status {status}): {why}; the model is in {folder}"
        ) from error
    except _UNREACHED as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UploadError(
            f"{constants.ENDPOINT} cannot be reached ({words}); the model is in {folder}: `hf upload {repository} {folder}` sends it"
        ) from error
    return commit.commit_url
