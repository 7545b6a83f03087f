"""Splits an answer into tokens for parser.py, in one pass without backtracking.

Reads LaTeX, plain typing and Unicode. Spacing, delimiters and markup leave no token; the words of a \\text stay one token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

MAX_CHARS = 2_000


class NotMathError(ValueError):
    """The text is not an expression of this grammar."""


@dataclass(frozen=True, slots=True)
class Token:
    """kind: number, command, letters, text, symbol, begin or end; spaced: whether white space comes before it."""

    kind: str
    text: str
    spaced: bool


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = _words(
    """
    arccos arccosh arccot arccsc arcosh arcsec arcsin arcsinh arctan arctanh arsinh artanh cos cosh cot csc exp gcd lcm lg ln log
    max min sec sin sinh tan tanh
    """
)
CONSTANTS = {"pi": "pi", "infty": "inf", "infinity": "inf", "inf": "inf", "oo": "inf"}
GREEK = _words(
    """
    Delta Omega Phi alpha beta chi delta ell epsilon eta gamma kappa lambda mu nu omega phi psi rho sigma tau theta varepsilon
    varphi xi zeta
    """
)
UNITS = _words(
    """
    cm mm km m dm ft in inch inches feet foot yd yard yards mi mile miles mph g kg mg lb lbs pound pounds oz ounce ounces l ml
    liter liters litre litres gallon gallons s sec second seconds min minute minutes h hr hrs hour hours day days week weeks month
    months year years degree degrees rad radians dollar dollars cent cents euro euros pct unit units square cubic sq cu per percent
    percentage
    meter meters metre metres centimeter centimeters kilometer kilometers newton newtons joule joules watt watts volt volts
    """
)
SEPARATORS = {"and", "or"}
WORDS = _words(
    """
    all am any for is no not odd of one pm six ten the to two yes
    """
)
RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">="} | {
    "ne": "!=", "neq": "!=", "in": "in", "approx": "approx", "equiv": "=", "<=": "<=", ">=": ">=", "!=": "!=", "lt": "<", "gt": ">",
}  # fmt: skip
CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "°": r"^\circ ", "π": r"\pi ", "√": r"\sqrt ",
        "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "≤": r"\le ", "≥": r"\ge ",
        "≠": r"\ne ", "∈": r"\in ", "±": r"\pm ", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}",
        "¾": r"\frac{3}{4}", "²": "^2", "³": "^3", "∅": r"\emptyset ", "θ": r"\theta ", "（": "(", "）": ")", "，": ",",
    }
)  # fmt: skip
_IGNORED = _words(
    """
    Big Bigg Bigl Bigr big bigg biggl biggr bigl bigr boldsymbol displaystyle left limits mathstrut phantom qquad quad right
    textstyle thinspace
    """
)
_ROOT_SIGN = re.compile(r"√\s*([0-9]+(?:\.[0-9]+)?)")  # √14 is the root of 14; \sqrt14 is that of 1, times 4
_RUN = re.compile(r"(?<![0-9.,])[0-9]{3}(?:,[0-9]{3}){2,}(?![0-9,])")
_SCANNER = re.compile(
    r"""
    (?P<space> \s+ | \\[,:;>\ \s] | ~ | \\!\ ? )
  | (?P<repeating> (?P<head> [0-9]*\.[0-9]* ) (?: \\(?:overline|bar)\s*\{ (?P<cycle> [0-9]+ ) \} | \\dot\s*\{? (?P<digit> [0-9] ) \}?
        (?! \s*(?:[0-9]|\\dot) ) ) )
  | (?P<ellipsis> [0-9]*\.[0-9]+ ) \s* (?: \\[lc]?dots(?![A-Za-z]) | \.{3} | … )
  | (?P<thousands> [1-9][0-9]{0,2} 
        (?: (?: \{,\} | ,\ ?\\!\ ? | \\!,? | \\,(?=[0-9]{3}(?![0-9])) | , | \ (?=[0-9]{3}(?![0-9])) ) [0-9]{3} (?![0-9]) )+
        (?: \.[0-9]+ )? )
  | (?P<number> (?: [0-9]+\.[0-9]+ [eE][-+]? | 1[eE][-+] | [0-9]+[eE] ) [0-9]{1,3} (?! [0-9A-Za-z] | \.[0-9] )  # 2e-3 is 2e minus 3
        | [0-9]+ (?: \.[0-9]+ )? | \.[0-9]+ )
  | \\begin\s*\{ (?P<begin> [a-z]+\*? ) \}
  | \\end\s*\{ (?P<end> [a-z]+\*? ) \}
  | \\ (?P<wrapper> text(?:bf|it|rm|sf|normal)? | math(?:rm|bf|sf|it) | mbox | operatorname ) \s* \{ (?P<inside> [^{}]* ) \}
  | \\ (?P<command> [A-Za-z]+ | [{}%$|\\#&_] )
  | (?P<letters> [A-Za-z]+ )
  | (?P<symbol> <= | >= | (?<=\s)!= | \*\* | [-+*/^_!%=<>()\[\]{},;:|'&.$] )
    """,
    re.VERBOSE,
)


def scan(text: str) -> list[Token]:
    """Tokens of an answer. Raises NotMathError if it is too long or has other characters."""
    if len(text) > MAX_CHARS:
        raise NotMathError(f"over {MAX_CHARS} characters")
    if "√" in text:
        text = _ROOT_SIGN.sub(r"\\sqrt{\1}", text)
    if "," in text:
        text = _RUN.sub(_separated, text)
    text = text.translate(CHARACTERS)
    tokens: list[Token] = []
    at, spaced, depth = 0, False, 0
    while at < len(text):
        match = _SCANNER.match(text, at)
        if match is None:
            raise NotMathError(f"character {text[at]!r}")
        kind = match.lastgroup
        if match["thousands"] and depth and re.search(r"[0-9],[0-9]", match["thousands"]):
            match = re.compile(r"(?P<number>[0-9]+)").match(text, at)  # inside brackets a bare comma separates
            assert match is not None
            kind = "number"
        at = match.end()
        if kind == "space":
            spaced = True
            continue
        inside = match.groupdict().get("inside")
        if inside is not None and not re.search(r"[A-Za-z]{2}|\\", inside):  # a number in another font, punctuation
            tokens.extend(scan(inside))
            spaced = True
            continue
        token = _token(match, kind, spaced)
        spaced = False
        if token is None:
            continue
        if token.kind == "symbol" and token.text in "([{":
            depth += 1
        elif token.kind == "symbol" and token.text in ")]}":
            depth -= 1
        tokens.append(token)
    return tokens


def _separated(run: re.Match[str]) -> str:
    """284;285;286 for 284,285,286: consecutive numbers are a list, not one number with commas."""
    numbers = [int(part) for part in run[0].split(",")]
    consecutive = {after - before for before, after in pairwise(numbers)} in ({1}, {-1})
    return run[0].replace(",", ";") if consecutive else run[0]


def _token(match: re.Match[str], kind: str | None, spaced: bool) -> Token | None:
    found = match.groupdict()
    if found.get("repeating"):
        return Token("number", f"{found['head']}({found['cycle'] or found['digit']})", spaced)
    if found.get("ellipsis"):
        return Token("number", _continued(found["ellipsis"]), spaced)
    if found.get("thousands"):
        return Token("number", re.sub(r"[^0-9.]", "", found["thousands"]), spaced)
    if found.get("number"):
        return Token("number", found["number"], spaced)
    if found.get("begin"):
        return Token("begin", found["begin"].rstrip("*"), spaced)
    if found.get("end"):
        return Token("end", found["end"].rstrip("*"), spaced)
    if found.get("wrapper") and found["inside"].strip() in FUNCTIONS:
        return Token("command", found["inside"].strip(), spaced)
    if found.get("wrapper"):
        return Token("text", found["inside"].strip(" ,.~"), True) if found["inside"].strip(" ,.~") else None
    if found.get("command"):
        return _command(found["command"], spaced)
    if found.get("letters"):
        return Token("letters", found["letters"], spaced)
    symbol = found["symbol"]
    return None if symbol == "$" else Token("symbol", "^" if symbol == "**" else symbol, spaced)


def _continued(digits: str) -> str:
    """A decimal before an ellipsis as a repeating one: 0.1666 is 0.1(6). NotMathError if its end does not repeat."""
    whole, _, decimals = digits.partition(".")
    for size in range(1, len(decimals) // 2 + 1):
        cycle, times = decimals[-size:], 3 if size == 1 else 2
        if decimals.endswith(cycle * times):
            head = decimals
            while head.endswith(cycle):
                head = head[:-size]
            return f"{whole}.{head}({cycle})"
    raise NotMathError("an ellipsis after digits that do not repeat")


def _command(name: str, spaced: bool) -> Token | None:
    if name in _IGNORED or name in {"$", "#"}:
        return None
    if name in "{}|":
        return Token("symbol", {"{": "set{", "}": "}set", "|": "|"}[name], spaced)
    if name == "%":
        return Token("symbol", "%", spaced)
    return Token(
        "command",
        {"dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leqslant": "le", "vert": "|"}.get(name, name),
        spaced,
    )
