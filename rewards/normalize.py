r"""From an answer to the key it votes by. Two answers are equivalent exactly when their keys are equal, so equivalence
is reflexive, symmetric and transitive by construction, as counting votes requires.

`canonical` unifies spellings, and numbers by their exact value: $\dfrac12$, 1/2, 0.5 and .50 share the key "1/2". It
does no algebra: x+1 and 1+x stay apart. What it keeps apart on purpose, since a key that merged both pairs would by
transitivity merge three meanings: 25% is neither 25 nor 1/4; 5 cm is neither 5 nor 5 m. A degree or dollar sign at a
plain number is dropped, as questions that ask for degrees or dollars are answered with and without.

Invariant: never raises, keys are fixed points (the key of a key is itself), and the time is bounded for any text: no
power is evaluated, and text over 1,000 characters, or still changing after 8 rounds of rewriting, stands for itself.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Literal

MAX_CHARS = 1_000  # also keeps every integer under the interpreter's limit on digits
MAX_ROUNDS = 8

Equivalence = Literal["canonical", "exact"]

_GROUP = r"\{(?:[^{}]++|\{(?:[^{}]++|\{[^{}]*+\})*+\})*+\}"  # a braced argument, nested up to three deep
_INT = r"(?:[1-9][0-9]{0,2}(?:[, ][0-9]{3})++(?![0-9])|[0-9]++)"

_CHARACTERS = str.maketrans(
    {"−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "°": r"^\circ ", "π": r"\pi ", "√": r"\sqrt "}
)
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_NOISE = re.compile(
    r"""(?P<keep> \\\\ | \\\$ )
      | \\(?: left | right )(?![A-Za-z]) (?: \s*\. )?
      | \\(?: [bB]igg?[lr]? | displaystyle | limits )(?![A-Za-z])
      | \ ?\\!\ ?
      | (?P<space> \\[,:;>\ \s] | ~ | \\q?quad(?![A-Za-z]) | \\thinspace(?![A-Za-z]) )
    """,
    re.VERBOSE,
)
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname) ?\{([^{}]*+)\}", r" \1 "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\{,\}", ","),
        (r"\^? ?\{ ?\\circ ?\}|\^? ?\\degrees?(?![A-Za-z])|\^ ?\\circ(?![A-Za-z])", r"^\\circ "),
        (r"\\%", "%"),
        (r" +", " "),
        (r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])", ""),  # a space counts between two words or numbers only: 1 1/4, \pi x
        (r"(?<=[0-9]) (?=[A-Za-z])|((?<![A-Za-z\\])[A-Za-z]|\\[A-Za-z]++) (?=[0-9])", r"\1"),
        (r"(\\(?:frac|sqrt))(?: ([A-Za-z0-9])|([0-9]))", r"\1{\2\3}"),
        (rf"(\\frac{_GROUP}) ?([A-Za-z0-9])", r"\1{\2}"),
        (r"([\^_])\{([A-Za-z0-9])\}", r"\1\2"),
        (r"(?<=[^.])\.$", ""),
        (r"^\{([^{}]*+)\}$", r"\1"),
    )
)
_SPACED_LIST = re.compile(
    r"-?[1-9][0-9]{0,2}(?:, *[0-9]{3})+\.?"
)  # with a space, 117, 156 is two numbers and not 117156
_NUMBER = re.compile(
    rf"""(?: \\\$ )? (?P<sign> [-+]? ) (?: \\\$ )?
    (?: (?P<whole> {_INT} )?
        (?: (?<=[0-9])\ | (?<![0-9]) ) (?P<over> {_INT} ) / (?P<under> {_INT} )
      | (?P<whole_2> {_INT} )? \ ?
        \\frac\{{ (?P<over_2> [-+]? {_INT} ) \}}\{{ (?P<under_2> [-+]? {_INT} ) \}}
      | (?P<decimal> (?: {_INT} (?: \.[0-9]*+ )? | \.[0-9]++ ) )
    )
    (?: (?P<percent> % ) | \ ? (?: \^\\circ | degrees? ) )?
    """,
    re.VERBOSE,
)


def answer_key(answer: str, *, equivalence: Equivalence = "canonical") -> str:
    """The text `answer` votes by: its canonical form, or for `exact` the answer itself, as the authors' code counts."""
    return answer if equivalence == "exact" else _canonical(answer)


@lru_cache(maxsize=8192)
def _canonical(answer: str) -> str:
    """The fixed point of `_rewrite`; the stripped answer itself where it is too long or does not settle."""
    answer = answer.strip()
    text = answer
    for _ in range(MAX_ROUNDS):
        if len(text) > MAX_CHARS:
            return answer
        rewritten = _rewrite(text)
        if rewritten == text:
            return text
        text = rewritten
    return answer


def _rewrite(text: str) -> str:
    """One round of rewriting; never leaves nothing of something."""
    rewritten = " ".join(text.translate(_CHARACTERS).split())
    for opening, closing in _DELIMITERS:
        inside = rewritten[len(opening) : -len(closing)]
        wrapped = len(rewritten) > len(opening) + len(closing) and rewritten == opening + inside + closing
        if wrapped and opening not in inside and not inside.endswith("\\"):
            rewritten = inside
    rewritten = _NOISE.sub(lambda match: match["keep"] or (" " if match["space"] else ""), rewritten)
    if ", " in rewritten and _SPACED_LIST.fullmatch(rewritten.strip()):
        return re.sub(", *", ", ", rewritten.strip().rstrip("."))
    for pattern, replacement in _REWRITES:
        rewritten = pattern.sub(replacement, rewritten)
    return _number_key(rewritten) or rewritten or text


def _number_key(text: str) -> str | None:
    """The key of a plain number, by its exact value: "7", "-3/2", "25%"; None for any other text."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    value = Fraction(_digits(match["decimal"] or match["whole"] or match["whole_2"] or "0"))
    if match["decimal"] is None:
        over, under = (int(_digits(match[name] or match[f"{name}_2"])) for name in ("over", "under"))
        if under == 0:
            return None
        if (match["whole"] or match["whole_2"]) and not 0 < over < under:
            return None  # 2\frac{5}{3} is no mixed number
        value += Fraction(over, under)
    if match["sign"] == "-":
        value = -value
    return f"{value}%" if match["percent"] else str(value)


def _digits(number: str) -> str:
    return number.replace(",", "").replace(" ", "")
