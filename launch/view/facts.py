"""What the viewer knows of a run besides its journal: the rule and its votes, and the questions with their answers.

Read from config.yaml as plain data: no plug-in of the run is loaded, and nothing is asked of a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from pydantic import ValidationError

from corewarding.dataflow.carriers import Question
from corewarding.dataflow.errors import UserError
from corewarding.launch.report.run_directory import RunDir
from corewarding.questions.gold import GoldAnswers
from corewarding.questions.load import load_training
from corewarding.questions.settings import DataSettings
from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.answers.key import answer_key
from corewarding.rewards.rules.contract import GroupKind, RewardRule
from corewarding.rewards.rules.table import REWARD_RULES
from corewarding.rewards.settings import VoteSettings


@dataclass(slots=True, kw_only=True)
class Facts:
    """Of one run."""

    rule_name: str
    rule: RewardRule | None  # None for a plug-in's rule
    vote: VoteSettings
    key: Callable[[str], str]  # equivalent answers have equal keys
    model_path: str | None
    updates: int | None  # that the run shall make
    masks_truncated: bool = False  # loss.mask_truncated
    notes: list[str] = field(default_factory=list)  # what could not be read, and what that means
    questions: dict[str, Question] = field(default_factory=dict)
    gold: GoldAnswers = field(default_factory=GoldAnswers.without)

    @classmethod
    def of(cls, run_dir: RunDir) -> Facts:
        """Of a run folder, whose config.yaml may be missing. `read_questions` adds the questions."""
        saved = run_dir.saved() if run_dir.config.is_file() else {}
        notes: list[str] = []
        vote = VoteSettings()
        try:
            vote = VoteSettings.model_validate(_section(saved, "vote"))
        except ValidationError:
            notes.append("vote: settings of another version; votes are counted with the defaults")
        name = str(saved.get("rule", "unknown"))
        rule = None
        if name in REWARD_RULES:
            rule = REWARD_RULES[name].labelled(_section(saved, "label").get("from"))
        keyed = lru_cache(maxsize=100_000)(partial(answer_key, equivalence=vote.equivalence, units=vote.units))
        model, updates = _section(saved, "model").get("path"), _section(saved, "train").get("updates")
        return cls(
            rule_name=name,
            rule=rule,
            vote=vote,
            key=keyed,
            model_path=model if isinstance(model, str) else None,
            updates=updates if isinstance(updates, int) else None,
            masks_truncated=_section(saved, "loss").get("mask_truncated") is True,
            notes=notes,
        )

    def read_questions(self, run_dir: RunDir) -> None:
        """Reads wordings and answers from the run's data set; a note if that is not possible here."""
        if not run_dir.config.is_file():
            return
        saved = run_dir.saved()
        seed = _section(saved, "train").get("seed", 0)
        needs_rephrased = self.rule is None or self.rule.needs_rephrased
        try:
            data = DataSettings.model_validate(_section(saved, "data"))
            asked = data if needs_rephrased else data.model_copy(update={"rephrased": None})
            found = load_training(asked, seed=int(seed), needs_rephrased=False)
        except (UserError, ValidationError, OSError) as error:
            first = str(error).splitlines()[0]
            self.notes.append(f"wordings are taken from the prompts, and answers are not known here: {first}")
            return
        self.questions = {question.id: question for question in found.questions}
        self.gold = found.gold

    def answer_of(self, question_id: str) -> str | None:
        """The data set's answer, if it is known here."""
        return self.gold.read(question_id, reader="diagnostics")

    def voters_of(self, trained: GroupKind) -> tuple[GroupKind, ...]:
        """The groups whose votes label a trained group; () if the rule does not say."""
        if self.rule is None:
            return ()
        voters = self.rule.voters
        if self.rule.judge is None or self.rule.both_wordings or len(voters) < 2:
            return voters
        return tuple(kind for kind in voters if kind[0] != trained[0])

    def extraction(self, text: str) -> str:
        """Where in the text its answer was found."""
        if extract_answer(text) is not None:
            return "the last complete box"
        for name in self.vote.fallbacks:
            if extract_answer(text, fallbacks=(name,)) is not None:
                return {"hashes": 'the text after the last "####"', "phrase": 'the text after the last "answer is"'}[
                    name
                ]
        return "no complete box" if "box" in text else "no box"


def _section(saved: dict[str, Any], name: str) -> dict[str, Any]:
    section = saved.get(name)
    return section if isinstance(section, dict) else {}
