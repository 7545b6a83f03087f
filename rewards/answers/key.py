r"""From an answer to its canonical key. Two answers are equivalent if and only if their keys are equal. So equivalence is reflexive,
symmetric and transitive by construction, and a vote only counts keys.

| kind | examples | equal to |
|---|---|---|
| integer, rational, decimal | 1/2, \frac12, 0.5, 1\frac12, 0.1\overline{6}, 0.333..., 3\times10^5 | numbers of equal exact value |
| real, complex | radicals, \pi, e, i, logarithms, trigonometry | values that agree to 20 digits |
| percent | 25\% | a number with a unit: 25, never 1/4 (`units="keep"`: percentages only) |
| expression | letters: compared at fixed points | x(x+1) and x^2+x |
| equation | compared up to a constant factor | y=2x and 2y-4x=0; a single letter = a value is that value |
| interval, inequality | bracketed ends; x>3 is (3,\infty) | ends of equal keys, same brackets |
| tuple | (1,2) in order; (x,y)=(1,2) | the open interval of the same text |
| set | {1,2}, or a bare list "1, 2" and "1 and 2", or \pm | any order; only braces ignore repetitions |
| union, matrix, determinant, ratio | compared by the keys of their parts | |
| base | 204_5 | the same digits and base |
| choice | a letter A to H, alone or in brackets | |
| time, date | 3:30 p.m., March 3 | |
| unevaluated | 1/0, 9^{9^{9^9}}: no value, or one beyond the bounds | the same tree |
| text | everything else, without case, spaces, markup and full stop | |

Of "exact \approx decimal" the exact side counts. Units, the percent sign among them, are dropped (`units="drop"`) or kept
(`units="keep"`); degree and dollar signs are always dropped. Time is bounded for any text (see parser.py and operations.py), so no
call has to be killed.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from corewarding.rewards.answers.operations import OutOfBoundsError
from corewarding.rewards.answers.parser import parse
from corewarding.rewards.answers.structure import CanonicalAnswer, Units, tree_key
from corewarding.rewards.answers.tokens import CHARACTERS, NotMathError

Equivalence = Literal["canonical", "exact"]


_PLAIN = re.compile(
    r"""\s*+ \$?+ \s*+ (?P<sign> [-+]?+ ) \s*+  # possessive: a text of spaces is refused in one pass
    (?: (?P<integer> [0-9]{1,300} ) (?: \. (?P<decimals> [0-9]{0,300} ) )?
      | \\ [dt]? frac \{ (?P<over> [0-9]{1,300} ) \} \{ (?P<under> [0-9]{1,300} ) \} )
    \s*+ \$?+ \s*+""",
    re.VERBOSE,
)
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"\s*(?:\(\s*([A-Z])\s*\)|([A-H]))\s*")
_CHOICES = re.compile(r"\(?[A-Z]\)?(?:\s*,?\s*(?:and|or|,)\s*\(?[A-Z]\)?)+")
_TIME = re.compile(r"([01]?[0-9]|2[0-3])(?::([0-5][0-9]))?(?::([0-5][0-9]))?\s*([ap])\.?\s*m\.?", re.IGNORECASE)
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_DATE = re.compile(rf"({_MONTHS})\s+([0-9]{{1,2}})(?:\s*,\s*([0-9]{{4}}))?", re.IGNORECASE)
_SPACING = re.compile(r"\\[,:;>!\s]|\\q?quad(?![A-Za-z])|~|[\s$]+")

_DOUBLED = re.compile(r"\\(?=\\[A-Za-z]{2})")
_MARKUP = re.compile(r"\\(?:left|right)(?![A-Za-z])")
_NEEDLESS_SPACE = re.compile(
    r"(?P<needed>\\[a-z]+[ ](?=[a-z]))|(?<![0-9])[ ]|[ ](?![0-9])"
)  # it ends a command, parts digits


def canonical_key(answer: str, *, units: Units = "drop") -> CanonicalAnswer:
    """The canonical form of `answer` (table above). Never raises."""
    plain = _PLAIN.fullmatch(answer)
    if plain is not None and (plain["under"] is None or int(plain["under"])):
        return _plain(plain)
    return _canonical(answer, units)


def answer_key(answer: str, *, equivalence: Equivalence = "canonical", units: Units = "drop") -> str:
    """The text that votes for `answer`: its canonical key, or for `exact` the answer itself, as in the authors' code."""
    return answer if equivalence == "exact" else canonical_key(answer, units=units).key


def same_answer(one: str, other: str) -> bool:
    """Whether two answers have equal keys."""
    return canonical_key(one) == canonical_key(other)


def _plain(match: re.Match[str]) -> CanonicalAnswer:
    sign = "-" if match["sign"] == "-" else ""
    if match["over"] is not None:
        return _rational(Fraction(int(sign + match["over"]), int(match["under"])))
    if match["decimals"]:
        return _rational(
            Fraction(int(sign + match["integer"] + match["decimals"]), 10 ** len(match["decimals"])), decimal=True
        )
    return CanonicalAnswer(str(int(sign + match["integer"])), "integer")


def _rational(value: Fraction, *, decimal: bool = False) -> CanonicalAnswer:
    kind = "integer" if value.denominator == 1 else "decimal" if decimal else "rational"
    return CanonicalAnswer(str(value), kind)


@lru_cache(maxsize=16_384)
def _canonical(answer: str, units: Units) -> CanonicalAnswer:
    text = normalized(answer)
    bare = _SPACING.sub(" ", _WRAPPED.sub(r" \1 ", text.replace(r"\!", ""))).strip(" .,")
    for pattern, kind in ((_CHOICE, "choice"), (_TIME, "time"), (_DATE, "date")):
        match = pattern.fullmatch(bare)
        if match is not None:
            parts = (part.lower().lstrip("0") for part in match.groups() if part is not None)
            return CanonicalAnswer(f"{kind}:" + ":".join(part or "0" for part in parts), kind)
    chosen = _CHOICES.fullmatch(bare)
    if chosen is not None:
        return CanonicalAnswer(
            "{" + "; ".join(f"choice:{one.lower()}" for one in sorted(set(re.findall("[A-Z]", bare)))) + "}", "set"
        )
    try:
        return tree_key(parse(text), units=units)
    except (NotMathError, OutOfBoundsError, RecursionError):
        return CanonicalAnswer(f"text:{_as_text(text)}", "text")


def normalized(answer: str) -> str:
    r"""The text that is read: without enclosing dollar signs or delimiters, and \\\\frac as \\frac (in a matrix, \\\\ ends a row)."""
    return _undelimited((answer if r"\begin" in answer else _DOUBLED.sub("", answer)).strip())


def _undelimited(text: str) -> str:
    """Without delimiters, one in another too, and without a final stop or comma behind them."""
    bare = text.rstrip(" .,")
    for opening, closing in _DELIMITERS:
        inside = bare[len(opening) : -len(closing)]
        wrapped = len(bare) > len(opening) + len(closing) and bare == opening + inside + closing
        if wrapped and opening not in inside and not inside.endswith("\\"):
            return _undelimited(inside.strip())
    return text


def _as_text(text: str) -> str:
    """Words without markup, case, spaces and final stop; never empty for a text that is not."""
    plain = _MARKUP.sub("", text.translate(CHARACTERS)).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    words = " ".join(_SPACING.sub(" ", _WRAPPED.sub(r" \1 ", plain)).split()).rstrip(".").strip().lower()
    return _NEEDLESS_SPACE.sub(lambda match: match["needed"] or "", words) or text
