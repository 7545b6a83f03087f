"""Similarity of completions by the embeddings of a language model, for rules that compare reasoning by meaning.

The model runs on the CPU of the replay buffer's process, once for each question: a small model, or short completions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from corewarding.dataflow.carriers import Completion, Float32
from corewarding.dataflow.custom_code import refuse_custom_code
from corewarding.dataflow.errors import UserError

MAX_TOKENS = 8192  # of a text; its beginning is cut, because the end says more of the reasoning


class EmbeddingSimilarity:
    """Cosines between mean-pooled last hidden states of the completions' texts."""

    def __init__(self, model_path: str) -> None:
        """model_path: a folder or hub id. UserError if no model can be read there."""
        refuse_custom_code(model_path)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                model_path, truncation_side="left", padding_side="right", trust_remote_code=False
            )
            self._model = AutoModel.from_pretrained(model_path, dtype=torch.float32, trust_remote_code=False).eval()
        except (OSError, ValueError) as error:
            raise UserError(
                f"rule_options.evol_embedding_model {model_path}: no model can be read there ({error})"
            ) from error
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    @torch.no_grad()
    def __call__(self, completions: Sequence[Completion]) -> Float32:
        """[G, G] in [0, 1]; a negative cosine counts as 0, as in EVOL-RL's code."""
        texts = [completion.text or " " for completion in completions]
        longest = min(MAX_TOKENS, getattr(self._model.config, "max_position_embeddings", MAX_TOKENS))
        encoded = self._tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=longest)
        mask = encoded["attention_mask"]
        hidden = self._model(input_ids=encoded["input_ids"], attention_mask=mask).last_hidden_state
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        normal = torch.nn.functional.normalize(pooled.double(), dim=-1)
        similar: Float32 = np.clip((normal @ normal.T).numpy(), 0.0, 1.0).astype(np.float32)
        return similar
