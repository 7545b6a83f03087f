"""Settings of votes, of single rules and of the collapse alarms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from corewarding.dataflow.settings import Completions, Fraction, Number, Questions, Settings, Updates, Whole

VoterWeights = Literal["equal", "confidence"]


class VoteSettings(Settings):
    """How completions elect a pseudo-label."""

    min_share: Fraction = Field(0.0, ge=0, le=1)
    """A vote abstains if the winning answer has a smaller fraction of the votes; 0: never, as in the paper."""
    min_voters: Completions = Field(1, ge=1)
    """A vote abstains if fewer completions of the group have an answer."""
    equivalence: Literal["canonical", "exact"] = "canonical"
    """`canonical`: equal values vote together. `exact`: equal texts vote together, as in the authors' code."""
    fallbacks: tuple[Literal["hashes", "phrase"], ...] = ()
    """For completions without a box: `hashes` takes the text after the last "####", `phrase` the text after the last "answer is"."""
    units: Literal["drop", "keep"] = "drop"
    """`drop`: 5 cm and 5% vote for 5. `keep`: for 5 cm and 5%. Rewards, label accuracy and evaluation follow; 5% is never 0.05."""

    weights: VoterWeights = "equal"
    """`equal`: each completion has one vote. `confidence`: it counts exp(mean log-probability of its tokens), a fraction."""
    on_abstain: Literal["zero", "mask"] = "zero"
    """A group whose label abstained: `zero`: its advantages are 0, its tokens stay in the KL term and the denominators. `mask`: it is
    left out of the loss."""


class LabelsSettings(Settings):
    """A budget of true labels in a run that otherwise labels itself."""

    budget: Questions = Field(0, ge=0)
    """This many questions, chosen by the seed, are judged by the data set's answer, whatever the rule; every read is counted in
    labels_read."""


class RuleSettings(Settings):
    """Numbers of single reward rules."""

    empo_entropy_bound: Number | None = Field(None, gt=0)
    """EMPO gives no reward if the entropy of the answers, in nats, is at least this; None: log of the group's size."""
    evol_similarity: Literal["ngrams", "embedding"] = "ngrams"
    """EVOL-RL compares completions by counts of token n-grams, or by embeddings of their texts, as in the paper."""
    evol_ngram: Whole = Field(3, ge=1)
    """Tokens of an n-gram, a count."""
    evol_embedding_model: str | None = None
    """Model folder or Hugging Face hub id for `embedding`; it runs on the CPU, in the process of the replay buffer."""
    restrain_sigma: Number = Field(0.5, gt=0)
    """RESTRAIN weighs an answer of share f by exp(-(f - 1)^2 / (2 sigma^2)): small values come close to the majority vote."""
    restrain_min_votes: Completions = Field(3, ge=1)
    """RESTRAIN penalises all completions of a question whose most common answer has fewer votes."""
    restrain_penalty: Number = Field(1.0, ge=0)
    """RESTRAIN subtracts this from the advantages of a penalised question."""
    restrain_question_sigma: Number = Field(0.5, gt=0)
    """RESTRAIN weighs a question by the same Gaussian of the share of the initial model's most common answer."""


class CollapseSettings(Settings):
    """Alarms for reward collapse: rewards rise while answers are wrong. A threshold of None turns its signal off."""

    on_collapse: Literal["warn", "pause", "stop"] = "warn"
    """`warn`: log a warning. `pause`: wait until a person resumes the run. `stop`: end with exit code 1. No checkpoint is written, so
    the last one is from before the alarm."""
    patience: Updates = Field(3, ge=1)
    """Updates in a row in which a signal must exceed its threshold before the alarm."""
    rise: Fraction = Field(0.2, ge=0, le=1)
    """Fraction by which a signal must also exceed its mean over the first `patience` updates; base models often truncate at first."""
    top_answer_frac: Fraction | None = Field(0.4, gt=0, le=1)
    """Threshold: fraction of the most common answer over different questions; it is small for a healthy model."""
    no_answer_frac: Fraction | None = Field(0.6, gt=0, le=1)
    """Threshold: fraction of completions without an answer."""
    truncated_frac: Fraction | None = Field(0.6, gt=0, le=1)
    """Threshold: fraction of completions cut off at rollout.max_new_tokens."""
    repetition_frac: Fraction | None = Field(0.5, gt=0, le=1)
    """Threshold: fraction of a completion's 4-grams that occurred earlier in it, mean over completions."""
