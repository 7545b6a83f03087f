"""Makes rephrasings with a model: the prompt, and the check of the reply.

A reply is refused rather than repaired, because the rephrased wording is trained on: a lost number would make a wrong question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from corewarding.questions.pairs import check_pair

BEGIN, END = "<rephrased>", "</rephrased>"

PROMPT = """Rewrite the mathematics problem below so that it reads like another problem while it stays the same one.

- Say it in other words, in another order or in another everyday setting; do not copy its sentences.
- Keep its meaning, every number, quantity, unit, variable and formula, all conditions, and the form the answer is asked in. \
Its answer must not change.
- Add no hint, do not solve it, do not mention this request.

Write only the new problem, between {begin} and {end}.

Problem:
{question}"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a reply cannot be used. `reason` is one of a few words, for counting; `detail` says what was found."""

    reason: str
    detail: str


def rephrase_prompt(question: str) -> str:
    """The user message that asks for another wording of `question`."""
    return PROMPT.format(begin=BEGIN, end=END, question=question)


def read_reply(question: str, reply: str) -> str | Refusal:
    """The new wording in a reply, or the reason to refuse it.

    Text up to "</think>" is ignored. The reply must have exactly one pair of markers and a wording that passes check_pair.
    """
    said = reply.rpartition("</think>")[2]
    if said.count(BEGIN) != 1 or said.count(END) != 1 or said.index(BEGIN) > said.index(END):
        return Refusal("markers", f"{said.count(BEGIN)} of {BEGIN}, {said.count(END)} of {END}")
    wording = said.partition(BEGIN)[2].partition(END)[0].strip()
    if re.search(r"\\boxed|\\fbox|####|\b(?:the )?answer is\b", wording, re.IGNORECASE):
        return Refusal("answers", "it states an answer")
    problems = check_pair(question, wording)
    if problems:
        return Refusal(problems[0].problem, "; ".join(f"{p.problem}: {p.detail}" for p in problems))
    return wording
