"""Every architecture of the table is trained as transformers computes it; what would be dropped is refused by name, before loading."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from corewarding.dataflow.errors import UserError
from corewarding.learner import attention as learner_attention
from corewarding.learner import model as learner_model
from corewarding.learner.learner import Learner
from corewarding.learner.model import PolicyModel
from corewarding.learner.objective.layout import Layout
from corewarding.learner.objective.packing import pack
from corewarding.learner.settings import LearnerPlan, LearnerSettings
from corewarding.weights.architectures import ARCHITECTURES, FULL, SLIDING, ArchitectureError, check_architecture
from corewarding.weights.model_config import model_config
from tests.toy_models import REFUSED, TOYS, config_of, toy_model, write_toy
from tests.unit.learner.gradients import distance, padded, samples_of, separate

SAMPLES = {sample.id: sample for sample in samples_of(0)}


def with_gradient(model: Any, logprobs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The values, and the gradient of a fixed combination of them by parameter name."""
    model.zero_grad()
    (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logprobs.detach(), gradients


@pytest.mark.parametrize("name", TOYS)
def test_packed_rows_have_the_logprobs_and_gradients_of_transformers(name: str) -> None:
    plain = toy_model(name).eval()  # with transformers' plainest attention
    policy = PolicyModel(toy_model(name, attention="sdpa").eval(), chunk_tokens=7)
    (micro,) = pack(list(SAMPLES.values()), micro_batch_tokens=10_000, row_tokens=60)[0]
    samples = [SAMPLES[one] for one in micro.ids]
    expected, gradients = with_gradient(plain, separate(plain, samples))
    alternatives = {
        "packed": with_gradient(policy.model, policy(micro)[0]),
        "padded": with_gradient(plain, padded(plain, samples)),
    }
    for how, (values, own) in alternatives.items():
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-5, msg=how)
        assert distance(own, gradients) < 1e-5, how


def test_every_row_of_the_table_is_proven_by_a_toy() -> None:
    assert {config_of(name).model_type for name in TOYS} == {row.model_type for row in ARCHITECTURES.values()}
    for name in TOYS:
        model = toy_model(name)
        assert ARCHITECTURES[type(model).__name__].model_type == model.config.model_type
        check_architecture(model.config, folder="toy", longest=200)


REASONS = {
    "gemma2": "its architecture is Gemma2ForCausalLM.*attn_logit_softcapping is 50.*final_logit_softcapping is 30",
    "nanochat": "its architecture is NanoChatForCausalLM.*final_logit_softcapping is 15",
    "minicpm3": "its architecture is MiniCPM3ForCausalLM.*logits_scaling is 4",
    "qwen3_next": "its architecture is Qwen3NextForCausalLM.*layer_types has linear_attention",
    "gpt_oss": "its architecture is GptOssForCausalLM, and the learner trains ArceeForCausalLM, .*model.allow_unlisted",
    "phi": "its architecture is PhiForCausalLM",
    "bitnet": "its architecture is BitNetForCausalLM",
    "gpt_neox": "its architecture is GPTNeoXForCausalLM",
    "phi3 longrope": "scaled by longrope.*beyond 64 tokens.* is 200; lower them to 64",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_dropped_is_refused_by_name_before_anything_is_loaded(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    config.architectures = [type(toy_model(name)).__name__]
    config.save_pretrained(tmp_path)  # there are no weights to load
    with pytest.raises(ArchitectureError, match=f"(?s)model.path {tmp_path}.*{REASONS[name]}"):
        Learner(plan_of(str(tmp_path)))


def test_a_reward_model_or_another_class_is_refused(tmp_path: Path) -> None:
    for names, message in (
        (["Qwen3ForSequenceClassification"], "its architecture is Qwen3ForSequenceClassification"),
        (["LlamaForCausalLM"], "LlamaForCausalLM, which has model_type llama, but its model_type is qwen3"),
    ):
        config = config_of("qwen3", architectures=names)
        config.save_pretrained(tmp_path)
        with pytest.raises(ArchitectureError, match=message):
            check_architecture(model_config(tmp_path), folder=str(tmp_path), longest=100)


def plan_of(folder: str, *, dtype: Any = "float32", allow_unlisted: bool = False) -> LearnerPlan:
    return LearnerPlan(
        model_path=folder,
        kl_coef=0.0,
        kl_reference="none",
        keep_teacher=False,
        longest_sequence=200,
        allow_unlisted=allow_unlisted,
        learner=LearnerSettings(row_tokens=80, param_dtype=dtype, activation_checkpointing=True),
    )


def causal(rows: Sequence[object], length: int) -> Layout:
    """A layout that lets every token of a row see all earlier ones."""
    return REAL([[(length, [])]] * len(rows), length)


REAL = Layout.of


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["qwen3", "qwen3_moe", "mistral window", "gemma3", "cohere2", "seed_oss", "phi3"])
def test_the_check_at_load_passes_and_finds_what_is_dropped(
    name: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_toy(name, tmp_path)
    Learner(plan_of(folder, dtype=dtype))
    lost: list[tuple[Any, str, Any]] = [(Layout, "of", causal)]
    if "window" in name or name == "gemma3":
        lost.append((learner_attention, "windows", lambda config: {FULL: None, SLIDING: None}))
    if name == "cohere2":
        lost.append((learner_model, "logit_scale", lambda config: 1.0))
    for where, what, instead in lost:
        with monkeypatch.context() as patch:
            patch.setattr(where, what, instead)
            with pytest.raises(ArchitectureError, match=rf"differ from those of transformers by .*param_dtype {dtype}"):
                Learner(plan_of(folder, dtype=dtype))


def test_an_unlisted_architecture_starts_only_if_it_is_allowed_and_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_toy("bitnet", tmp_path / "bitnet")
    with pytest.raises(ArchitectureError, match="its architecture is BitNetForCausalLM"):
        Learner(plan_of(folder))
    Learner(plan_of(folder, allow_unlisted=True))
    monkeypatch.setattr(Layout, "of", causal)
    with pytest.raises(ArchitectureError, match="Packed rows do not compute what BitNetForCausalLM does"):
        Learner(plan_of(folder, allow_unlisted=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("phi", "an output embedding without bias"),
        ("gpt_neox", "is not a decoder `model` of `layers`"),
        ("gpt_oss", "transformers refuses this model here: .*scaled_dot_product_attention"),
        ("gemma2", "attn_logit_softcapping is 50"),
    ],
)
def test_allowing_it_does_not_help_a_model_that_cannot_be_right(name: str, message: str, tmp_path: Path) -> None:
    folder = write_toy(name, tmp_path)
    with pytest.raises(UserError, match=message):
        Learner(plan_of(folder, allow_unlisted=True))


def test_the_page_lists_the_table() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "architecture.md").read_text()
    for name, row in ARCHITECTURES.items():
        assert f"| `{name}` | {row.examples} |" in page
