r"""From a completion's text to its answer: the inside of the last complete box. Runs in the rollout actor.

Grammar, read in one pass from left to right:

    box      := command "{" inside "}"         braces balanced; the answer is `inside` without surrounding space
              | command number                 the TeX short form, "\boxed 7"; only a plain number, since
                                               "\boxed format" is prose
    command  := "\boxed" | "\fbox"             a whole control word ("\boxedx" is another); space may follow. If its backslash
                                               is doubled, the text was escaped once too often: the answer's are halved
    number   := sign? digits, thousands commas, decimals, "/digits" and a percent sign, not continued by a letter,
                digit, brace, power or another command
    escape   := "\" and any one character      so "\{" and "\}" are not braces, and after "\\" a brace is one

An empty box holds no answer. Neither does a box that is never closed (a truncated text) or one that contains another box command;
the inner box counts instead. The last of the remaining boxes is taken.

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
class _OpenBox:
    inside_from: int
    escaped: bool  # its command has two backslashes
    num_open: int = 0  # plain braces that are open inside
    contains_box: bool = False


Fallback = Literal["hashes", "phrase"]
_FALLBACKS: dict[Fallback, re.Pattern[str]] = {  # possessive, so that no run of spaces is read twice
    "hashes": re.compile(r"####[ \t]*+(?=[^\n])"),
    "phrase": re.compile(r"answer\s++is\s*+:?+[ \t]*+(?=[^\n])", re.IGNORECASE),
}
_SENTENCE_END = re.compile(r"\.(?=\s|\Z)")


def extract_answer(text: str, *, fallbacks: Sequence[Fallback] = ()) -> str | None:
    """The answer in the last complete box of `text`, stripped; None if there is none (grammar above).

    fallbacks: tried in order for a text without any box command. `hashes` takes what follows the last "####" on its line (GSM8K),
    `phrase` what follows the last "answer is" up to the end of its sentence.
    """
    answer = _boxed(text)
    if answer is None and not re.search(r"\\(?:boxed|fbox)(?![A-Za-z])", text):
        for name in fallbacks:
            found = _after(text, name)
            if found.strip(" *$"):
                return found.strip().strip("*").strip()
    return answer


def _after(text: str, name: Fallback) -> str:
    """The text after the last mark of `name`, to the end of its line (`phrase`: of its sentence); empty if there is none."""
    *_, last = (None, *_FALLBACKS[name].finditer(text))
    if last is None:
        return ""
    line = text[last.end() :].split("\n", 1)[0]
    return _SENTENCE_END.split(line, maxsplit=1)[0] if name == "phrase" else line


def _boxed(text: str) -> str | None:
    answer: str | None = None
    boxes: list[_OpenBox] = []
    for token in _TOKEN.finditer(text):
        if token["command"]:
            if boxes:
                boxes[-1].contains_box = True
            if token["open"]:
                boxes.append(_OpenBox(token.end(), escaped=token["command"].startswith(r"\\")))
            elif token["number"]:
                answer = token["number"]
        elif boxes and token["brace"] == "{":
            boxes[-1].num_open += 1
        elif boxes and token["brace"] == "}" and boxes[-1].num_open:
            boxes[-1].num_open -= 1
        elif boxes and token["brace"] == "}":
            closed = boxes.pop()
            inside = text[closed.inside_from : token.start()].strip()
            if inside and not closed.contains_box:
                answer = _unescaped(inside) if closed.escaped else inside
    return answer


def _unescaped(answer: str) -> str:
    """The answer with half its backslashes, if all of them are doubled."""
    return answer if "\\" in answer.replace(r"\\", "") else answer.replace(r"\\", "\\")
