"""A run folder whose journal the real replay buffer and its journal writer made, of completions drawn at random: for the viewer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from tokenizers import Tokenizer

from corewarding.dataflow.carriers import Completion, Timings, TrainingSample
from corewarding.dataflow.codec import encode
from corewarding.dataflow.ids import AskedId, GroupId
from corewarding.launch.config.paths import PACKAGE
from corewarding.learner.replay.actor import BufferActor
from corewarding.learner.replay.admission import AdmissionLimits
from corewarding.learner.replay.journal.history import History
from corewarding.learner.replay.journal.journal import JournalPlan
from corewarding.learner.replay.journal.records import Start
from corewarding.learner.replay.journal.segments import SegmentWriter
from corewarding.learner.replay.scoring import BufferPlan
from corewarding.learner.token_log.entries import (
    IN_GAIN,
    IN_KL,
    IN_LOSS,
    TokenEntry,
    TokenValues,
    checksum,
    recorded,
    to_bytes,
)
from corewarding.questions.gold import GoldAnswers
from corewarding.questions.load import QuestionSet, load_training
from corewarding.questions.settings import DataSettings
from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.rules.table import REWARD_RULES
from corewarding.rewards.settings import VoteSettings

MODEL = "models/arithmetic-base"
WORDS = ["so", "we", "add", "the", "two", "numbers", "and", "then", "take", "away", "what", "was", "left", "over"]


class SampledRun:
    """Writes updates into `folder`, one at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        rule: str = "co_rewarding_iii",
        questions: int = 4,
        group_size: int = 4,
        length: int = 24,
        updates: int = 1000,
        seed: int = 0,
        min_share: float = 0.4,
    ) -> None:
        """length: tokens of a completion, about."""
        self.folder, self.length, self.questions, self.group_size = folder, length, questions, group_size
        self.draws, self.tokenizer = random.Random(seed), Tokenizer.from_file(str(PACKAGE / MODEL / "tokenizer.json"))
        data = {"kind": "arithmetic", "num_train": 256}
        vote = {"min_share": min_share}
        config = {
            "rule": rule,
            "model": {"path": MODEL},
            "data": data,
            "vote": vote,
            "train": {"updates": updates, "seed": 0},
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        self.rule = REWARD_RULES[rule]
        self.asked: QuestionSet = load_training(DataSettings.model_validate(data), seed=0, needs_rephrased=False)
        limits = AdmissionLimits(
            questions_per_update=questions, total_updates=10**9, staleness_max=4, depth=1, label_max=8
        )
        plan = BufferPlan(
            rule=rule,
            group_size=group_size,
            run_seed=1,
            incarnation=0,
            limits=limits,
            vote=VoteSettings(min_share=min_share),
        )
        start = Start(start="one", goes_on=False, incarnation=0, updates=0, time_s=0.0, config="", setting={})
        journal = JournalPlan(folder=folder / "journal", start=start, cursor={})
        self.actor = BufferActor(plan, GoldAnswers.without(), journal=journal)
        self.made = self.calls = 0

    def make(self, updates: int) -> None:
        async def all_of_them() -> None:
            for _ in range(updates):
                await self.make_one()

        asyncio.run(all_of_them())

    def wait(self, texts: list[str]) -> AskedId:
        """A question whose policy group has arrived, with these texts, and nothing else."""
        return asyncio.run(self._wait(texts))

    async def make_one(self) -> None:
        """One update: its questions are asked, answered, scored and trained."""
        size, begin = len(self.asked.questions), self.made * self.questions
        asked = [
            AskedId(question_id=self.asked.questions[at % size].id, epoch=at // size)
            for at in range(begin, begin + self.questions)
        ]
        assert await self.actor.admit(self._call(), encode(asked)) == len(asked)
        for one in asked:
            for kind in self.rule.groups:
                name = one.group(*kind)
                await self.actor.accept(encode([self._completion(name, i) for i in range(self.group_size)]))
        self.made += 1
        await self.actor.take(self.made)
        await self.actor.report(self.made)
        await self.actor.updated(self.made, "0" * 32)
        await self.actor.acknowledged("policy", self.made - 1)  # the engines still swap
        await self.actor.acknowledged("teacher", self.made - 1)

    async def _wait(self, texts: list[str]) -> AskedId:
        asked = AskedId(question_id=self.asked.questions[-1].id, epoch=9)
        assert await self.actor.admit(self._call(), encode([asked])) == 1
        group = asked.group(*self.rule.groups[0])
        await self.actor.accept(encode([self._completion(group, i, text) for i, text in enumerate(texts)]))
        return asked

    def _call(self) -> int:
        self.calls += 1
        return self.calls

    def _completion(self, group: GroupId, index: int, text: str | None = None) -> Completion:
        if text is None:
            text = self._text(group.question_id)
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids or [0]
        swap = self.draws.randrange(1, len(ids)) if len(ids) > 1 and self.draws.random() < 0.2 else len(ids)
        old = max(0, self.made - 1)
        return Completion(
            id=group.completion(index),
            incarnation=0,
            attempt=0,
            prompt_token_ids=np.array(self.tokenizer.encode("How many?", add_special_tokens=False).ids),
            token_ids=np.array(ids),
            behavior_logprobs=np.array([-self.draws.expovariate(2.0) for _ in ids]),
            token_versions=np.array([old] * swap + [self.made] * (len(ids) - swap)),
            temperature=1.0,
            text=text,
            answer=extract_answer(text),
            finish_reason="stop" if self.draws.random() < 0.9 else "length",
            actor_id=f"{group.source}-0",
            timings=Timings(submitted_s=1.0, started_s=2.0, finished_s=3.5),
        )

    def _text(self, question_id: str) -> str:
        draw = self.draws.random()
        gold = self.asked.gold.read(question_id, reader="diagnostics")
        answer = gold if draw < 0.5 else str(self.draws.randrange(5))
        words = " ".join(self.draws.choices(WORDS, k=max(1, self.length * 3 // 4)))
        return words + (f". \\boxed{{{answer}}}" if draw < 0.9 else ".")


def note(
    run: Path, update: int, *, place: Callable[[Path], Path] = recorded, ratio: float = 1.5, cap: float = 1.25
) -> list[TokenEntry]:
    """Writes the token log of an update whose tokens all have this importance ratio. Returns what it holds."""
    (past,) = History.of(run / "journal").updates(update - 1, until=update)
    found: dict[AskedId, list[TrainingSample]] = {}
    for sample in past.batch.samples:
        found.setdefault(sample.id.group.asked, []).append(sample)
    entries = [
        TokenEntry(
            update=update,
            asked=asked,
            values={one.id: _values(one, ratio, cap) for one in samples},
            checksums={one.id: checksum(one) for one in samples},
        )
        for asked, samples in found.items()
    ]
    writer = SegmentWriter(place(run / "tokens") / "rank-0")
    for entry in entries:
        writer.append(to_bytes(entry))
    writer.close()
    return entries


def _values(sample: TrainingSample, ratio: float, cap: float) -> TokenValues:
    policy = sample.behavior_logprobs + np.float32(np.log(ratio))
    rho = np.full_like(policy, ratio)
    marks = np.full(len(policy), IN_LOSS | IN_GAIN | IN_KL, np.uint8)
    return TokenValues(policy=policy, proximal=policy, ratio=rho, weight=np.minimum(rho, np.float32(cap)), marks=marks)
