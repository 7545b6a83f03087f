"""Each file format and each schema gives the same entries; unreadable data is refused with key, row and value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from corewarding.dataflow.errors import DataSetError
from corewarding.questions.readers import Entry, final_answer, pair, read_entries

PLAIN = [
    {"id": 7, "question": "1+1?", "answer": "2", "rephrased": "One and one?", "solution": "obvious"},
    {"id": 9, "question": "2+2?", "answer": "4", "rephrased": "Two and two?", "solution": "obvious"},
]
ENTRIES = [
    Entry(id="7", text="1+1?", rephrased="One and one?", answer="2"),
    Entry(id="9", text="2+2?", rephrased="Two and two?", answer="4"),
]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> str:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def verl_row(index: Any, text: str, answer: str | None = None) -> dict[str, Any]:
    prompt = [{"role": "system", "content": "Another recipe's."}, {"role": "user", "content": text}]
    return {
        "prompt": prompt,
        "reward_model": {"ground_truth": answer, "style": "rule"},
        "extra_info": {"index": index, "split": "train"},
    }


def read(source: str, *, split: str = "train", **how: Any) -> list[Entry]:
    return read_entries(source, key="data.train", split=split, **how)


def test_jsonl(tmp_path: Path) -> None:
    assert read(write_jsonl(tmp_path / "a.jsonl", PLAIN)) == ENTRIES


def test_parquet_of_plain_columns(tmp_path: Path) -> None:
    assert read(write_parquet(tmp_path / "a.parquet", PLAIN)) == ENTRIES


def test_verl_takes_the_user_message_and_the_index(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", [verl_row(5, " q one\n", "1"), verl_row(3, "q two", "")])
    assert read(source) == [
        Entry(id="5", text=" q one\n", rephrased=None, answer="1"),
        Entry(id="3", text="q two", rephrased=None, answer=None),
    ]


def test_verl_without_answers_is_fine(tmp_path: Path) -> None:
    rows = [{k: v for k, v in verl_row(0, "q").items() if k != "reward_model"}]
    assert read(write_parquet(tmp_path / "a.parquet", rows))[0].answer is None


def test_a_folder_of_data_files(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "set" / "train.jsonl", PLAIN)
    write_jsonl(tmp_path / "set" / "test.jsonl", PLAIN[:1])
    assert read(str(tmp_path / "set")) == ENTRIES
    assert read(str(tmp_path / "set"), split="test") == ENTRIES[:1]
    with pytest.raises(DataSetError, match=r"data\.train=.*split 'dev'.*data\.train_split names the split"):
        read(str(tmp_path / "set"), split="dev")


def test_a_folder_of_verl_parquet(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_parquet(tmp_path / "set" / "train-00000.parquet", [verl_row(5, "q", "1")])
    assert read(str(tmp_path / "set")) == [Entry(id="5", text="q", rephrased=None, answer="1")]


def test_a_folder_saved_to_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list(PLAIN)
    one.save_to_disk(str(tmp_path / "one"))
    assert read(str(tmp_path / "one")) == ENTRIES
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk(str(tmp_path / "two"))
    assert read(str(tmp_path / "two"), split="test") == ENTRIES[:1]
    with pytest.raises(DataSetError, match=r"no split 'dev', only \['test', 'train'\]; set data\.train_split"):
        read(str(tmp_path / "two"), split="dev")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DataSetError, match=r"data\.train=.*set: datasets cannot load split 'train'"):
        read(str(tmp_path / "set"))


def test_without_ids_the_row_is_the_id(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"problem": "p", "answer": 3}, {"problem": "q"}])
    assert read(source) == [
        Entry(id="0", text="p", rephrased=None, answer="3"),
        Entry(id="1", text="q", rephrased=None, answer=None),
    ]


def test_a_line_separator_inside_a_text_is_not_a_line_break(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"question": "one\u2028two\u0085three"}])
    assert read(source)[0].text == "one\u2028two\u0085three"


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", "18"),
        ("so\n#### 1,450,000", "1450000"),
        ("so\n#### 1,450,00", "1,450,00"),
        (r"Thus $\boxed{\frac{14}{3}}$The answer is: \frac{14}{3}", r"\frac{14}{3}"),
        ("The answer is: 3? No. The answer is: 1,-2", "1,-2"),
        (r"First \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"First \boxed{1}, then \boxed{\frac{1}{2}.", "1"),
        ("142.0", "142.0"),
        (" 025 ", "025"),
        (7, "7"),
        ("", None),
        ("  ", None),
        (None, None),
    ],
)
def test_final_answer(answer: object, final: str | None) -> None:
    assert final_answer(answer) == final


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"data\.train=.*nothing\.parquet: there is no such file or folder"):
        read(str(tmp_path / "nothing.parquet"))
    with pytest.raises(DataSetError, match="there is no such file or folder"):
        read("some/deep/folder")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("question,answer\n")
    with pytest.raises(DataSetError, match=r"must end in \.parquet, \.jsonl, \.json, \.csv to be read"):
        read(str(tmp_path / "a.txt"))


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("version https://git-lfs")
    with pytest.raises(DataSetError, match="not a readable Parquet file"):
        read(str(tmp_path / "a.parquet"))


def test_columns_that_are_missing_are_named_with_what_was_found(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", [{"text": "q", "label": "1"}])
    with pytest.raises(
        DataSetError, match=r"data\.train=.*needs a column `question`, `problem` or `prompt`.*found \['text', 'label'\]"
    ):
        read(source)
    source = write_parquet(
        tmp_path / "b.parquet", [{"prompt": verl_row(0, "q")["prompt"], "reward_model": {"style": "rule"}}]
    )
    with pytest.raises(DataSetError, match=r"`extra_info`.*is missing.*found \['prompt', 'reward_model'\]"):
        read(source)
    source = write_parquet(tmp_path / "c.parquet", [verl_row(0, "q") | {"extra_info": {"split": "train"}}])
    with pytest.raises(DataSetError, match=r"row 0 has no `extra_info\.index`, found \{'split': 'train'\}"):
        read(source)


def test_a_prompt_without_one_user_message_is_refused(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", [verl_row(0, "q") | {"prompt": "q"}])
    with pytest.raises(DataSetError, match=r"`prompt` of row 0 must be a list of \{role, content\}.*got 'q'"):
        read(source)
    row = verl_row(0, "q")
    row["prompt"] = row["prompt"] + row["prompt"][1:]
    with pytest.raises(DataSetError, match="one user message"):
        read(write_parquet(tmp_path / "b.parquet", [row]))


def test_lines_that_are_no_objects_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q"}\n\n{"question":\n')
    with pytest.raises(DataSetError, match=r"line 3 is not JSON .*one object per line is expected"):
        read(str(path))
    path.write_text("[1]\n")
    with pytest.raises(DataSetError, match="line 1 must be a JSON object, got list"):
        read(str(path))
    path.write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(DataSetError, match="not UTF-8"):
        read(str(path))
    path.write_text("\n")
    with pytest.raises(DataSetError, match="it has no rows"):
        read(str(path))


def test_empty_questions_and_repeated_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="`question` of row 1 must be a text that is not empty, got ' '"):
        read(write_jsonl(tmp_path / "a.jsonl", [{"question": "q"}, {"question": " "}]))
    with pytest.raises(DataSetError, match="rows 0 and 1 have the same id '4'"):
        read(write_jsonl(tmp_path / "b.jsonl", [{"id": 4, "question": "q"}, {"id": 4, "question": "r"}]))
    with pytest.raises(DataSetError, match="row 1 has no `id`"):
        read(write_jsonl(tmp_path / "c.jsonl", [{"id": 4, "question": "q"}, {"question": "r"}]))


def entries(*ids: str, text: str) -> list[Entry]:
    return [Entry(id=i, text=f"{text} {i}", rephrased=None, answer=None) for i in ids]


def test_pairs_join_by_row_and_id() -> None:
    paired = pair(entries("4", "2", text="original"), entries("4", "2", text="rephrased"))
    assert [(e.id, e.text, e.rephrased) for e in paired] == [
        ("4", "original 4", "rephrased 4"),
        ("2", "original 2", "rephrased 2"),
    ]


def test_pairs_that_do_not_match_are_refused_by_their_first_rows() -> None:
    with pytest.raises(DataSetError, match=r"ids of 2 of 3 rows \(row 1: '1' and '2'; row 2: '2' and '1'\)"):
        pair(entries("0", "1", "2", text="a"), entries("0", "2", "1", text="b"))
    many = [str(i) for i in range(9)]
    with pytest.raises(DataSetError, match=r"ids of 9 of 9 rows .*row 2: '2' and '3'; \.\.\.\)"):
        pair(entries(*many, text="a"), entries(*many[1:], "0", text="b"))
    with pytest.raises(DataSetError, match=r"data\.train has 2 rows and data\.rephrased 1"):
        pair(entries("0", "1", text="a"), entries("0", text="b"))


def test_questions_alone_are_enough(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "1+1?"}\n{"question": "2+2?"}\n')
    assert read(str(tmp_path / "a.jsonl")) == [Entry(id="0", text="1+1?"), Entry(id="1", text="2+2?")]
