r"""From the text of an answer to a tree. One pass of a scanner, one recursive descent, no evaluation.

    answer   := list                                      at the top level only; "and" and "or" separate like commas
    list     := relation ("," relation)*
    relation := union (("=" | "<" | ">" | "\le" | "\ge" | "\ne" | "\in" | "\approx") union)*
    union    := sum (("\cup" | "\cap") sum)*
    sum      := ["+" | "-" | "\pm"] product (("+" | "-" | "\pm") product)*
    product  := power (("*" | "\cdot" | "\times" | "/" | "\div" | nothing) power)*
    power    := atom postfix*                             postfix: "^" atom, "_" atom, "!", "%", "^\circ", a unit
    atom     := number | letter | constant | function | bracket | matrix | "\frac" a a | "\sqrt" [n] a | "|" list "|"

Opening and closing brackets may differ, as in intervals. Text outside the grammar raises NotMathError; the answer is then text. The
cost is linear in the length, and the depth of nesting is bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from corewarding.rewards.answers.tokens import (
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    RELATIONS,
    SEPARATORS,
    UNITS,
    WORDS,
    NotMathError,
    Token,
    scan,
)

MAX_DEPTH = 60
MAX_NODES = 1_000


@dataclass(frozen=True, slots=True)
class Node:
    """head: the kind of node; value: a number's value, a letter's name, an operator or brackets; children in order."""

    head: str
    children: tuple[Node, ...] = ()
    value: Fraction | str | None = None


def parse(text: str) -> Node:
    """The tree of a complete answer. Raises NotMathError for text outside the grammar."""
    tokens = scan(text)
    while tokens and tokens[-1].kind == "symbol" and tokens[-1].text in ".,;":
        tokens.pop()
    if tokens and tokens[0].text in ("approx", "="):
        tokens.pop(0)
    if not tokens:
        raise NotMathError("nothing")
    parser = _Parser(tokens)
    node = parser.list_(top=True)
    if not parser.done():
        raise NotMathError(f"left over: {parser.peek().text}")
    return node


_NEVER_FIRST = frozenset(
    {*RELATIONS, "cup", "cap", "pm", "mp", "\\", "&", "cdot", "times", "div", "rfloor", "rceil", "rangle", "rbrace"}
)
_OPENING = {"(": "(", "[": "[", "{": "{", "set{": "{"}
_CLOSING = {")": ")", "]": "]", "}": "}", "}set": "}"}
_END = Token("end of answer", "", False)
_CALLED = frozenset({"f", "g", "h"})
_INVERTIBLE = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"})
_SYNONYMS = {"arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh"}


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._nodes = 0
        self._bars = 0

    def done(self) -> bool:
        return self._at >= len(self._tokens)

    def peek(self, ahead: int = 0) -> Token:
        index = self._at + ahead
        return self._tokens[index] if index < len(self._tokens) else _END

    def _next(self) -> Token:
        token = self.peek()
        self._at += 1
        return token

    def _is(self, *texts: str) -> bool:
        token = self.peek()
        return token.kind in ("symbol", "command") and token.text in texts

    def _node(self, head: str, *children: Node, value: Fraction | str | None = None) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise NotMathError("too many parts")
        return Node(head, children, value)

    # ---- structure ------------------------------------------------------------------------------------------------

    def list_(self, *, top: bool = False) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotMathError("nested too deep")
        items = [self._relation()]
        while self._separator():
            items.append(self._relation())
        self._depth -= 1
        return items[0] if len(items) == 1 else self._node("list", *items)

    def _separator(self) -> bool:
        token = self.peek()
        found = False
        while (token.text in (",", ";") and token.kind == "symbol") or self._word(token) in SEPARATORS:
            self._next()
            found, token = True, self.peek()
        return found

    def _word(self, token: Token) -> str:
        return token.text.lower() if token.kind in ("letters", "text") else ""

    def _relation(self) -> Node:
        parts = [self._union()]
        operators: list[str] = []
        while (token := self.peek()).text in RELATIONS and token.kind in ("symbol", "command"):
            self._next()
            operators.append(RELATIONS[token.text])
            parts.append(self._union())
        return parts[0] if not operators else self._node("relation", *parts, value=" ".join(operators))

    def _union(self) -> Node:
        parts, operator = [self._sum()], ""
        while self._is("cup", "cap"):
            token = self._next()
            if operator and token.text != operator:
                raise NotMathError("unions and intersections mixed")
            operator = token.text
            parts.append(self._sum())
        return parts[0] if not operator else self._node(operator, *parts)

    # ---- expressions ----------------------------------------------------------------------------------------------

    def _sum(self) -> Node:
        node = self._product() if not self._is("+", "-", "pm", "mp") else self._signed(None)
        while self._is("+", "-", "pm", "mp"):
            node = self._signed(node)
        return node

    def _signed(self, before: Node | None) -> Node:
        sign = self._next().text
        while self._is("+", "-"):  # "--3", "+-3"
            sign = {"+": sign, "-": {"+": "-", "-": "+"}.get(sign, sign)}[self._next().text]
        operand = self._product()
        if sign == "-":
            operand = self._node("neg", operand)
        if sign in ("pm", "mp"):
            return self._node("pm", before or self._node("number", value=Fraction(0)), operand)
        return operand if before is None else self._node("add", before, operand)

    def _product(self) -> Node:
        node = self._power()
        while True:
            if self._is("*", "cdot", "times"):
                self._next()
                node = self._node("mul", node, self._factor())
            elif self._is("/", "div"):
                self._next()
                node = self._node("div", node, self._factor())
            elif self._is(":"):
                self._next()
                node = self._node("ratio", node, self._power())
            elif self._starts_atom():
                node = self._adjoined(node)
            else:
                return node

    def _factor(self) -> Node:
        if self._is("-", "+"):
            negative = self._next().text == "-"
            inner = self._factor()
            return self._node("neg", inner) if negative else inner
        return self._power()

    def _adjoined(self, node: Node) -> Node:
        """Parses the next factor without an operator: the fraction of a mixed number, a unit, or a factor."""
        token = self.peek()
        if token.kind == "text" or (token.kind == "letters" and token.text.lower() in UNITS and len(token.text) > 1):
            return self._unit(node)
        mixed = self._mixed(node)
        if mixed is not None:
            return mixed
        if token.kind == "number":
            raise NotMathError("two numbers side by side")
        return self._node("mul", node, self._power())

    def _mixed(self, node: Node) -> Node | None:
        """A whole number and the fraction after it: 1\\frac{1}{4} or 1 1/4 with its degree or percent sign, or a product.
        None if no fraction follows, or `node` is no whole number.
        """
        if node.head != "number" or not isinstance(node.value, Fraction) or node.value.denominator != 1:
            return None
        token = self.peek()
        if token.kind == "command" and token.text == "frac":
            part = self._atom()
            if not _is_proper(part) or (self._is("^") and not self._degree_follows()):  # 2\frac12^2 is a product
                return self._node("mul", node, self._postfixed(part))
        elif token.kind == "number" and token.spaced and self.peek(1).text == "/" and self.peek(2).kind == "number":
            over, _, under = self._next(), self._next(), self._next()
            part = self._node("div", *(self._node("number", value=_number(one.text)) for one in (over, under)))
            if not _is_proper(part):
                raise NotMathError("two numbers side by side")
        else:
            return None
        return self._postfixed(self._node("add", node, part))

    def _unit(self, node: Node) -> Node:
        words: list[str] = []
        while (token := self.peek()).kind in ("text", "letters") or (words and self._is("/", "^", "cdot")):
            if self._word(token) in SEPARATORS:
                break
            if token.kind == "letters" and token.text.lower() not in UNITS and not words:
                break
            self._next()
            if token.text == "^":
                words.append("^" + str(self._atom().value))
            else:
                words.append(token.text.lower())
        return self._node("unit", node, value=" ".join(words))

    def _starts_atom(self) -> bool:
        token = self.peek()
        if token.kind in ("number", "begin"):
            return True
        if token.kind in ("letters", "text"):
            return self._word(token) not in SEPARATORS
        if token.kind == "symbol":
            return token.text in _OPENING or (token.text == "|" and not self._bars)
        return token.kind == "command" and token.text not in _NEVER_FIRST

    def _degree_follows(self) -> bool:
        """Whether the next tokens are ^\\circ or ^{\\circ}."""
        return self.peek(1 + (self.peek(1).text == "{")).text in ("circ", "degree")

    def _power(self) -> Node:
        return self._postfixed(self._atom())

    def _postfixed(self, node: Node) -> Node:
        while True:
            token = self.peek()
            if self._is("^"):
                degrees = self._degree_follows()
                self._next()
                if degrees:
                    if self._next().text == "{":
                        self._next()
                        self._expect("}")
                    node = self._node("degrees", node)
                elif self._is("prime"):
                    raise NotMathError("a derivative")
                else:
                    node = self._node("pow", node, self._exponent())
            elif self._is("circ", "degree", "degrees"):
                self._next()
                node = self._node("degrees", node)
            elif self._is("!"):
                self._next()
                node = self._node("factorial", node)
            elif self._is("%"):
                self._next()
                node = self._node("percent", node)
            elif self._is("_"):
                self._next()
                node = self._subscript(node)
            elif (
                token.kind == "letters"
                and token.text.lower() in UNITS
                and len(token.text) > 1
                and node.head == "number"
            ):
                node = self._unit(node)
            else:
                return node

    def _exponent(self) -> Node:
        if self._is("-", "+"):
            negative = self._next().text == "-"
            inner = self._exponent()
            return self._node("neg", inner) if negative else inner
        node = self._atom(one_digit=self.peek().kind != "number")  # 2^10 is meant as 2^{10}
        return self._node("pow", node, self._exponent_after()) if self._is("^") else node

    def _exponent_after(self) -> Node:
        self._next()
        return self._exponent()

    def _subscript(self, node: Node) -> Node:
        if node.head == "letter" and self._is("{") and self.peek(1).kind == "letters" and self.peek(2).text == "}":
            word = [self._next() for _ in range(3)][1].text  # S_{ABC}: one name, not a product
            return self._node("letter", value=f"{node.value}_{word}")
        index = self._atom(one_digit=self.peek().kind != "number")
        if node.head == "number" and index.head == "number":
            return self._node("base", node, index)
        if node.head == "letter" and index.head in ("number", "letter"):
            return self._node("letter", value=f"{node.value}_{index.value}")
        raise NotMathError("a subscript")

    # ---- atoms ----------------------------------------------------------------------------------------------------

    def _atom(self, *, one_digit: bool = False) -> Node:
        """one_digit: a bare number gives only its first digit, as in \frac12."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotMathError("nested too deep")
        token = self._next()
        node = self._atom_of(token, one_digit)
        self._depth -= 1
        return node

    def _atom_of(self, token: Token, one_digit: bool) -> Node:
        if token.kind == "number":
            if one_digit and len(token.text) > 1 and token.text.isdigit():
                self._at -= 1
                self._tokens[self._at] = Token("number", token.text[1:], False)
                return self._node("number", value=Fraction(int(token.text[0])))
            return self._node("number", value=_number(token.text))
        if token.kind == "letters":
            return self._letters(token, one_digit)
        if token.kind == "symbol" and token.text in _OPENING:
            return self._bracket(token.text)
        if token.kind == "symbol" and token.text == "|":
            self._bars += 1
            inside = self.list_()
            self._bars -= 1
            self._expect("|")
            return self._node("abs", inside)
        if token.kind == "begin":
            return self._matrix(token.text)
        if token.kind == "command":
            return self._commanded(token.text)
        raise NotMathError(f"{token.kind} {token.text}")

    def _letters(self, token: Token, one_letter: bool) -> Node:
        word = token.text
        if word in FUNCTIONS:
            return self._function(word)
        if word in CONSTANTS:
            return self._node("constant", value=CONSTANTS[word])
        if word == "sqrt":
            return self._node("root", self._atom(), self._node("number", value=Fraction(2)))
        if len(word) > 3 or word.lower() in WORDS or (len(word) == 3 and len(self._tokens) == 1):
            raise NotMathError(f"the word {word}")
        if len(word) > 1 and one_letter:
            self._at -= 1
            self._tokens[self._at] = Token("letters", word[1:], False)
            word = word[0]
        if word in _CALLED and self._is("("):
            return self._call(word)
        nodes = [self._letter(letter) for letter in word[:-1]]
        last = self._letter(word[-1])
        if nodes and self._is("^", "_", "!"):  # binds only to the last letter: xy^2
            self._at -= 1
            self._tokens[self._at] = Token("letters", word[-1], False)
            node = nodes[0]
            for other in nodes[1:]:
                node = self._node("mul", node, other)
            return self._node("mul", node, self._power())
        node = last
        for other in reversed(nodes):
            node = self._node("mul", other, node)
        return node

    def _call(self, name: str) -> Node:
        """f(x) as one letter; a product if the argument is not a letter, a negated letter or a number."""
        argument = self._atom()
        inside = argument.children[0] if argument.head == "group" else argument
        plain = inside.children[0] if inside.head == "neg" else inside
        if plain.head in ("letter", "number"):
            sign = "-" if inside.head == "neg" else ""
            return self._node("letter", value=f"{name}({sign}{plain.value})")
        return self._node("mul", self._letter(name), argument)

    def _letter(self, letter: str) -> Node:
        if letter in ("e", "i"):
            return self._node("constant", value=letter)
        return self._node("letter", value=letter)

    def _commanded(self, name: str) -> Node:
        if name == "frac":
            if self._is("{") and self.peek(1).text.startswith("d") and self._is_differential():
                raise NotMathError("a derivative")
            return self._node("div", self._atom(one_digit=True), self._atom(one_digit=True))
        if name in ("binom", "dbinom", "tbinom"):
            return self._node("binomial", self._atom(one_digit=True), self._atom(one_digit=True))
        if name == "sqrt":
            index = self._node("number", value=Fraction(2))
            if self._is("["):
                self._next()
                index = self._sum()
                self._expect("]")
            return self._node("root", self._atom(one_digit=True), index)
        if name in FUNCTIONS:
            return self._function(name)
        if name in CONSTANTS:
            return self._node("constant", value=CONSTANTS[name])
        if name in GREEK:
            return self._node("letter", value=name)
        if name in ("emptyset", "varnothing"):
            return self._node("bracket", value="{}")
        if name in ("mathbb", "Bbb", "mathcal"):
            return self._node("letter", value="set " + str(self._atom(one_digit=True).value))
        if name in ("boxed", "fbox", "overline", "bar", "hat", "vec", "mathbf"):
            if name in ("boxed", "fbox"):
                return self._atom()
            raise NotMathError(name)
        if name in ("lfloor", "lceil"):
            inside = self._sum()
            self._expect({"lfloor": "rfloor", "lceil": "rceil"}[name])
            return self._node({"lfloor": "floor", "lceil": "ceil"}[name], inside)
        if name in ("lbrace", "langle"):
            return self._bracket({"lbrace": "set{", "langle": "("}[name])
        raise NotMathError(f"the command {name}")

    def _function(self, name: str) -> Node:
        if name in ("max", "min", "gcd", "lcm"):
            raise NotMathError(name)
        name = _SYNONYMS.get(name, name)
        power: Node | None = None
        base: Node | None = None
        while self._is("^", "_"):
            if self._next().text == "^":
                power = self._exponent()
            else:
                base = self._atom(one_digit=True)
        if base is not None and name not in ("log", "lg"):
            raise NotMathError(f"a base of {name}")
        if power is not None and name in _INVERTIBLE and _is_minus_one(power):  # \\tan^{-1} is the arc tangent
            name, power = f"arc{name}", None
        argument = self._atom() if self._is("(", "{", "[") else self._argument()
        node = self._node(name, argument, *([base] if base is not None else []))
        return node if power is None else self._node("pow", node, power)

    def _argument(self) -> Node:
        """Argument of a function without brackets: factors side by side up to an operator, as in \\sin 2x."""
        node = self._power()
        while self._starts_atom() and self.peek().kind != "text" and self.peek().text not in FUNCTIONS | {"(", "["}:
            mixed = self._mixed(node)
            node = self._node("mul", node, self._power()) if mixed is None else mixed
        return node

    def _bracket(self, opening: str) -> Node:
        if self.peek().kind == "symbol" and self.peek().text in _CLOSING:
            self._next()
            return self._node("bracket", value="{}")
        bars, self._bars = self._bars, 0
        inside = self.list_()
        self._bars = bars
        closing = self._next()
        if closing.kind == "command" and closing.text in ("rangle", "rbrace"):
            closing = Token("symbol", {"rangle": ")", "rbrace": "}set"}[closing.text], False)
        if closing.kind != "symbol" or closing.text not in _CLOSING:
            raise NotMathError("an open bracket")
        pair = _OPENING[opening] + _CLOSING[closing.text]
        if opening == "{":
            if closing.text != "}":
                raise NotMathError("crossed braces")
            return inside if inside.head != "list" else self._node("bracket", *inside.children, value="{}")
        items = inside.children if inside.head == "list" else (inside,)
        if len(items) == 1 and pair in ("()", "[]"):
            return self._node("group", inside) if inside.head != "relation" else inside
        return self._node("bracket", *items, value=pair)

    def _matrix(self, kind: str) -> Node:
        if kind not in ("pmatrix", "bmatrix", "matrix", "vmatrix", "Vmatrix", "smallmatrix", "array", "cases"):
            raise NotMathError(f"the environment {kind}")
        if kind == "cases":
            raise NotMathError(kind)
        if kind == "array":
            self._column_format()
        rows: list[Node] = []
        cells: list[Node] = []
        while True:
            token = self.peek()
            if token.kind == "end":
                self._next()
                break
            if token.kind == _END.kind:
                raise NotMathError("an open matrix")
            if self._is("&"):
                self._next()
            elif self._is("\\"):
                self._next()
                rows.append(self._node("row", *cells))
                cells = []
            else:
                cells.append(self._sum())
        if cells:
            rows.append(self._node("row", *cells))
        if not rows or len({len(row.children) for row in rows}) != 1:
            raise NotMathError("rows of different lengths")
        return self._node("determinant" if kind == "vmatrix" else "matrix", *rows)

    def _column_format(self) -> None:
        """{cc|c} after \\begin{array}."""
        self._expect("{")
        while not self._is("}"):
            if self.peek().kind != "letters" and self.peek().text != "|":
                raise NotMathError("an array's columns")
            self._next()
        self._next()

    def _is_differential(self) -> bool:
        """Whether the denominator of the fraction that follows is like dx."""
        ahead = 0
        while self.peek(ahead).text not in ("}", ""):
            ahead += 1
        brace, letters = self.peek(ahead + 1), self.peek(ahead + 2)
        return brace.text == "{" and letters.kind == "letters" and re.fullmatch("d[a-z]", letters.text) is not None

    def _expect(self, text: str) -> None:
        if self._next().text != text:
            raise NotMathError(f"{text} expected")


def _is_proper(node: Node) -> bool:
    """Whether the node is a fraction between 0 and 1 of two numbers."""
    if node.head != "div" or any(child.head != "number" for child in node.children):
        return False
    over, under = (child.value for child in node.children)
    return isinstance(over, Fraction) and isinstance(under, Fraction) and 0 < over < under


def _is_minus_one(node: Node) -> bool:
    while node.head == "group":
        node = node.children[0]
    return node.head == "neg" and node.children[0].value == 1


def _number(text: str) -> Fraction:
    """The exact value of digits with a decimal point; "0.1(6)" is 0.1666..."""
    if "(" in text:
        head, cycle = text.rstrip(")").split("(")
        whole, _, start = head.partition(".")
        scale = 10 ** len(start)
        return Fraction(int(whole or "0") * scale + int(start or "0"), scale) + Fraction(
            int(cycle), scale * (10 ** len(cycle) - 1)
        )
    if len(text) > 1_000:
        raise NotMathError("a number of over 1,000 digits")
    return Fraction(text.rstrip(".")) if text.rstrip(".") else Fraction(0)
