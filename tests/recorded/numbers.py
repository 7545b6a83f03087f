"""Computes the recorded numbers: `exact()` is text, keys and tokens; `close()` is arrays. One thread, so that one machine
gives the same bits twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corewarding.actors.embedded.engine import EmbeddedEngine
from corewarding.actors.engine import EngineContext
from corewarding.actors.settings import EngineSettings
from corewarding.dataflow.carriers import RolloutTask, TrainBatch, TrainingSample
from corewarding.dataflow.ids import AskedId
from corewarding.dataflow.metrics import Metrics
from corewarding.learner.learner import Learner
from corewarding.learner.objective import metrics as loss_metrics
from corewarding.learner.objective.advantages import training_samples, zero_cause
from corewarding.learner.objective.logprobs import token_logprobs
from corewarding.learner.objective.loss import low_variance_kl, objective
from corewarding.learner.objective.packing import MicroBatch, pack
from corewarding.learner.settings import (
    CorrectionSettings,
    LearnerPlan,
    LearnerSettings,
    LossSettings,
    TeacherSettings,
    TrainSettings,
)
from corewarding.rewards.advantages import group_advantages
from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.answers.grading import grade
from corewarding.rewards.answers.key import canonical_key
from corewarding.rewards.diagnostics import reward_diagnostics
from corewarding.rewards.rules.table import REWARD_RULES
from corewarding.rewards.voting import vote
from tests.packed_rows import ids_of
from tests.recorded import inputs

MODEL = Path(__file__).resolve().parents[2] / "models" / "arithmetic-base"
PROMPTS = ("What is 17 + 25?", "Tom has 12 apples and eats 5. How many are left?", "Compute 8 * 7.")
BANDS = {"token_band": (0.6, 1.6), "sequence_band": (0.75, 1.3), "veto": 1e-4}
NO_BANDS = {"token_band": None, "sequence_band": None, "veto": None}

Arrays = dict[str, np.ndarray]


def exact(answers: Iterable[str]) -> dict[str, Any]:
    """What must be equal to the letter: keys and verdicts of `answers`, extracted answers, votes, tokens."""
    torch.set_num_threads(1)
    keys = [(text, canonical_key(text)) for text in answers]
    questions = inputs.rollouts()
    context = inputs.rule_context(questions)
    elected = {
        str(group): dataclasses.asdict(vote(members, key=context.key))
        for question in questions
        for group, members in question.groups.items()
    }
    return {
        "keys": [[text, found.kind, found.key] for text, found in keys],
        "grades": [
            [one, other, grade(one, other)] for one, other in itertools.pairwise(text for text, _ in keys[:200])
        ],
        "extracted": [[t, extract_answer(t), extract_answer(t, fallbacks=("hashes", "phrase"))] for t in inputs.TEXTS],
        "votes": elected,
        "scored": {
            name: [
                [str(group.id), group.label, group.abstained, zero_cause(group)]
                for question in questions
                for group in rule.score(question, context)
            ]
            for name, rule in ((name, REWARD_RULES[name]) for name in inputs.RULES)
        },
        "tokens": asyncio.run(_sampled())[0],
    }


def close() -> Arrays:
    """Everything computed in floating point, and the integer layout of packed batches."""
    torch.set_num_threads(1)
    learnt, sampled = _learner(), asyncio.run(_sampled())[1]
    return _rewards() | _objective() | _logprobs() | _packing() | learnt | sampled


def _rewards() -> Arrays:
    questions = inputs.rollouts()
    context = inputs.rule_context(questions)
    found: Arrays = {}
    everything = []
    for name in inputs.RULES:
        scored = [group for question in questions for group in REWARD_RULES[name].score(question, context)]
        everything += scored
        found[f"rewards/{name}"] = np.concatenate([group.rewards for group in scored])
        metrics = reward_diagnostics(questions, scored, key=context.key, gold=context.gold)
        found |= _metrics(f"diagnostics/{name}", metrics)
    groups = inputs.reward_groups(everything)
    for normalize in ("std", "none"):
        advantages = [group_advantages(group.rewards, normalize=normalize) for group in groups]
        found[f"advantages/{normalize}"] = np.concatenate(advantages)
    for flags in itertools.product((False, True), repeat=2):
        made = training_samples(
            groups[:4], normalize="std", mask_truncated=flags[0], skip_zero_advantage=flags[1], oldest_version=1
        )
        found[f"samples/{flags}/advantage"] = np.array([sample.advantage for sample in made])
        found[f"samples/{flags}/mask"] = np.concatenate([sample.loss_mask for sample in made])
    return found


def _objective() -> Arrays:
    found: Arrays = {}
    log_pi, reference, batch = inputs.token_batch()
    for mode, rejection in itertools.product(("decoupled", "bypass", "interpolated", "none"), ("off", "on")):
        correction = CorrectionSettings(mode=mode, **(BANDS if rejection == "on" else NO_BANDS))  # type: ignore[arg-type]
        policy = log_pi.clone().requires_grad_()
        step = objective(policy, batch, reference_T=reference, beta=0.05, loss=LossSettings(), correction=correction)
        step.loss.backward()
        assert policy.grad is not None
        outputs = {
            "loss": step.loss,
            "ratio": step.ratio_T,
            "gain": step.gain_T,
            "kl": step.kl_T,
            "gradient": policy.grad,
        }
        outputs |= {
            "proximal": step.correction.proximal_T, "weight": step.correction.weight_T, "rho": step.correction.rho_T,
            "keep_gain": step.correction.keep_gain_T, "keep_kl": step.correction.keep_kl_T, "vetoed": step.correction.vetoed_S,
            "off_band_sequences": step.correction.off_band_S, "off_band_tokens": step.correction.off_band_T,
        }  # fmt: skip
        found |= {f"objective/{mode}/{rejection}/{name}": value.detach().numpy() for name, value in outputs.items()}
        sums = loss_metrics.sums(step, batch, policy, loss=LossSettings(), correction=correction)
        found |= _scalars(f"objective/{mode}/{rejection}/metrics", loss_metrics.report(sums))
    found["kl"] = low_variance_kl(log_pi, reference).numpy()
    return found


def _logprobs() -> Arrays:
    rng = np.random.default_rng(5)
    hidden = torch.tensor(rng.normal(size=(23, 16)), dtype=torch.float32, requires_grad=True)
    weight = torch.tensor(rng.normal(size=(37, 16)), dtype=torch.float32, requires_grad=True)
    target = torch.from_numpy(rng.integers(0, 37, 23))
    temperature = torch.tensor(rng.uniform(0.5, 1.5, 23), dtype=torch.float32)
    logprob, entropy, certainty = token_logprobs(hidden, weight, target, temperature, chunk=7, statistics=True)
    (logprob * torch.linspace(-1, 1, 23)).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert entropy is not None
    assert certainty is not None
    values = {
        "logprob": logprob,
        "entropy": entropy,
        "certainty": certainty,
        "d_hidden": hidden.grad,
        "d_weight": weight.grad,
    }
    return {f"logprobs/{name}": value.detach().numpy() for name, value in values.items()}


def _packing() -> Arrays:
    found: Arrays = {}
    samples = inputs.samples(vocabulary=100, seed=2, version=3)
    for ranks, aggregation in itertools.product((1, 2), ("token_mean", "sequence_mean")):
        packed = pack(
            samples, micro_batch_tokens=200, row_tokens=64, ranks=ranks, policy_version=4, aggregation=aggregation
        )
        for rank, micros in enumerate(packed):
            name = f"packing/{ranks}/{aggregation}/{rank}"
            found |= {f"{name}/{key}": value for key, value in _layout(micros).items()}
    return found


def _layout(micros: Iterable[MicroBatch]) -> Arrays:
    """Integer arrays of all micro-batches as one digest, since the layout is either the same or not; weights and ages as they are."""
    micros = list(micros)
    integers = hashlib.sha256()
    for micro in micros:
        for tensor in (
            micro.input_ids,
            micro.position_ids,
            *ids_of(micro),
            micro.predict_T,
            micro.target_T,
        ):
            integers.update(f"{tuple(tensor.shape)}".encode() + tensor.long().numpy().tobytes())
        integers.update(micro.tokens.sequence_T.long().numpy().tobytes() + " ".join(map(str, micro.ids)).encode())
    return {
        "shapes": np.array([tuple(micro.input_ids.shape) for micro in micros]),
        "integers": np.frombuffer(integers.digest(), np.uint8),
        "weights": torch.cat([micro.tokens.weight_T for micro in micros]).numpy(),
        "ages": torch.cat([micro.tokens.age_T for micro in micros]).numpy(),
    }


def _learner() -> Arrays:
    """Three updates of the shipped model. AdamW's eps is large, so that a gradient near zero does not decide a weight by its sign."""
    plan = LearnerPlan(
        model_path=str(MODEL),
        kl_coef=0.01,
        kl_reference="teacher",
        keep_teacher=True,
        train=TrainSettings(lr=1e-3, updates=4, warmup_frac=0.0, eps=1e-3),
        learner=LearnerSettings(micro_batch_tokens=256, row_tokens=96, logprob_chunk_tokens=64),
        teacher=TeacherSettings(alpha_start=0.3, alpha_end=0.1),
    )
    learner = Learner(plan)
    found: Arrays = {}
    try:
        for update in (1, 2, 3):
            samples = inputs.samples(vocabulary=1024, seed=update, version=update - 1)
            samples = _with_behavior(samples, learner.logprobs(samples, "policy"), seed=update)
            found[f"learner/{update}/teacher_logprobs"] = np.concatenate(learner.logprobs(samples, "teacher"))
            batch = TrainBatch(incarnation=0, update=update, samples=tuple(samples))
            found |= _metrics(f"learner/{update}", learner.update(batch).metrics)
        statistics = learner.token_statistics(samples)
        found["learner/statistics"] = np.array([[one.entropy, one.self_certainty] for one in statistics])
        for which in ("policy", "teacher"):
            found |= _weights(f"learner/{which}", learner, which)
    finally:
        torch.distributed.destroy_process_group()
    return found


def _with_behavior(samples: list[TrainingSample], logprobs: list[Any], *, seed: int) -> list[TrainingSample]:
    """The samples as if weights near the policy had sampled them."""
    rng = np.random.default_rng(seed)
    return [
        dataclasses.replace(sample, behavior_logprobs=own + rng.normal(0, 0.2, len(own)))
        for sample, own in zip(samples, logprobs, strict=True)
    ]


def _weights(name: str, learner: Learner, which: Any) -> Arrays:
    """Sum, norm and a few numbers of every parameter, and a digest of all bits, which is compared only bit by bit."""
    digest = hashlib.sha256()
    sums, few = [], []
    for shard in learner.shards(which):
        values = shard.local.detach().numpy()
        digest.update(shard.name.encode() + values.tobytes())
        exact = values.astype(np.float64)
        sums.append([exact.sum(), np.sqrt(np.square(exact).sum())])  # a BLAS norm depends on the alignment
        few.append(values[:: max(1, len(values) // 16)][:16])
    return {
        f"{name}/sums": np.array(sums),
        f"{name}/few": np.concatenate(few),
        f"{name}/digest": np.frombuffer(digest.digest(), np.uint8),
    }


async def _sampled() -> tuple[dict[str, Any], Arrays]:
    """Greedy and seeded tokens of the embedded engine, and their logprobs."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    engine = EmbeddedEngine(
        EngineContext(
            settings=EngineSettings(slots=4, deterministic=True),
            model_path=MODEL,
            max_model_len=160,
            eos_token_ids=(2,),
        )
    )
    tokens: dict[str, Any] = {}
    logprobs: Arrays = {}
    for number, temperature in itertools.product(range(len(PROMPTS)), (0.0, 1.0)):
        messages = [{"role": "user", "content": PROMPTS[number]}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        task = RolloutTask(
            id=AskedId(question_id=f"q{number}", epoch=0).group("original", "policy"),
            incarnation=0,
            attempt=0,
            group_size=4 if temperature else 1,
            prompt_token_ids=tokenizer.encode(text),
            temperature=temperature,
            max_new_tokens=48,
            run_seed=7,
        )
        async for sequence in engine.generate(task):
            name = f"sampled/{number}/{temperature}/{sequence.sample_index}"
            tokens[name] = [sequence.finish_reason, sequence.token_ids.tolist()]
            logprobs[name] = sequence.behavior_logprobs
    await engine.close()
    return dict(sorted(tokens.items())), dict(sorted(logprobs.items()))


def _metrics(name: str, metrics: Metrics) -> Arrays:
    found = _scalars(name, metrics.scalars)
    return found | {f"{name}/{key}": np.sort(values) for key, values in metrics.histograms.items()}


def _scalars(name: str, scalars: dict[str, float]) -> Arrays:
    """All scalars but those of the clock, as arrays without axes."""
    return {f"{name}/{key}": np.array(value) for key, value in scalars.items() if not key.startswith("throughput/")}
