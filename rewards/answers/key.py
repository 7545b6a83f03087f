r"""From an answer to its canonical key. Two answers are equivalent exactly when their keys are equal, so equivalence is reflexive,
symmetric and transitive by construction, and a vote is a count.

| kind | what | equal to |
|---|---|---|
| integer, rational, decimal | 1/2, \frac12, 0.5, 1\frac12, 0.1\overline{6}, 3\times10^5 | numbers of equal exact value |
| real, complex | radicals, \pi, e, i, logarithms, trigonometry | values that agree to 20 digits |
| percent | 25\% | percentages alone: neither 25 nor 1/4 |
| expression | letters: equal at three fixed points | x(x+1) and x^2+x |
| equation | equal up to a constant factor | y=2x and 2y-4x=0; a lone letter = a value is that value |
| interval, inequality | bracketed ends; x>3 is (3,\infty) | ends of equal keys, same brackets |
| tuple | (1,2) in order | the open interval of the same text |
| set | {1,2}, or the bare list "1, 2" and "1 and 2", or \pm | any order |
| union, matrix, determinant, ratio | parts by key | |
| base | 204_5 | the same digits and base |
| choice | a letter A to H, alone or in brackets | |
| time, date | 3:30 p.m., March 3 | |
| unevaluated | 1/0, 9^{9^{9^9}}: no value, or one beyond all bounds | the same tree |
| text | all else, without case, spacing and full stop | |

Units and degree and dollar signs at a number are dropped (`units="drop"`) or kept (`units="keep"`). Time is bounded for any text
(see rewards/answers/parser.py and rewards/answers/value.py): there is nothing here that would have to be killed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from corewarding.rewards.answers.parser import Node, parse
from corewarding.rewards.answers.tokens import NotMathError
from corewarding.rewards.answers.value import OutOfBoundsError, fingerprint, letters_of, proportion

Equivalence = Literal["canonical", "exact"]
Units = Literal["drop", "keep"]


@dataclass(frozen=True, slots=True)
class CanonicalAnswer:
    """Equal for equivalent answers. `kind` (table above) is for reports and takes no part in equality."""

    key: str
    kind: str = field(compare=False)


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
_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_DATE = re.compile(rf"({'|'.join(_MONTHS)})\s+([0-9]{{1,2}})(?:\s*,\s*([0-9]{{4}}))?", re.IGNORECASE)
_SPACING = re.compile(r"\\[,:;>!\s]|\\q?quad(?![A-Za-z])|~|[\s$]+")


def canonical_key(answer: str, *, units: Units = "drop") -> CanonicalAnswer:
    """The canonical form of `answer` (table above). Never raises; the same for equivalent answers."""
    plain = _PLAIN.fullmatch(answer)
    if plain is not None and (plain["under"] is None or int(plain["under"])):
        return _plain(plain)
    return _canonical(answer, units)


def answer_key(answer: str, *, equivalence: Equivalence = "canonical", units: Units = "drop") -> str:
    """The text `answer` votes by: its canonical key, or for `exact` the answer itself, as the authors' code counts."""
    return answer if equivalence == "exact" else canonical_key(answer, units=units).key


def same_answer(one: str, other: str) -> bool:
    """Whether two answers are equivalent: whether their keys are equal."""
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
    text = _undelimited(answer.strip())
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
        return _Keys(units).of(parse(text))
    except (NotMathError, OutOfBoundsError, RecursionError):
        return CanonicalAnswer(f"text:{_as_text(text)}", "text")


def _undelimited(text: str) -> str:
    for opening, closing in _DELIMITERS:
        inside = text[len(opening) : -len(closing)]
        wrapped = len(text) > len(opening) + len(closing) and text == opening + inside + closing
        if wrapped and opening not in inside and not inside.endswith("\\"):
            return inside.strip()
    return text


def _as_text(text: str) -> str:
    """Words without markup, case, spacing and final stop; never nothing of something."""
    words = _SPACING.sub(" ", _WRAPPED.sub(r" \1 ", text))
    words = " ".join(words.split()).strip().rstrip(".").strip().lower()
    return words or text


class _Keys:
    """Keys of trees, by structure."""

    def __init__(self, units: Units) -> None:
        self._units = units

    def of(self, node: Node) -> CanonicalAnswer:
        method = getattr(self, f"_{node.head}", None)
        if method is not None:
            answer: CanonicalAnswer = method(node)
            return answer
        return self._or_expression(node)

    def _or_expression(self, node: Node) -> CanonicalAnswer:
        if _contains(node, "pm"):
            return self._members([self.of(_choose(node, plus)) for plus in (True, False)])
        if any(_contains(node, head) for head in ("ratio", "bracket", "list", "relation", "matrix", "base")):
            raise NotMathError("structure inside an expression")
        return self._expression(node)

    def _group(self, node: Node) -> CanonicalAnswer:
        return self.of(node.children[0])

    def _degrees(self, node: Node) -> CanonicalAnswer:
        return self.of(node.children[0])

    def _unit(self, node: Node) -> CanonicalAnswer:
        inner = node.children[0]
        if letters_of(inner):
            raise NotMathError("words after letters")
        answer = self.of(inner)
        if node.value in ("percent", "per cent"):
            return CanonicalAnswer(f"{answer.key}%", "percent")
        return answer if self._units == "drop" else CanonicalAnswer(f"{answer.key} {node.value}", "unit")

    def _percent(self, node: Node) -> CanonicalAnswer:
        return CanonicalAnswer(f"{self.of(node.children[0]).key}%", "percent")

    def _base(self, node: Node) -> CanonicalAnswer:
        digits, base = (child.value for child in node.children)
        return CanonicalAnswer(f"{digits}_{base}", "base")

    def _neg(self, node: Node) -> CanonicalAnswer:
        inner = self.of(node.children[0]) if node.children[0].head in ("base", "percent", "unit", "degrees") else None
        return self._or_expression(node) if inner is None else CanonicalAnswer("-" + inner.key, inner.kind)

    def _ratio(self, node: Node) -> CanonicalAnswer:
        return CanonicalAnswer(":".join(self.of(part).key for part in node.children), "ratio")

    def _list(self, node: Node) -> CanonicalAnswer:
        return self._members([self.of(item) for item in node.children])

    def _members(self, answers: list[CanonicalAnswer]) -> CanonicalAnswer:
        keys = sorted({answer.key for answer in answers})
        return answers[0] if len(keys) == 1 else CanonicalAnswer("{" + "; ".join(keys) + "}", "set")

    def _bracket(self, node: Node) -> CanonicalAnswer:
        keys = [self.of(item).key for item in node.children]
        pair = str(node.value)
        if pair == "{}":
            return CanonicalAnswer("{" + "; ".join(sorted(set(keys))) + "}", "set")
        kind = "tuple" if pair == "()" and "inf" not in keys and "-inf" not in keys else "interval"
        return CanonicalAnswer(pair[0] + "; ".join(keys) + pair[1], kind)

    def _cup(self, node: Node) -> CanonicalAnswer:
        return CanonicalAnswer(" u ".join(sorted({self.of(part).key for part in node.children})), "union")

    def _cap(self, node: Node) -> CanonicalAnswer:
        return CanonicalAnswer(" n ".join(sorted({self.of(part).key for part in node.children})), "intersection")

    def _matrix(self, node: Node) -> CanonicalAnswer:
        rows = "; ".join(", ".join(self.of(cell).key for cell in row.children) for row in node.children)
        return CanonicalAnswer(f"{node.head}[{rows}]", node.head)

    _determinant = _matrix

    def _relation(self, node: Node) -> CanonicalAnswer:
        operators, parts = str(node.value).split(), node.children
        if set(operators) == {"="}:
            if parts[0].head == "letter" and not letters_of(parts[-1]):
                return self.of(parts[-1])
            if not letters_of(node):
                return self.of(parts[-1])
            if len(parts) != 2 or any(part.head in ("list", "bracket", "matrix") for part in parts):
                raise NotMathError("a chain of equations")
            difference = Node("add", (parts[0], Node("neg", (parts[1],))))
            try:
                return CanonicalAnswer("0=" + proportion(difference, signed=False), "equation")
            except OutOfBoundsError:
                return CanonicalAnswer("tree:0=" + _written(difference), "unevaluated")
        if operators == ["in"]:
            return self.of(parts[1])
        if operators == ["!="] and parts[0].head == "letter" and not letters_of(parts[1]):
            end = self.of(parts[1]).key
            return CanonicalAnswer(" u ".join(sorted((f"(-inf; {end})", f"({end}; inf)"))), "union")
        return self._inequality(operators, list(parts))

    def _inequality(self, operators: list[str], parts: list[Node]) -> CanonicalAnswer:
        if not set(operators) <= {"<", "<=", ">", ">="} or len({operator[0] for operator in operators}) != 1:
            raise NotMathError("relations mixed")
        if operators[0][0] == ">":
            operators, parts = [operator.replace(">", "<") for operator in reversed(operators)], parts[::-1]
        named = [index for index, part in enumerate(parts) if letters_of(part)]
        if len(parts) <= 3 and len(named) == 1 and parts[named[0]].head == "letter":
            at = named[0]
            low = (("[" if "=" in operators[at - 1] else "(") + self.of(parts[at - 1]).key) if at > 0 else "(-inf"
            high = (
                (self.of(parts[at + 1]).key + ("]" if "=" in operators[at] else ")")) if at + 1 < len(parts) else "inf)"
            )
            if at in (0, len(parts) - 1) and len(parts) == 3:
                raise NotMathError("a letter at the end of a chain")
            return CanonicalAnswer(f"{low}; {high}", "interval")
        sides = [proportion(Node("add", (right, Node("neg", (left,)))), signed=True) for left, right in pairwise(parts)]
        return CanonicalAnswer(
            " and ".join(sorted(f"0{operator}{side}" for operator, side in zip(operators, sides, strict=True))),
            "inequality",
        )

    def _expression(self, node: Node) -> CanonicalAnswer:
        try:
            key = fingerprint(node)
        except OutOfBoundsError:
            return CanonicalAnswer("tree:" + _written(node), "unevaluated")
        if key.startswith("f:"):
            return CanonicalAnswer(key, "expression")
        if key.endswith("i"):
            return CanonicalAnswer(key, "complex")
        if "inf" in key:
            return CanonicalAnswer(key, "infinity")
        return CanonicalAnswer(
            key, "real" if key.lstrip("-").startswith("~") else "rational" if "/" in key else "integer"
        )


def _contains(node: Node, head: str) -> bool:
    return node.head == head or any(_contains(child, head) for child in node.children)


def _written(node: Node) -> str:
    """The tree itself, for an expression without a value: spelling is forgiven, algebra is not done."""
    if node.head == "group":
        return _written(node.children[0])
    inside = " ".join(_written(child) for child in node.children)
    return f"({node.head}{'' if node.value is None else f' {node.value}'}{' ' + inside if inside else ''})"


def _choose(node: Node, plus: bool) -> Node:
    """The tree with every plus-or-minus as the one or the other."""
    children = tuple(_choose(child, plus) for child in node.children)
    if node.head == "pm":
        return Node("add", (children[0], children[1] if plus else Node("neg", (children[1],))))
    return Node(node.head, children, node.value)
