r"""From a completion's text to its answer: the inside of the last complete box. Runs in the rollout actor.

Grammar, read in one pass from left to right:

    box      := command "{" inside "}"         braces balanced; the answer is `inside` without surrounding space
              | command number                 the TeX short form, "\boxed 7"; only a plain number, since
                                               "\boxed format" is prose
    command  := "\boxed" | "\fbox"             a whole control word ("\boxedx" is another), its backslash once or
                                               doubled (text escaped one time too often); space may follow
    number   := sign? digits, thousands commas, decimals, "/digits" and a percent sign, not continued by a letter,
                digit, brace, power or another command
    escape   := "\" and any one character      so "\{" and "\}" are not braces, and after "\\" a brace is one

A box that is empty holds no answer; nor does one that is never closed, where the text was cut off; nor one that
contains a box command, whose inner box is looked at instead. What remain are disjoint boxes; the last is taken.

Invariant: never raises, and costs time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_TOKEN = re.compile(
    r"""
    (?P<command> \\{1,2} (?:boxed|fbox) (?![A-Za-z]) )
    \s*+
    (?: (?P<open> \{ )
      | (?P<number> [-+]? (?: [0-9]++ (?: ,[0-9]{3} )*+ (?: \.[0-9]++ )? | \.[0-9]++ ) (?: /[0-9]++ )? (?: \\?% )? )
        (?! [\w^/{] | [.,][0-9] | \\[A-Za-z{] )
    )?
    | \\.
    | (?P<brace> [{}] )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(slots=True)
class _OpenBrace:
    inside_from: int
    is_box: bool
    contains_box: bool = False


Fallback = Literal["hashes", "phrase"]
_FALLBACKS: dict[Fallback, re.Pattern[str]] = {  # possessive, so that no run of spaces is read twice
    "hashes": re.compile(r"####[ \t]*+(?=[^\n])"),
    "phrase": re.compile(r"answer\s++is\s*+:?+[ \t]*+(?=[^\n])", re.IGNORECASE),
}
_SENTENCE_END = re.compile(r"\.(?=\s|\Z)")


def extract_answer(text: str, *, fallbacks: Sequence[Fallback] = ()) -> str | None:
    """The answer in the last complete box of `text`, stripped; None where there is none (grammar above).

    fallbacks: where no box holds one, tried in order: `hashes` is what follows the last "####" on its line (GSM8K), `phrase` what
    follows the last "answer is" up to the end of its sentence. A text with a box that was never closed has no answer all the same.
    """
    answer = _boxed(text)
    if answer is None and not re.search(r"\\(?:boxed|fbox)(?![A-Za-z])", text):
        for name in fallbacks:
            found = _after(text, name)
            if found.strip(" *$"):
                return found.strip().strip("*").strip()
    return answer


def _after(text: str, name: Fallback) -> str:
    """What follows the last sign of `name` on its line, for `phrase` in its sentence; empty where there is none."""
    *_, last = (None, *_FALLBACKS[name].finditer(text))
    if last is None:
        return ""
    line = text[last.end() :].split("\n", 1)[0]
    return _SENTENCE_END.split(line, maxsplit=1)[0] if name == "phrase" else line


def _boxed(text: str) -> str | None:
    answer: str | None = None
    open_braces: list[_OpenBrace] = []
    for token in _TOKEN.finditer(text):
        if token["command"]:
            if open_braces:
                open_braces[-1].contains_box = True
            if token["open"]:
                open_braces.append(_OpenBrace(token.end(), is_box=True))
            elif token["number"]:
                answer = token["number"]
        elif token["brace"] == "{":
            open_braces.append(_OpenBrace(token.end(), is_box=False))
        elif token["brace"] == "}" and open_braces:
            closed = open_braces.pop()
            if closed.contains_box and open_braces:
                open_braces[-1].contains_box = True
            inside = text[closed.inside_from : token.start()].strip() if closed.is_box else ""
            if inside and not closed.contains_box:
                answer = inside
    return answer
