"""Applies a model's own chat template: question text to prompt token ids, and sampled ids to text.

The prompt depends on the tokenizer folder, the system prompt and the question's wording alone: no date, no tools.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corewarding.dataflow.carriers import Int32
from corewarding.dataflow.custom_code import refuse_custom_code
from corewarding.dataflow.errors import TemplateError

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "tokenizer_config.json",
)
_PROBE = "What is 1 + 1?"
_STAND_IN = "\ue000question\ue000"
"""Stands for a question's text: letters for private use, which no template treats apart."""


class PromptTemplate:
    """Makes prompts and reads completions with one model's tokenizer. Built by `from_folder`; may be pickled."""

    def __init__(self, tokenizer: Any, *, system_prompt: str, eos_token_ids: tuple[int, ...], name: str) -> None:
        self._tokenizer = tokenizer
        self.system_prompt = system_prompt
        self.eos_token_ids = eos_token_ids  # sorted; sampling any of them ends a completion
        self.name = name  # the folder, for messages
        self.fingerprint = _fingerprint(tokenizer.get_chat_template(), system_prompt)
        self._markers = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special and t.content.strip()]

    @classmethod
    def from_folder(cls, model_path: str | Path, *, system_prompt: str) -> PromptTemplate:
        """The template of the model in `model_path`.

        TemplateError: no such folder, no tokenizer, no chat template, one that fails on these messages or leaves the
        question out, or no end-of-sequence token.
        """
        folder = Path(model_path)
        if not folder.is_dir():
            raise TemplateError(f"model.path={folder}: there is no such folder")
        refuse_custom_code(folder)
        tokenizer = _load_tokenizer(folder)
        if not tokenizer.chat_template:
            raise TemplateError(
                f"model.path={folder}: its tokenizer has no chat template, so there is no way to tell it a question; "
                "add a `chat_template.jinja` (Qwen's, for instance) to the folder"
            )
        template = cls(
            tokenizer, system_prompt=system_prompt, eos_token_ids=_eos_token_ids(folder, tokenizer), name=str(folder)
        )
        if _PROBE not in template.text(_PROBE):
            raise TemplateError(
                f"model.path={folder}: its chat template leaves out the user message, where the question is"
            )
        return template

    def text(self, question_text: str) -> str:
        """The prompt as text, with special tokens written out. The model continues at its end."""
        messages = [{"role": "user", "content": question_text}]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        import jinja2

        try:
            prompt = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except (jinja2.TemplateError, ValueError) as error:
            raise TemplateError(
                f"model.path={self.name}: its chat template refuses a system and a user message ({error}); if it knows "
                "no system message, set data.system_prompt to the empty text"
            ) from error
        return str(prompt)

    def token_ids(self, question_text: str) -> Int32:
        """[P] the prompt's token ids."""
        return self.batch_token_ids([question_text])[0]

    def batch_token_ids(self, question_texts: Sequence[str]) -> list[Int32]:
        """[P] for each text, with one call of the tokenizer."""
        if not question_texts:
            return []
        marked = [self._holds_marker(text) for text in question_texts]
        prompts = [self.text(text) for text in question_texts]
        # The template writes the beginning-of-sequence token itself; the tokenizer would add a second one.
        # verbose=False: a prompt that is too long is dropped or refused by us, with the key's name.
        encoded = self._tokenizer(prompts, add_special_tokens=False, padding=False, truncation=False, verbose=False)
        return [
            self._token_ids_of_marked(text, prompt) if is_marked else np.array(ids, dtype=np.int32)
            for text, prompt, is_marked, ids in zip(question_texts, prompts, marked, encoded["input_ids"], strict=True)
        ]

    def _holds_marker(self, question_text: str) -> bool:
        """Whether a special token, such as <|im_end|>, is written out in the text."""
        return any(marker in question_text for marker in self._markers)

    def _token_ids_of_marked(self, question_text: str, prompt: str) -> Int32:
        """[P] the prompt of a text that writes special tokens out: there they are letters. As special tokens they could end the
        question and speak in another role's name."""
        before, found, after = self.text(_STAND_IN).partition(_STAND_IN)
        if not found or _STAND_IN in after or not (prompt.startswith(before) and prompt.endswith(after)):
            raise TemplateError(
                f"model.path={self.name}: its chat template does not keep this question in one piece, and the question writes a "
                f"special token out: {question_text!r}; remove the token from the question"
            )
        parts = [before, prompt[len(before) : len(prompt) - len(after)], after]
        ids = [
            self._tokenizer(part, add_special_tokens=False, split_special_tokens=part is parts[1], verbose=False)[
                "input_ids"
            ]
            for part in parts
        ]
        return np.array([one for part in ids for one in part], dtype=np.int32)

    def unembedded(self, num_rows: int) -> dict[str, int]:
        """Tokens that a prompt may hold or that end a completion, and that have no row in an embedding of `num_rows`, with their ids.

        A special token beyond it does no harm while the chat template leaves it out: a question that writes one out spells it.
        """
        added = self._tokenizer.added_tokens_decoder
        used = {*self._tokenizer(self.text(_PROBE), add_special_tokens=False)["input_ids"], *self.eos_token_ids}
        return {
            text: token
            for text, token in self._tokenizer.get_vocab().items()
            if token >= num_rows and (token in used or not (token in added and added[token].special))
        }

    def decode(self, ids: Iterable[int]) -> str:
        """The text of sampled tokens without special tokens. Spaces stay as they were sampled."""
        plain = [int(token) for token in ids]
        return str(self._tokenizer.decode(plain, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _load_tokenizer(folder: Path) -> Any:
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        found = sorted(path.name for path in folder.iterdir())
        raise TemplateError(f"model.path={folder}: the folder has no tokenizer (no tokenizer.json), found {found}")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises Exception itself for a malformed file
        raise TemplateError(f"model.path={folder}: its tokenizer cannot be loaded: {error}") from error


def _eos_token_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a completion: those of the generation config and the tokenizer's."""
    ids: set[int] = set()
    path = folder / "generation_config.json"
    if path.is_file():
        try:
            declared = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        except json.JSONDecodeError as error:
            raise TemplateError(f"model.path={folder}: generation_config.json is not JSON: {error}") from error
        ids |= set(declared) if isinstance(declared, list) else {declared}
    ids |= {tokenizer.eos_token_id}
    ids -= {None}  # type: ignore[arg-type]
    if not ids:
        raise TemplateError(
            f"model.path={folder}: neither generation_config.json nor the tokenizer names an end-of-sequence token; "
            "every completion would run to rollout.max_new_tokens"
        )
    return tuple(sorted(int(token) for token in ids))


def _fingerprint(chat_template: str, system_prompt: str) -> str:
    """16 hex digits that change when prompts change their form."""
    return hashlib.sha256(json.dumps([chat_template, system_prompt]).encode()).hexdigest()[:16]
