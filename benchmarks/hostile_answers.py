# ruff: noqa: E501
r"""Texts that could hang, bloat or take over a grader.

    python -m benchmarks.hostile_answers [--random 500000] [--second-opinion]

Extracts and keys 300 written texts (towers, factorials, nesting, 1 MB strings, code, broken LaTeX, unicode tricks) and --random texts
drawn from the tokens of answers, in a process of its own that counts opened files, started processes and compiled code. Prints the
slowest text in CPU time, the memory and what was counted; fails at a text that raises. --second-opinion also sends the written texts to
math-verify behind its guard and prints how each ended.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SENTINEL = Path("/tmp/corewarding-was-executed")
WATCHED = (
    "open",
    "exec",
    "compile",
    "os.system",
    "os.exec",
    "subprocess.Popen",
    "socket.connect",
    "import",
    "ctypes.dlopen",
)


def hostile_texts() -> list[str]:
    """Over 300 distinct texts in families of growing size."""
    towers = [f"{base}^{{{base}^{{{top}}}}}" for base in (2, 9, 10, 99) for top in (9, 99, 10**9, "9^{9}", "9^{9^{9}}")]
    towers += ["^".join(["9"] * depth) for depth in (3, 10, 100, 1000)] + [
        f"{10**9}^{{{10**9}}}",
        "2^{-10^{12}}",
        "0^{-9^{9}}",
    ]
    towers += [
        f"({inner})^{{{power}}}" for inner in ("x+1", "x+y+z", r"\sqrt{2}+x", "1+i") for power in (99, 10**5, 10**9)
    ]
    factorials = [f"{number}!" for number in (99, 9999, 10**7, 10**100)] + [
        "(" * n + "9" + "!)" * n for n in (2, 5, 50, 500)
    ]
    factorials += [rf"\binom{{{10**n}}}{{{5 * 10 ** (n - 1)}}}" for n in (2, 4, 6, 9)] + [
        "9" + "!" * n for n in (2, 9, 99, 999)
    ]
    pairs = ("()", "[]", "{}", [r"\{", r"\}"], (r"\left(", r"\right)"), (r"\sqrt{", "}"), (r"\frac{1}{", "}"), (r"\text{", "}"), ("x^{", "}"),
             ("-(", ")"), ("|", "|"), (r"\boxed{", "}"), (r"\lfloor ", r"\rfloor "))  # fmt: skip
    nesting = [
        opened * depth + "2" + closed * depth for opened, closed in pairs for depth in (10, 100, 300, 1000, 20_000)
    ]
    broken = [opened * depth for opened, _ in pairs for depth in (1, 999)]
    long = [
        letter * size
        for letter in ("9", "x", "1+", "1,", "-", "0.", "²", "\\", "{", "}", "$", "&", " ", "\n", "e")
        for size in (2000, 2**20)
    ]
    long += [r"\begin{pmatrix}" + r"1 & 2 \\ " * rows + r"\end{pmatrix}" for rows in (1, 100, 10_000)]
    long += [r"\cup ".join(["(1,2)"] * n) for n in (10, 1000, 50_000)] + [
        "0." + "0" * n + "1" for n in (100, 2000, 10**6)
    ]
    long += [f"1e{sign}{10**n}" for sign in ("", "-") for n in (2, 5, 9, 18)] + [
        "9" * 5000 + "." + "9" * 5000,
        "1/" * 5000 + "3",
    ]
    code = [text.format(f"touch {SENTINEL}") for text in (
        "__import__('os').system('{}')", "eval(\"__import__('os').system('{}')\")", "().__class__.__base__.__subclasses__()", "$({})", "`{}`", "; {} ;",
        "lambda: __import__('os').popen('{}')", r"\input{{/etc/passwd}}", r"\write18{{{}}}", r"\immediate\write18{{{}}}", r"\def\x{{\x\x}}\x", r"\csname x\endcsname",
        "open('/etc/passwd').read()", "exec(compile('{}','','exec'))", "%s%s%s%n", "{{0.__class__}}", "${{jndi:ldap://x}}", "<script>{}</script>", "'; DROP TABLE answers; --",
        "sympify('{}')", "Symbol('x').__init__.__globals__", "S(1).func.__globals__['os']", "../../../etc/passwd", "file:///etc/passwd", "\\catcode`\\@=11", "import os",
    )]  # fmt: skip
    code += [rf"\boxed{{{text}}}" for text in code]
    unicode = ["١٢٣", "𝟏𝟐", "１２", "\u202e12\u202c", "1\u200b2", "\x00" * 99, "\x001", "\ud800", "½" * 99, "⁹" * 99, "é" * 2000, "e\u0301" * 999, "👩‍👩‍👧‍👦" * 99, "\ufeff7",
               "−" * 500, "∞−∞", "√" * 500 + "2", "٪", "x\u0336" * 500, "\u2028", "\u0085" * 99, "ﷺ" * 999, "Ⅻ", "①②③", "10\u2215" * 99]  # fmt: skip
    algebra = [r"1/0", "0^0", r"\log 0", r"\log_{1} 5", r"\ln(-1)", r"\tan 90^\circ", r"\infty-\infty", r"\frac{\infty}{\infty}", r"e^{e^{e^{e^{e^{e}}}}}", r"\sinh 10^{9}",
               r"\exp(\exp(\exp(100)))", r"\sqrt[10^{9}]{2}", r"2^{1/10^{9}}", r"\pi^{\pi^{\pi^{\pi}}}", r"\sum_{n=1}^{10^{12}} n", r"\prod_{n=1}^{10^{9}} n", r"\int_0^{\infty} e^{x^2} dx",
               r"\lim_{x\to 0} 1/x", r"\sin(10^{10^{10}})", r"x=x=x=x", r"x<x<x", "1 \\pm" * 300, r"\mod 0", r"5 \bmod 0", r"\gcd(10^{999}, 10^{998})", "i^{i^{i^{i}}}", r"\overline{" * 99,
               "0.\\overline{" + "9" * 1500 + "}", r"\arcsin 2", r"\frac{" + "9" * 1900 + "}{" + "7" * 50 + "}", "1_{2_{3_{4}}}", "12" * 300 + "_{2}", r"\cot 0"]  # fmt: skip
    return list(dict.fromkeys(towers + factorials + nesting + broken + long + code + unicode + algebra))


COMMANDS = [r"\frac", r"\sqrt", r"\binom", r"\left(", r"\right)", r"\text{", r"\circ", r"\%", r"\\", r"\cup", r"\pm", r"\infty", r"\pi", r"\lfloor", r"\rfloor",
            r"\begin{pmatrix}", r"\end{pmatrix}", r"\boxed{", r"\overline{"]  # fmt: skip
PLAIN = [
    *"^_{}{}(())[]$,./-+*!0123579xyzei°−|:;=<>&' ",
    "10",
    "0.5",
    "1,000",
    "^{",
    "_{",
    "**",
    "<=",
    "½",
    "√",
    "∞",
    "3:30 p.m.",
]
READABLE = [r"\frac{1}{2}", "x^2+1", r"\sqrt{3}", "(1,2)", r"\{1,2\}", "[0,1)", "x<3", "2^{10}", r"25\%", r"\sin x", r"\lfloor n/2 \rfloor", "|x-3|", "y=2x"]  # fmt: skip


def random_texts(num: int, *, seed: int) -> Iterator[str]:
    """Texts of up to 14 tokens of answers, half of them around expressions that can be read."""
    from corewarding.rewards.answers import tokens

    rng = random.Random(seed)
    names = sorted(tokens.FUNCTIONS | tokens.GREEK | {name for name in tokens.RELATIONS if name.isalpha()})
    pieces = [*(rf"\{name} " for name in names), *COMMANDS, *sorted(tokens.UNITS | tokens.WORDS), *PLAIN * 2]
    for number in range(num):
        soup = [rng.choice(pieces) for _ in range(rng.randint(1, 14))]
        if number % 2:
            soup = [rng.choice(READABLE) if rng.random() < 0.5 else piece for piece in soup[:6]]
        yield "".join(soup)


def measure(num_random: int) -> None:
    """In a fresh process: prints one line of JSON."""
    from corewarding.rewards.answers.extract import extract_answer
    from corewarding.rewards.answers.key import canonical_key

    written = hostile_texts()
    canonical_key(r"\frac{1}{2}+\sqrt{2}"), extract_answer(r"\boxed{1}")  # late imports happen here, unwatched
    seen: Counter[str] = Counter()
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in WATCHED:
            seen[event] += 1

    sys.addaudithook(hook)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kinds = Counter[str]()
    slowest_s, slowest = 0.0, ""
    for text in itertools.chain(written, random_texts(num_random, seed=0)):
        began = time.process_time()
        try:
            answer = extract_answer(text if text.startswith("\\boxed") else rf"So the answer is \boxed{{{text}}}.")
            kinds[canonical_key(answer).kind if answer is not None else "no answer"] += 1
            canonical_key(text)
        except Exception as error:
            raise SystemExit(f"{error!r} for {text[:200]!r}") from error
        if time.process_time() - began > slowest_s:
            slowest_s, slowest = time.process_time() - began, text[:40]
    watching = False
    report = {
        "texts": len(written) + num_random, "slowest_cpu_s": slowest_s, "slowest": slowest, "cpu_s": time.process_time(), "kinds": kinds.most_common(),
        "memory_before_mb": before / 1024, "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "events": dict(seen),
    }  # fmt: skip
    print(json.dumps(report))


def second_opinion() -> None:
    from corewarding.evals.second_opinion import second_opinions

    texts = [text for text in hostile_texts() if not any("\ud800" <= letter <= "\udfff" for letter in text)]
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    with second_opinions(timeout_s=1.5, memory_mb=512) as grader:
        for text in texts:
            began = time.perf_counter()
            outcomes[grader.grade([(text, "7")])[0].outcome] += 1
            slowest = max(slowest, time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"second opinion: {len(texts)} texts, outcomes {dict(outcomes)}, slowest {slowest:.2f} s")
    print(
        f"largest worker {peak:.0f} MB; workers left {len(multiprocessing.active_children())}; executed: {SENTINEL.exists()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=0, help="how many random texts")
    parser.add_argument("--second-opinion", action="store_true")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments.random)
    SENTINEL.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.hostile_answers", "--measure", "--random", str(arguments.random)]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print("\n".join(f"{name}: {value}" for name, value in report.items()) + f"\nexecuted: {SENTINEL.exists()}")
    if arguments.second_opinion:
        second_opinion()


if __name__ == "__main__":
    main()
