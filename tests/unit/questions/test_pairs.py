"""Checks of a rephrasing against its original, by hand."""

import pytest

from corewarding.questions.pairs import check_pair

TREES = "A farmer plants 12 rows of 7 trees. Half of them are apple trees. How many are there?"


@pytest.mark.parametrize(
    ("original", "rephrased", "problems"),
    [
        (TREES, "An orchard has twelve rows with 7 trees each, and half are apples. What is the number of apple trees?", []),
        (TREES, "Seven trees stand in each of 12 rows; one half bears apples. Count those.", []),
        (TREES, TREES.upper(), ["identical"]),
        (TREES, "  " + TREES.replace(". ", ".  "), ["identical"]),
        (TREES, "", ["empty"]),
        (TREES, "An orchard has rows of 7 trees, half of them apple trees. How many is that?", ["number lost"]),
        (TREES, "An orchard has 12 rows of 7 trees in 30 acres. Half are apple trees. How many?", ["number new"]),
        (TREES, "12 rows, 7, half", ["much shorter"]),
        ("Add 1 and 4.", "Add 1 and 4. " + "Think of it as a long story about apples. " * 4, ["much longer"]),
        ("It costs 1,200 dollars. How much is 5% of it?", "What is 5% of a price of 1200 dollars?", []),
        ("Two people share 9 nuts equally, how many does one get?", "9 nuts are split evenly. What is a share of the pair?", []),
        ("If x = 2, what is x + 2?", "What is x plus two if x is 2?", []),
    ],
)  # fmt: skip
def test_problems_of_a_pair(original: str, rephrased: str, problems: list[str]) -> None:
    assert [report.problem for report in check_pair(original, rephrased)] == problems


def test_the_command_reports_a_data_set(tmp_path, capsys) -> None:
    import json

    from corewarding.launch.cli import main

    rows = [
        {"id": "a", "question": "What is 2 + 3?", "answer": "5", "rephrased": "Add 2 and 3."},
        {"id": "b", "question": "What is 4 + 3?", "answer": "7", "rephrased": "What is 4 + 3?"},
        {"id": "c", "question": "What is 4 + 3?", "rephrased": "What do 4 and 9 make together?"},
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert main(["data", "inspect", str(file), "--examples", "1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "3 rows, 3 with a rephrasing",
        "2 of 3 rows (integer 2)",
        "more than once: 1 [['b', 'c']]",
        "b (the same words)",
        "c (9)",
        "answer: 5",
    ):
        assert words in said, words
    assert "how answers were read" not in said
    assert main(["data", "inspect", str(file), "--explain"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "how answers were read" in said
    assert "integer │ 5 │ 5 │ 5" in said
    assert main(["data", "inspect", str(tmp_path / "none.jsonl")]) == 2
    assert main(["data", "look"]) == 2
