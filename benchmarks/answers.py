"""Our keys beside other graders: `python -m benchmarks.answers --data FOLDER [--verl FILE] [--pairs N] [--tests FILE ...]`.

FOLDER holds train/math_original.parquet, eval/math_test.parquet and completions/math_50x8.jsonl. Prints the kinds of the gold answers
and those read as text only, keys per second, the agreement with published extractions and grades, and how many spellings of the gold
answers of MATH, DAPO and Open-RS keep their key. If math-verify is installed
or --verl names verl's scorer (verl/utils/reward_score/math_reward.py), compares them on the same pairs: a gold answer with another
spelling of it (must be equal) or with another gold answer (must differ, unless both keys agree).

--tests: test files of other graders (parametrized by gold, pred and expected, or unittest with test_in and test_out); every case that
we decide in another way is printed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from corewarding.rewards.answers.extract import extract_answer
from corewarding.rewards.answers.grading import grade
from corewarding.rewards.answers.key import canonical_key, same_answer

Same = Callable[[str, str], bool]
RESPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda text: f"${text}$",
    lambda text: text.replace(r"\frac", r"\dfrac"),
    lambda text: re.sub(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", text),
    lambda text: _sized(text),  # defined below
    lambda text: text if "!" in text or "{," in text else re.sub(r"\s*([-+=,])\s*", r" \1 ", text),
    lambda text: re.sub(r"(?<![\w.,{}!])(\d+)(?![\w.,{}!])", r"\1.0", text) if re.fullmatch(r"-?\d+", text) else text,
    lambda text: re.sub(r"\s*\\text\{\s*([a-z ]+)\}\s*$", r"\\mbox{ \1}", text),
    lambda text: text + ".",
)


def _sized(text: str) -> str:
    r"""Brackets with \left and \right, or without them."""
    if r"\left" in text:
        return text.replace(r"\left", "").replace(r"\right", "")
    return text if r"\text" in text else text.replace("(", r"\left(").replace(")", r"\right)")


def gold_answers(folder: Path) -> list[str]:
    files = ("train/math_original.parquet", "eval/math_test.parquet")
    rows = [row for name in files for row in pq.read_table(folder / name).to_pylist()]
    return [row["reward_model"]["ground_truth"] for row in rows]


def report_spellings(folder: Path) -> None:
    """Every spelling in RESPELLINGS of every gold answer of three training sets: does it keep the key?"""
    print("| data set | gold answers | spellings that differ | keep their key | CPU s |\n|---|---|---|---|---|")
    lost: list[tuple[str, str]] = []
    for name in ("math", "dapo14k", "openrs"):
        rows = pq.read_table(folder / "train" / f"{name}_original.parquet", columns=["reward_model"]).to_pylist()
        gold = list(dict.fromkeys(str(row["reward_model"]["ground_truth"]) for row in rows))
        pairs = [
            (text, spelled)
            for text in gold
            if text.strip()
            for spell in RESPELLINGS
            if (spelled := spell(text)) != text
        ]
        began = time.process_time()
        changed = [pair for pair in pairs if not same_answer(*pair)]
        took = time.process_time() - began
        print(f"| {name} | {len(gold)} | {len(pairs)} | {1 - len(changed) / len(pairs):.2%} | {took:.1f} |")
        lost += changed
    for text, spelled in lost:
        print(f"{spelled!r} has not the key of {text!r}")
    print()


def report_kinds(gold: list[str]) -> None:
    began, times = time.perf_counter(), []
    answers = []
    for text in gold:
        at = time.perf_counter()
        answers.append(canonical_key(text))
        times.append(time.perf_counter() - at)
    total = time.perf_counter() - began
    print(f"## Gold answers: {len(gold)} in {total:.2f} s, slowest {max(times) * 1e3:.1f} ms\n")
    for kind, number in Counter(answer.kind for answer in answers).most_common():
        print(f"{kind}: {number}")
    texts = [text for text, answer in zip(gold, answers, strict=True) if answer.kind == "text"]
    print(f"text: {len(texts) / len(gold):.2%}: {Counter(texts).most_common()}\n")
    latex = list(dict.fromkeys(text for text in gold if "\\" in text or "^" in text or "," in text))
    times = []
    for text in latex:
        at = time.perf_counter()
        canonical_key(text + " ")  # another string, so not from the cache
        times.append(time.perf_counter() - at)
    p99 = sorted(times)[int(0.99 * len(times))]
    print(f"LaTeX answers: {len(latex) / sum(times):,.0f} keys per second, p99 {p99 * 1e3:.2f} ms")
    plain = [str(number) for number in range(20_000)] + [rf"\frac{{{number}}}{{7}}" for number in range(20_000)]
    began = time.perf_counter()
    for text in plain:
        canonical_key(text)
    print(f"plain numbers and fractions: {len(plain) / (time.perf_counter() - began):,.0f} keys per second\n")


def report_completions(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    total = extracted = graded = 0
    differences: Counter[tuple[str | None, str, bool]] = Counter()
    for row in rows:
        for text, theirs, verdict in zip(row["completions"], row["extracted"], row["grades"], strict=True):
            answer = extract_answer(text)
            total += 1
            extracted += (answer is None and not theirs) or (answer is not None and same_answer(answer, theirs))
            graded += grade(answer, row["answer"]) == bool(verdict)
            if grade(answer, row["answer"]) != bool(verdict):
                differences[answer, row["answer"], bool(verdict)] += 1
    print(f"## Completions: {total}\n\nextraction equal: {extracted / total:.2%}; verdict equal: {graded / total:.2%}")
    for (answer, right, verdict), number in differences.items():
        print(f"{number} x {answer!r} against {right!r}: published {verdict}, ours {not verdict}")
    print()


def competitors(verl: Path | None) -> dict[str, Same]:
    found: dict[str, Same] = {"ours": same_answer}
    if importlib.util.find_spec("math_verify"):
        import math_verify

        def theirs(one: str, other: str) -> bool:
            parsed = [math_verify.parse(f"${text}$" if "$" not in text else text) for text in (one, other)]
            return bool(math_verify.verify(*parsed))

        found["math-verify"] = theirs
    if verl is not None:
        spec = importlib.util.spec_from_file_location("verl_scorer", verl)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found["verl"] = lambda one, other: bool(module.is_equiv(one, other))
    return found


def report_pairs(gold: list[str], found: dict[str, Same], num_pairs: int) -> None:
    draws = random.Random(0)
    respelled = [(text, RESPELLINGS[index % len(RESPELLINGS)](text)) for index, text in enumerate(gold)]
    respelled = [pair for pair in respelled if pair[0].strip() and pair[0] != pair[1]]
    respelled = draws.sample(respelled, k=min(num_pairs, len(respelled)))
    others = [
        (one, other)
        for one, other in zip(gold, draws.sample(gold, len(gold)), strict=True)
        if not same_answer(one, other)
    ]
    others = draws.sample(others, k=min(num_pairs, len(others)))
    print(f"## {len(respelled)} re-spellings, {len(others)} pairs of different answers\n")
    print("| | re-spelling recognised | different kept apart | failures | pairs per second | p99 |")
    print("|---|---|---|---|---|---|")
    for name, same in found.items():
        times: list[float] = []
        failures = 0
        right: list[list[bool]] = [[], []]
        for want, pairs in enumerate((others, respelled)):
            for one, other in pairs:
                at = time.perf_counter()
                try:
                    right[want].append(same(one, other) == bool(want))
                except Exception:  # any error of a scorer counts as its failure
                    failures += 1
                    right[want].append(False)
                times.append(time.perf_counter() - at)
        p99 = sorted(times)[int(0.99 * len(times))]
        cells = f"{statistics.fmean(right[1]):.2%} | {statistics.fmean(right[0]):.2%} | {failures}"
        print(f"| {name} | {cells} | {len(times) / sum(times):,.0f} | {p99 * 1e3:.1f} ms |", flush=True)


def cases(path: Path) -> Iterator[tuple[str, str, bool]]:
    """(gold, answer, expected verdict) of each test in the file whose three values are written out."""
    for test in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)):
        for decorator in (one for one in test.decorator_list if isinstance(one, ast.Call) and len(one.args) == 2):
            names = [name.strip() for name in str(ast.literal_eval(decorator.args[0])).split(",")]
            for row in getattr(decorator.args[1], "elts", []):
                values = dict(zip(names, getattr(row, "elts", []), strict=False))
                found = [values.get("gold"), values.get("pred"), values.get("expected", values.get("result"))]
                if all(isinstance(one, ast.Constant) for one in found):
                    gold, answer, expected = (ast.literal_eval(one) for one in found if one is not None)
                    yield gold, answer, bool(expected)
        given = {
            ast.unparse(line.targets[0]): ast.literal_eval(line.value)
            for line in test.body
            if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
        }
        asserted = ast.unparse(test.body[-1])
        if given.keys() >= {"test_in", "test_out"}:
            yield given["test_out"], given["test_in"], "assertTrue" in asserted


def answer_in(text: str) -> str | None:
    """The answer in a test's text: the last box, else the last formula if there are words around it, else the text."""
    if re.search(r"\\f?boxed", text):
        return extract_answer(text)
    formula = r"\$\$?(.+?)\$\$?|\\\[(.+?)\\\]|\\\((.+?)\\\)"
    spans = re.findall(formula, text, re.DOTALL)
    around = re.sub(formula, "", text, flags=re.DOTALL)
    if not spans or re.fullmatch(r"[\s,;.]*(?:(?:and|or)[\s,;.]*)*", around):
        return text.replace("$", "") if len(spans) > 1 else text
    return next(part for part in spans[-1] if part) if re.search("[a-z]{2}", around) else text


def report_tests(paths: list[Path]) -> None:
    for path in paths:
        found = list(cases(path))
        differing = [
            (gold, answer, expected)
            for gold, answer, expected in found
            if ((right := answer_in(gold)) is not None and grade(answer_in(answer), right)) != expected
        ]
        print(f"## {path.name}: {len(found)} cases, {len(differing)} decided in another way\n")
        for gold, answer, expected in differing:
            print(f"{answer!r} against {gold!r}: theirs {expected}, ours {not expected}")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--verl", type=Path)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--tests", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    if arguments.tests:
        report_tests(arguments.tests)
        return
    gold = gold_answers(arguments.data)
    report_kinds(gold)
    report_completions(arguments.data / "completions" / "math_50x8.jsonl")
    report_spellings(arguments.data)
    report_pairs(gold, competitors(arguments.verl), arguments.pairs)


if __name__ == "__main__":
    main()
