r"""Text to answer: the last complete box of a completion.

    box     = ("\boxed" | "\fbox") spaces ( "{" body "}" | token )
    body    = text whose braces balance; "\{" and "\}" are not braces
    token   = one run of letters and digits, with an optional sign and decimal part: `\boxed 7`

A box that is not closed is no answer, but an earlier complete one still counts; an empty box is no answer; a body that holds
a box command of its own is never the answer, the innermost last one is. Runs in linear time, whatever the text.
"""

from __future__ import annotations

import re

_COMMAND = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_TOKEN = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?|[A-Za-z](?![A-Za-z])")
MAX_ANSWER_CHARS = 1000


def extract_answer(text: str) -> str | None:
    """The body of the last complete box in `text`, stripped; None where there is none. Never raises."""
    for command in reversed(list(_COMMAND.finditer(text))):
        body = _body(text, command.end())
        if body is not None and not _COMMAND.search(body) and body.strip() and len(body) <= MAX_ANSWER_CHARS:
            return body.strip()
    return None


def _body(text: str, start: int) -> str | None:
    """What the box whose argument begins at `start` holds; None where it is not closed or holds prose."""
    if text[start : start + 1] != "{":
        token = _TOKEN.match(text, start)
        return token.group() if token else None
    depth, position = 0, start
    end = min(len(text), start + MAX_ANSWER_CHARS + 2)
    while position < end:
        char = text[position]
        if char == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth == 0:
            return text[start + 1 : position]
        position += 1
    return None
