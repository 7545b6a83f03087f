"""Canonical keys: a hand-written table of equal answers and of near misses."""

from __future__ import annotations

import itertools

import pytest

from corewarding.rewards.answers.explain import explain_answer
from corewarding.rewards.answers.grading import grade
from corewarding.rewards.answers.key import answer_key, canonical_key, same_answer

# Each row: the kind, and spellings of one answer. Answers of different rows are different, whatever their kind.
CLASSES: list[tuple[str, list[str]]] = [
    ("integer", ["7", " 7 ", "$7$", "$$7$$", r"\(7\)", r"\[7\]", r"\[ 7 \].", r"$\(7\)$,", "7.", "7.0", "+7", "007", "{7}", r"\frac{14}{2}", r"\text{7}"]),
    ("integer", ["0", "-0", "0.0", "0/3", r"\sqrt{2}-\sqrt{2}", r"\sin 0", r"\ln 1"]),
    ("integer", ["-12", "−12", "–12", "-12.0", r"-\frac{24}{2}", "(-12)", r"\left(-12\right)", "x = -12", "n=-12"]),
    ("integer", ["10000", "10,000", r"10{,}000", r"10,\!000", r"10\,000", "10000.00", "10 000", "10^4", r"1\times 10^4", "100^2"]),
    ("integer", ["2598960", r"2,\!598,\!960", "2,598,960", r"\binom{52}{5}"]),
    ("integer", ["120", "5!", r"5 \cdot 4 \cdot 3 \cdot 2", "120^\\circ", "120°", r"120^{\circ}", r"120\text{ degrees}", r"120 \text{ miles}"]),
    ("integer", ["6", r"\$6", r"\$6.00", r"6 \text{ cm}", "6 cm", r"6\text{ cm}^2", r"6 \mathrm{cm}", "6 square units", "t=6"]),
    ("integer", ["1024", "2^{10}", "2^10", "4^5", r"32^2", r"\sqrt{1048576}", "2**10"]),
    ("integer", ["3", r"\sqrt{9}", r"\sqrt[3]{27}", r"\log_2 8", r"\log_{2}{8}", r"|{-3}|", "|-3|", r"\lfloor 3.7 \rfloor", r"\lceil 2.1 \rceil"]),
    ("integer", ["-2", r"\sqrt[3]{-8}", r"-\sqrt{4}", r"\log_{10} 0.01"]),
    ("integer", ["117156", "117,156", r"117,\! 156", r"117, \! 156"]),
    ("rational", ["1/2", r"\frac{1}{2}", r"\dfrac{1}{2}", r"\tfrac12", r"\frac12", r"\frac 12", "0.5", ".50", "2/4", "½", r"2^{-1}", r"\frac{3}{6}"]),
    ("rational", ["-1/2", r"-\frac{1}{2}", r"\frac{-1}{2}", r"\frac{1}{-2}", "-0.5", "−0.5", r"-\dfrac12", r"\cos 120^\circ"]),
    ("rational", ["5/4", "1.25", r"1\frac{1}{4}", r"1\frac14", "1 1/4", r"1 \dfrac{1}{4}", "125/100", r"\frac54."]),
    ("rational", ["-5/4", r"-1\frac{1}{4}", "-1.25"]),
    ("rational", ["1/3", "0.333...", r"0.333\ldots", "0.3333…", r"0.\dot{3}", r"0.\bar{3}", r"\frac{1}{3}", "0.\\overline{3}", r".\overline{3}", r"\frac{\sqrt{2}}{3\sqrt{2}}", r"3^{-1}"]),
    ("rational", ["1/6", "0.1666...", r"0.1\dot{6}", r"0.1\overline{6}", r"\frac{\pi}{6\pi}"]),
    ("rational", ["2/3", r"\frac23", "⅔", r"8^{1/3}/3"]),
    ("rational", [r"\frac{14}{3}", r"4\frac{2}{3}", "14/3"]),
    ("rational", [r"2\frac{5}{3}", "10/3"]),
    ("decimal", ["0.333", "333/1000", ".333"]),
    ("decimal", ["0.33", "33/100"]),
    ("decimal", ["3.14", "3.140", "157/50"]),
    ("decimal", ["0.000012", r"1.2 \times 10^{-5}", r"1.2\cdot10^{-5}"]),
    ("percent", ["25%", r"25\%", r"25 \%", r"25.0\%", r"$25\%$", r"25\text{ percent}", "25", r"15\% + 10\%", "0.25 = 25%", "x = 25%"]),
    ("rational", [r"\frac14", r"\frac{1}{4}\%", r"0.25\%"]),
    ("percent", [r"-35\%", "-35", r"-(35\%)"]),
    ("set", [r"\pm 5\%", r"5\%, -5\%", r"\pm 5"]),
    ("tuple", [r"(5\%, 10\%)", "(5, 10)"]),
    ("rational", ["1/20", "0.05"]),
    ("real", [r"\sqrt{2}", r"\sqrt2", "2^{1/2}", r"\sqrt{2.0}", r"\frac{2}{\sqrt{2}}", "√2", "sqrt(2)", r"\sqrt[4]{4}"]),
    ("real", [r"\frac{\sqrt{6}}{3}", r"\frac{\sqrt6}3", r"\dfrac{\sqrt 6}{3}", r"\sqrt{\frac{2}{3}}", r"\frac{2}{\sqrt{6}}"]),
    ("real", [r"1+\sqrt{2}", r"\sqrt2+1", r"\frac{1}{\sqrt{2}-1}"]),
    ("real", [r"1-\sqrt{2}", r"-\sqrt2+1"]),
    ("real", [r"2\pi", r"2 \pi", "2π", r"2\,\pi", r"\pi \cdot 2", r"\frac{4\pi}{2}", "2pi"]),
    ("real", [r"\pi", "π", r"\frac{2\pi}{2}"]),
    ("real", ["e^2", "e^{2}", r"\exp(2)", r"e \cdot e"]),
    ("real", [r"\ln 2", r"\ln{2}", r"\ln(2)", r"-\ln \frac12", r"\frac{\ln 4}{2}"]),
    ("real", [r"\log 2", r"\log_{10} 2", r"\log_{10}(2)"]),
    ("real", [r"\log_2 3", r"\frac{\ln 3}{\ln 2}", r"\frac{\log 3}{\log 2}"]),
    ("real", ["3\\sqrt{5}+2", r"2+\sqrt{45}", r"2 + 3 \sqrt 5"]),
    ("real", [r"\sqrt{3+2\sqrt{3}}"]),
    ("complex", ["i", r"\sqrt{-1}"]),
    ("complex", ["6-2i", "6 - 2i", "-2i+6", r"2(3-i)"]),
    ("complex", ["6+2i"]),
    ("complex", [r"\frac{1}{2}+\frac{\sqrt{3}}{2}i", r"\frac{1+i\sqrt{3}}{2}", r"e^{i\pi/3}", r"\cos 60^\circ + i \sin 60^\circ"]),
    ("expression", ["x", "{x}", r"\frac{2x}{2}"]),
    ("expression", ["y"]),
    ("expression", ["x^2+3x", "x^{2} + 3 x", "x(x+3)", r"3x+x\cdot x", r"\frac{x^3+3x^2}{x}"]),
    ("expression", ["(x-1)(x+1)", "x^2-1", "-(1-x^2)"]),
    ("expression", [r"\frac{1}{x}", "x^{-1}", "1/x"]),
    ("expression", ["-\\frac1{2x}", r"-\frac{1}{2x}", r"\frac{-1}{2x}"]),
    ("expression", ["xy", "yx", r"x \cdot y", r"x\,y"]),
    ("expression", ["x+y"]),
    ("expression", ["9(2-x)(2+x)", "36-9x^2", "9(4-x^2)"]),
    ("expression", [r"\sin^2 x", r"1-\cos^2 x", r"(\sin x)^2"]),
    ("expression", [r"\sqrt{x^2}", "|x|"]),
    ("expression", ["2^n", r"2\cdot 2^{n-1}"]),
    ("expression", [r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}"]),
    ("expression", [r"a_1+a_2", "a_2+a_1"]),
    ("expression", [r"\theta", "θ"]),
    ("expression", [r"\lfloor n/2 \rfloor", r"\left\lfloor \frac{n}{2} \right\rfloor", r"\lfloor \frac12 n \rfloor"]),
    ("expression", [r"\lfloor n/3 \rfloor"]),
    ("expression", [r"\left\lfloor \frac{n^2}{4}\right\rfloor", r"\lfloor n^2/4 \rfloor"]),
    ("expression", [r"\lceil n/2 \rceil"]),
    ("expression", ["|x-3|", "|3-x|", r"\sqrt{(x-3)^2}", r"\sqrt{x^2-6x+9}"]),
    ("expression", ["3-x", "-(x-3)"]),
    ("expression", ["|x|^2", "x^2"]),
    ("real", [r"\tan^{-1} 2", r"\tan^{-1}(2)", r"\arctan 2", r"\arctan(2)", "arctan 2"]),
    ("real", [r"\arcsinh 1", r"\sinh^{-1} 1", r"\operatorname{arcsinh} 1", r"\text{arcsinh}(1)", r"\arsinh 1", r"\ln(1+\sqrt2)"]),
    ("real", [r"\sin^{-1} \frac12", r"\frac{\pi}{6}", r"\arcsin 0.5"]),
    ("real", [r"\sin 22\frac12^\circ", r"\sin 22.5^\circ", r"\sin(\frac{\pi}{8})"]),
    ("rational", [r"22\frac{1}{2}^\circ", r"22\frac12^{\circ}", r"22.5^\circ", "22 1/2°", r"\frac{45}{2}"]),
    ("percent", [r"33\frac{1}{3}\%", r"33\frac13%", "33 1/3%", r"\frac{100}{3}\%", r"33\frac13"]),
    ("percent", [r"16\frac{2}{3}\%", "16 2/3 %", r"\frac{50}{3}\%"]),
    ("percent", [r"-33\frac13\%"]),
    ("text", [r"\ln_5 25"]),
    ("tuple", ["(3,2)", "(x,y)=(3,2)", "(x, y) = (3, 2)", r"\left(x,y\right)=\left(3,2\right)", "(a,b) = (3,2)"]),
    ("real", [r"\frac{\pi}{4}", r"\frac{\pi}{4} \approx 0.785", r"x = \frac{\pi}{4} \approx 0.785"]),
    ("rational", ["0.785", r"\approx 0.785", r"x \approx 0.785"]),
    ("matrix", [r"\left[\begin{array}{cc}1&2\\3&5\end{array}\right]", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", r"\left(\begin{array}{c|c}1&2\\3&5\end{array}\right)"]),
    ("real", ["√14", "√ 14", r"\sqrt{14}"]),
    ("integer", ["44", "AB=44", "|AB| = 44", "AB = CD = 44", r"\\text{44}"]),
    ("ratio", ["11:21", "V_{1}:V_{2}=11:21", r"S_{ABC}:S_{MBCN}=11:21"]),
    ("expression", ["2S_{ABC}", r"S_{ABC}\cdot 2"]),
    ("expression", ["2S_{ACB}"]),
    ("rational", [r"\frac{37}{72}", r"\\dfrac{1}{2} +\frac{1}{72}"]),
    ("equation", ["xy=44", "2xy = 88"]),
    ("interval", [r"-2 \\le x \\le 8", r"x \in [-2,8]"]),
    ("integer", ["1200000", "1.2e6", r"1.2\times 10^6", "1.2E6", "12e5", "1.2e+6."]),
    ("integer", ["100000", "1e5", "1E5", "1e+5", "10^5"]),
    ("rational", ["1/100000", "1e-5", r"10^{-5}"]),
    ("real", ["2e-3", r"2 e - 3", r"2\cdot e-3"]),
    ("real", ["2e"]),
    ("rational", ["0.0025", "2.5e-3", "1/400"]),
    ("percent", ["28 pct", r"28\%", "28 percent", "28 percent of the students", "28 percentage"]),
    ("union", ["x != 5", r"x \ne 5", r"x\neq5"]),
    ("interval", ["-x > -8", "x<8", r"(-\infty,8)"]),
    ("interval", [r"-8 \le -x < 9", r"-9 < x \le 8", "(-9,8]"]),
    ("integer", ["71", "71 = y", "y = 71", "f(x) = 71"]),
    ("equation", ["f(-x)=f(x)", "f(x)=f(-x)"]),
    ("equation", ["f(x)=2x+1", "f(x) = 1+2x"]),
    ("text", [r"\frac{dy}{dx}", r"\dfrac{dy}{dx}", r"\frac{dy}{ dx }"]),
    ("expression", [r"\frac{y}{x}"]),
    ("expression", ["h(a+b)", "(a+b)h"]),
    ("set", ["1,1,2", "2, 1, 1"]),
    ("set", ["284,285,286", "284, 285, 286", "286,285,284"]),
    ("integer", ["284285287", "284,285,287"]),
    ("real", ["2^{20000}", r"4^{10000}"]),
    ("unevaluated", ["2^{20000}+1"]),
    ("real", ["e^{100}"]),
    ("unevaluated", [r"\frac{1}{2004!}"]),
    ("unevaluated", ["e^{-1000}"]),
    ("expression", ["(p-1)a+a^{m-(p-1)}", "a^{m-p+1}+pa-a"]),
    ("expression", ["x^{4/2}+|x|", "x^2+|x|"]),
    ("text", [r"\text{no solution}", "no  solution.", "No solution", "nosolution", r"\text{no}\ \text{solution}"]),
    ("text", [r"\triangle ABC", r"\triangle{}ABC".replace("{}", " "), r"\triangle  ABC"]),
    ("text", [r"\sin_2 x"]),
    ("text", [r"\exp_2 3"]),
    ("equation", ["y=2x+3", "y = 2x + 3", "2x-y+3=0", "-2x+y=3", "2y=4x+6"]),
    ("equation", ["y=2x-3"]),
    ("equation", ["x^2+y^2=4", "4 = y^2 + x^2"]),
    ("interval", [r"(-\infty,3)", r"(-\infty, 3)", "x<3", "3>x", r"\left(-\infty,3\right)", r"x \in (-\infty,3)"]),
    ("interval", [r"(-\infty,3]", r"x \le 3", r"x\leq 3", "x<=3", r"3 \ge x"]),
    ("interval", ["[-2,7]", r"-2 \le x \le 7", r"\left[-2,7\right]", r"x \in [-2,7]", r"7 \ge x \ge -2"]),
    ("interval", ["[-2,7)", r"-2\le x<7"]),
    ("interval", ["(-2,7]"]),
    ("tuple", ["(-2,7)", r"\left( -2, 7 \right)", "-2<x<7", r"(-2,\;7)"]),
    ("tuple", ["(1,2)", "(1, 2)", "(1.0, 4/2)"]),
    ("tuple", ["(2,1)"]),
    ("tuple", [r"(\frac{4}{3},1)", r"\left( \frac43, 1 \right)", r"\bigl(\dfrac{4}{3},\;1\bigr)"]),
    ("tuple", ["(1,2,3)"]),
    ("tuple", ["(117,156)", "(117, 156)"]),
    ("set", ["1,2", "1, 2", r"1,\,2", "2,1", r"\{1,2\}", r"\{2, 1\}", "1 and 2", r"1 \text{ and } 2", r"\{1,2,2\}", r"1\text{ or }2"]),
    ("set", ["1,2,3", r"\{3,2,1\}", r"1, 2, \text{ and } 3"]),
    ("set", [r"2 \pm \sqrt{3}", r"2+\sqrt{3}, 2-\sqrt{3}", r"\{2-\sqrt3, 2+\sqrt3\}", r"x = 2 \pm \sqrt{3}"]),
    ("set", [r"\pm 4", "4,-4", r"x = \pm 4", "x=4, x=-4", r"x = 4 \text{ or } x=-4"]),
    ("set", [r"\emptyset", r"\varnothing", r"\{\}", "∅"]),
    ("set", ["1,-1,i,-i", "i, -i, 1, -1"]),
    ("union", [r"(-\infty,2)\cup(3,\infty)", r"(3,\infty) \cup (-\infty,2)", r"x \in (-\infty,2)\cup(3,\infty)"]),
    ("union", [r"(-\infty,2]\cup[3,\infty)"]),
    ("union", [r"(-\infty,1)\cup(1,\infty)", r"x \ne 1", r"x\neq 1"]),
    ("matrix", [r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", r"\begin{pmatrix}1&2\\3&4\\\end{pmatrix}"]),
    ("matrix", [r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"]),
    ("matrix", [r"\begin{pmatrix} 1/2 \\ -2 \end{pmatrix}", r"\begin{pmatrix} 0.5 \\ -2 \end{pmatrix}"]),
    ("determinant", [r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}"]),
    ("ratio", ["3:5", "3 : 5", r"3:5."]),
    ("ratio", ["5:3"]),
    ("base", ["204_5", "204_{5}", r"204_5."]),
    ("base", ["204_6"]),
    ("base", ["-37_8", "-37_{8}"]),
    ("choice", ["B", "(B)", r"\text{(B)}", r"\textbf{(B)}", r"\text{B}", "B.", r"\mathrm{(B)}"]),
    ("choice", ["C", r"\text{(C)}"]),
    ("set", [r"\text{B,C}", "B, C", "C and B", r"\text{B, C}", r"\text{B,C}."]),
    ("time", ["3:30 p.m.", "3:30 pm", "3:30 PM", r"3:30\text{ p.m.}", "03:30 p.m."]),
    ("time", ["3:30 a.m."]),
    ("time", ["9 a.m.", r"9\text{ a.m.}", "9 AM"]),
    ("time", [r"4\!:\!51\!:\!06 \text{ p.m.}", "4:51:06 pm"]),
    ("date", ["March 3", "march 3", r"\text{March 3}"]),
    ("text", ["Yes", r"\text{Yes}", r"\text{Yes}.", "yes", r"\textbf{yes}"]),
    ("text", ["No", r"\text{no}"]),
    ("text", [r"\text{odd}", "odd", "Odd"]),
    ("text", ["Evelyn", r"\text{Evelyn}", r"\text{ Evelyn }"]),
    ("text", [r"\text{two lines}", "two lines", "Two  lines."]),
    ("text", [r"\leftarrow"]),
    ("unevaluated", ["9^{9^{9^{9}}}", "9^{9^{9^9}}"]),
    ("unevaluated", ["1/0", "1/0.", r"\frac10"]),
    ("infinity", [r"\infty", "∞"]),
    ("infinity", [r"-\infty"]),
]  # fmt: skip

ROWS = [(kind, members[0], member) for kind, members in CLASSES for member in members]

NEAR_MISSES = [
    ("½", "⅓"), ("0.05", "5%"), ("0.6", r"60\%"), ("1e5x", "100000x"), ("(1,2)", r"\{1,2\}"), ("0.33", "1/3"), ("0.333333", "1/3"), ("3.14", r"\pi"),
    ("22/7", r"\pi"), ("1.41421356", r"\sqrt{2}"), ("2.718281828", "e"), ("[1,2]", "(1,2)"), ("[1,2)", "(1,2]"), ("x^2", "x^3"),
    ("x+1", "y+1"), ("x-1", "1-x"), (r"\sqrt{x^2}", "x"), ("12", "1,2"), ("1,2,3", "1,2"), ("(1,2,3)", "(1,2)"), ("-3", "3"),
    ("10^3", "10^{-3}"), ("204_5", "204"), ("3:5", "3/5"), ("A", "B"), ("A", "a"), ("i", "-i"), ("x=1, y=2", "x=2"), ("1000", "1,00"),
    (r"\frac{1}{2}", r"\frac{2}{1}"), (r"\log 2", r"\ln 2"), (r"\sqrt[3]{8}", r"\sqrt{8}"), ("2x", "x^2"), (r"x \le 3", "x<3"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"), ("(a,b)", "(b,a)"), ("5!", "5"), (r"\pm 3", "3"),
    ("1.5", "15"), (r"\emptyset", "0"), (r"\infty", r"-\infty"), ("10,000", "10.000"), ("7 8", "78"), ("3 4", "12"),
    (r"\tan^{-1} 2", r"\cot 2"), ("0.333...", "0.333"), ("3.1415...", "3.1415"), ("f(-x)=f(x)", "f(x)=0"), ("1,1,2", "1,2,2"), ("284,285,286", "284285286"),
    ("1,1,2", "1,2"), ("e^{100}+1", "e^{100}"), ("(x,x)=(3,2)", "(3,2)"), ("no 7 8", "no 78"), (r"\frac{\pi}{4}", "0.785"), ("-x > -1", "x > 1"), (r"\lfloor n/2 \rfloor", "n/2"), (r"\lfloor x \rfloor", r"\lceil x \rceil"), (r"|x-3|", "x-3"), (r"\log_5 25", r"\ln_5 25"),
    (r"2\frac12^2", r"\frac{25}{4}"), (r"\lfloor n/2 \rfloor", "0"), (r"\sqrt{(x-5)^2}", "5-x"), (r"y=|x-3|", "y=3-x"),
    (r"x \in \mathbb{R}", r"x \in \mathbb{Z}"), ("Monday", "Sunday"), (r"\sin x", r"\cos x"), ("2^{x}", "x^{2}"), ("y=x", "y=-x"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "first", "member"), ROWS)
def test_spellings_of_one_answer_share_a_key(kind: str, first: str, member: str) -> None:
    assert canonical_key(member) == canonical_key(first)
    assert canonical_key(first).kind in {kind, "integer", "rational", "decimal"}


def test_the_table_is_large() -> None:
    assert len(ROWS) + len(NEAR_MISSES) >= 250


def test_different_answers_have_different_keys() -> None:
    for (_, one), (_, other) in itertools.combinations(CLASSES, 2):
        assert not same_answer(one[0], other[0]), (one[0], other[0])


@pytest.mark.parametrize(("one", "other"), NEAR_MISSES)
def test_near_misses_are_not_the_same(one: str, other: str) -> None:
    assert not same_answer(one, other)


def test_exact_compares_raw_text() -> None:
    assert answer_key(r"\dfrac12 ", equivalence="exact") == r"\dfrac12 "


@pytest.mark.parametrize(
    ("one", "other", "drop", "keep"),
    [
        ("6 cm", "6", True, False),
        ("6 cm", r"6\text{ cm}", True, True),
        ("6 cm", "6 ft", True, False),
        (r"60\%", "60", True, False),
        (r"60\%", "60 percent", True, True),
        (r"\pm 5\%", r"5\%, -5\%", True, True),
        (r"60\%", "0.6", False, False),
        (r"30\%+30\%", r"60\%", True, True),
    ],
)
def test_units_by_policy(one: str, other: str, drop: bool, keep: bool) -> None:
    assert (canonical_key(one) == canonical_key(other)) is drop
    assert (canonical_key(one, units="keep") == canonical_key(other, units="keep")) is keep


def test_one_policy_for_percentages_in_votes_and_grades() -> None:
    for one, other in itertools.product(["60", r"60\%", "60 percent"], repeat=2):
        assert grade(one, other)
        assert same_answer(one, other)
    assert not grade("0.6", r"60\%")
    assert not grade(r"60\%", "0.6")
    assert not grade("60", r"60\%", units="keep")
    assert grade("142", "142.0")
    assert not grade(None, "142")


@pytest.mark.parametrize(
    ("answer", "tokens", "kind", "key", "note"),
    [
        (r"60\%", "number 60  symbol %", "percent", "60", None),
        (r"$\sqrt{8}$", "command sqrt  symbol {  number 8  symbol }", "real", "~2.8284271247461900976", None),
        ("(B)", "", "choice", "choice:b", "recognised by its form"),
        ("7 8", "number 7  number 8", "text", "text:7 8", "text: two numbers side by side"),
        ("no ☃", "", "text", "text:no☃", "text: character"),
    ],
)
def test_a_reading_says_tokens_kind_and_key(answer: str, tokens: str, kind: str, key: str, note: str | None) -> None:
    reading = explain_answer(answer)
    assert "  ".join(f"{token.kind} {token.text}" for token in reading.tokens) == tokens
    assert (reading.kind, reading.key) == (kind, key)
    assert reading.note is None if note is None else (reading.note or "").startswith(note)
    assert f"key     {key}" in str(reading)
