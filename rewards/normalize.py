r"""Answer to key: two answers are the same answer exactly when their keys are equal.

Because equality of keys is an equivalence relation, a vote is a count. The canonical key is a normalized text: spacing,
dollar signs, `\left`, `\text` and the like go; plain numbers, decimals and simple fractions become one reduced fraction, so
`0.5`, `1/2` and `\frac12` are one answer. Percent signs and units stay: 5 is not 5%. Nothing is ever evaluated, so hostile
text costs no more than its length.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

Equivalence = Literal["canonical", "exact"]

MAX_DIGITS = 60  # longer numbers stay text
_DROPPED = re.compile(r"\\left|\\right|\\displaystyle|\\[!,;:]|\\ |~|\$|\\\(|\\\)|\\\[|\\\]")
_WRAPPERS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_FRACTION_SPELLINGS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_BARE_FRACTION = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|\{([^{}]*)\}\s*(\d)|(\d)\s*\{([^{}]*)\})")
_LATEX_RATIO = re.compile(r"([+-]?)\\frac\{([+-]?\d+)\}\{([+-]?\d+)\}")
_RATIO = re.compile(r"([+-]?\d+)/(\d+)")
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def answer_key(answer: str, *, equivalence: Equivalence = "canonical") -> str:
    """The class `answer` votes for. `exact` is the text itself, as in the authors' code. Never raises."""
    if equivalence == "exact":
        return answer
    text = _tidy(answer)
    number = _number(text)
    if number is None:
        return text
    return str(number.numerator) if number.denominator == 1 else f"{number.numerator}/{number.denominator}"


def _tidy(answer: str) -> str:
    text, before = answer, None
    while text != before:  # each pass shortens or settles; a wrapper may hold another
        before = text
        text = _DROPPED.sub("", text)
        text = _WRAPPERS.sub(r"\1", text)
        text = _FRACTION_SPELLINGS.sub(r"\\frac", text)
        text = _BARE_FRACTION.sub(_braced, text)
        text = re.sub(r"\\%", "%", text)
        text = re.sub(r"\^\s*\\circ|\^\s*\{\s*\\circ\s*\}|°", r"\\degree", text)
        text = re.sub(r"\s+", "", text).rstrip(".,;")
    return text


def _braced(match: re.Match[str]) -> str:
    a, b, c, d, e, f = match.groups()
    return "\\frac{%s}{%s}" % next((x, y) for x, y in ((a, b), (c, d), (e, f)) if x is not None)  # noqa: UP031


def _number(text: str) -> Fraction | None:
    """The rational that `text` spells, None for anything else."""
    if len(text) > MAX_DIGITS:
        return None
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if _DECIMAL.fullmatch(text):
        return Fraction(text)
    if ratio := _RATIO.fullmatch(text):
        top, bottom = int(ratio[1]), int(ratio[2])
    elif ratio := _LATEX_RATIO.fullmatch(text):
        top, bottom = int(ratio[2]) * (-1 if ratio[1] == "-" else 1), int(ratio[3])
    else:
        return None
    return Fraction(top, bottom) if bottom else None
