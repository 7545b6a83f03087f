"""From the tree of an answer to its key: structures (lists, tuples, intervals, relations, matrices) by the keys of their parts,
expressions by their value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from corewarding.rewards.answers.operations import OutOfBoundsError
from corewarding.rewards.answers.parser import Node
from corewarding.rewards.answers.tokens import NotMathError
from corewarding.rewards.answers.value import fingerprint, letters_of, proportion

Units = Literal["drop", "keep"]


@dataclass(frozen=True, slots=True)
class CanonicalAnswer:
    """Equal for equivalent answers. `kind` (table above) is for reports and takes no part in equality."""

    key: str
    kind: str = field(compare=False)


def tree_key(tree: Node, *, units: Units) -> CanonicalAnswer:
    """The key of a parsed answer. Raises NotMathError or OutOfBoundsError if the tree has none."""
    return _Keys(units).of(tree)


class _Keys:
    """Computes keys of trees; a method `_head` for each head with a structure."""

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
        in_percent = _in_percent(node) if node.head in ("add", "neg") else None
        if in_percent is not None:
            return self._percentage(self.of(in_percent))
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
        if _is_percentage(node):
            return self._percentage(answer)
        return answer if self._units == "drop" else CanonicalAnswer(f"{answer.key} {node.value}", "unit")

    def _percent(self, node: Node) -> CanonicalAnswer:
        return self._percentage(self.of(node.children[0]))

    def _percentage(self, number: CanonicalAnswer) -> CanonicalAnswer:
        """Percent is a unit: 60% is 60, as a question that asks for a percentage expects it, and never 0.6."""
        return CanonicalAnswer(number.key if self._units == "drop" else f"{number.key}%", "percent")

    def _base(self, node: Node) -> CanonicalAnswer:
        digits, base = (child.value for child in node.children)
        return CanonicalAnswer(f"{digits}_{base}", "base")

    def _neg(self, node: Node) -> CanonicalAnswer:
        inner = self.of(node.children[0]) if node.children[0].head in ("base", "percent", "unit", "degrees") else None
        return self._or_expression(node) if inner is None else CanonicalAnswer("-" + inner.key, inner.kind)

    def _ratio(self, node: Node) -> CanonicalAnswer:
        return CanonicalAnswer(":".join(self.of(part).key for part in node.children), "ratio")

    def _list(self, node: Node) -> CanonicalAnswer:
        keys = sorted(self.of(item).key for item in node.children)  # 1, 1, 2 is not 1, 2
        return CanonicalAnswer("{" + "; ".join(keys) + "}", "set")

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
        if "approx" in operators:  # the exact value stands to the left, unless only a name does
            exact = parts[: operators.index("approx") + 1]
            operators = ["="] * len(operators)
            if len(exact) > 1 or exact[0].head != "letter":
                operators, parts = operators[: len(exact) - 1], exact
            if not operators:
                return self.of(parts[0])
        if set(operators) == {"="}:
            if _names_quantity(parts[0]) and not letters_of(parts[-1]):
                return self.of(parts[-1])
            if not any(map(letters_of, parts)):
                return self.of(parts[-1])
            if len(parts) == 2 and parts[1].head == "letter" and not letters_of(parts[0]):
                return self.of(parts[0])
            if len(parts) == 2 and _is_named(parts[0], parts[1]):
                return self.of(parts[1])
            if len(parts) != 2 or any(part.head in ("list", "bracket", "matrix") for part in parts):
                raise NotMathError("a chain of equations")
            difference = Node("add", (parts[0], Node("neg", (parts[1],))))
            try:
                return CanonicalAnswer("0=" + proportion(difference, signed=False), "equation")
            except OutOfBoundsError:
                return CanonicalAnswer("tree:0=" + written(difference), "unevaluated")
        if operators == ["in"]:
            return self.of(parts[1])
        if operators == ["!="] and parts[0].head == "letter" and not letters_of(parts[1]):
            end = self.of(parts[1]).key
            return CanonicalAnswer(" u ".join(sorted((f"(-inf; {end})", f"({end}; inf)"))), "union")
        return self._inequality(operators, list(parts))

    def _inequality(self, operators: list[str], parts: list[Node]) -> CanonicalAnswer:
        if not set(operators) <= {"<", "<=", ">", ">="} or len({operator[0] for operator in operators}) != 1:
            raise NotMathError("relations mixed")
        if any(part.head == "neg" and part.children[0].head == "letter" for part in parts):  # -x > -1 is x < 1
            parts = [part.children[0] if part.head == "neg" else Node("neg", (part,)) for part in parts]
            operators = [operator.translate(_MIRRORED) for operator in operators]
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
            return CanonicalAnswer("tree:" + written(node), "unevaluated")
        if key.startswith("f:"):
            return CanonicalAnswer(key, "expression")
        if key.endswith("i"):
            return CanonicalAnswer(key, "complex")
        if "inf" in key:
            return CanonicalAnswer(key, "infinity")
        return CanonicalAnswer(
            key, "real" if key.lstrip("-").startswith("~") else "rational" if "/" in key else "integer"
        )


_MIRRORED = str.maketrans("<>", "><")


def _is_named(left: Node, right: Node) -> bool:
    """Whether the left is a tuple of different letters, and the right one of as many values: (x, y) = (3, 2)."""
    names = {str(child.value) for child in left.children if child.head == "letter"}
    both = left.head == right.head == "bracket" and left.value == right.value == "()"
    return both and len(names) == len(left.children) == len(right.children)


def _names_quantity(node: Node) -> bool:
    """Whether the left of an equation only names what the right is: a letter, or capital letters as in AB = 4, |AB| = 4, A:B = 1."""
    named = node.head in ("mul", "div", "ratio", "abs", "group") and all(map(_names_quantity, node.children))
    return node.head == "letter" or (named and all(letter[:1].isupper() for letter in letters_of(node)))


def _contains(node: Node, head: str) -> bool:
    return node.head == head or any(_contains(child, head) for child in node.children)


def _is_percentage(node: Node) -> bool:
    """Whether the node is something in percent."""
    words = str(node.value) if node.head == "unit" else ""
    return (
        node.head == "percent"
        or words.startswith("per cent")
        or words.split(" ")[0] in ("percent", "percentage", "pct")
    )


def _in_percent(node: Node) -> Node | None:
    """A sum without its percent signs if each of its terms has one: 30% + 30% is 60%."""
    if _is_percentage(node):
        return node.children[0]
    if node.head not in ("add", "neg", "group"):
        return None
    terms = [term for term in node.children if term.value != 0]  # \pm 5% is 0 + 5% and 0 - 5%
    known = tuple(bare for bare in map(_in_percent, terms) if bare is not None)
    if len(known) < len(terms) or not terms:
        return None
    return known[0] if node.head == "add" and len(known) == 1 else Node(node.head, known, node.value)


def written(node: Node) -> str:
    """The tree as text, for expressions without a value: spelling does not matter, but no algebra is done."""
    if node.head == "group":
        return written(node.children[0])
    inside = " ".join(written(child) for child in node.children)
    return f"({node.head}{'' if node.value is None else f' {node.value}'}{' ' + inside if inside else ''})"


def _choose(node: Node, plus: bool) -> Node:
    """The tree with every plus-or-minus replaced by plus, or by minus."""
    children = tuple(_choose(child, plus) for child in node.children)
    if node.head == "pm":
        return Node("add", (children[0], children[1] if plus else Node("neg", (children[1],))))
    return Node(node.head, children, node.value)
