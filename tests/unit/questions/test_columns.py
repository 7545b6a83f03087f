"""Other shapes of data: TRL's rows, CSV, JSON lists, columns of other names, a reader of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corewarding.dataflow.errors import DataSetError, UserError
from corewarding.dataflow.plugins import PluginError
from corewarding.questions.readers import Entry, question_reader
from tests.unit.questions.test_readers import read, verl_row, write_jsonl, write_parquet


def test_rows_in_the_style_of_trl(tmp_path: Path) -> None:
    rows = [
        {"prompt": "1+1?", "solution": r"It is \boxed{2}."},
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "2+2?"}], "solution": "4"},
    ]
    assert read(write_jsonl(tmp_path / "a.jsonl", rows)) == [
        Entry(id="0", text="1+1?", answer="2"),
        Entry(id="1", text="2+2?", answer="4"),
    ]
    twice = [{"prompt": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}]
    with pytest.raises(
        DataSetError, match=r"`prompt` of row 0 must be a list of \{role, content\} with one user message"
    ):
        read(write_jsonl(tmp_path / "b.jsonl", twice))


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffid,question,answer\na,"One, and\none?",2\nb,Two?,\n')
    assert read(str(path)) == [Entry(id="a", text="One, and\none?", answer="2"), Entry(id="b", text="Two?")]
    path.write_text("id,question,answer\na,One, and one?,2\n")
    with pytest.raises(DataSetError, match=r"ends in line 2 has another number of fields than the 3 columns; a comma"):
        read(str(path))
    path.write_text("id,question\na\n")
    with pytest.raises(DataSetError, match="another number of fields than the 2 columns"):
        read(str(path))
    path.write_text("id,question\na,\n")
    with pytest.raises(DataSetError, match="`question` of row 0 must be a text that is not empty, got None"):
        read(str(path))


def test_a_json_list(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"problem": "1+1?", "answer": 2},\n {"problem": "2+2?"}]')
    assert read(str(path)) == [Entry(id="0", text="1+1?", answer="2"), Entry(id="1", text="2+2?")]
    path.write_text('{"problem": "1+1?"}\n{"problem": "2+2?"}\n')
    with pytest.raises(DataSetError, match=r"not a JSON file .*one object per line ends in \.jsonl"):
        read(str(path))
    path.write_text('{"data": []}')
    with pytest.raises(DataSetError, match="must be a JSON list of objects, got dict"):
        read(str(path))
    path.write_text('[{"problem": "p"}, 3]')
    with pytest.raises(DataSetError, match="row 1 must be a JSON object, got int"):
        read(str(path))


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    rows = [{"key": 5, "task": "1+1?", "reply": {"final": "2"}}, {"key": 6, "task": "2+2?", "reply": None}]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    assert read(source, columns={"question": "task", "answer": "reply.final", "id": "key"}) == [
        Entry(id="5", text="1+1?", answer="2"),
        Entry(id="6", text="2+2?"),
    ]
    with pytest.raises(
        DataSetError, match=r"a\.jsonl: data\.columns names a column 'tsk' for question, found \['key', 'task'"
    ):
        read(source, columns={"question": "tsk"})
    with pytest.raises(
        DataSetError, match=r"maps question, answer, id, rephrased to columns; there is no field 'prompt'"
    ):
        read(source, columns={"prompt": "task"})


def test_a_mapping_wins_over_the_columns_of_a_schema(tmp_path: Path) -> None:
    row = verl_row(5, "q", "1") | {"text": "another q"}
    source = write_parquet(tmp_path / "a.parquet", [row])
    assert read(source, columns={"question": "text", "answer": "reward_model.ground_truth"}) == [
        Entry(id="0", text="another q", answer="1")
    ]


@pytest.mark.usefixtures("fresh_tables")
def test_a_reader_of_the_users_own(tmp_path: Path) -> None:
    @question_reader("frage")
    def frage(row: dict[str, Any]) -> Entry:
        if row["antwort"] == "?":
            raise DataSetError("there is no answer")
        return Entry(text=row["frage"], answer=row["antwort"])

    source = write_jsonl(tmp_path / "a.jsonl", [{"frage": "1+1?", "antwort": "2"}])
    assert read(source, reader="frage") == [Entry(id="0", text="1+1?", answer="2")]
    with pytest.raises(DataSetError, match=r"b\.jsonl: row 0: there is no answer"):
        read(write_jsonl(tmp_path / "b.jsonl", [{"frage": "1+1?", "antwort": "?"}]), reader="frage")
    with pytest.raises(
        PluginError, match=r"row 0: reader 'frage' failed: .*test_columns\.py line \d+: KeyError: 'antwort'"
    ):
        read(write_jsonl(tmp_path / "c.jsonl", [{"frage": "1+1?"}]), reader="frage")
    with pytest.raises(UserError, match=r"data\.reader 'frag' does not exist; did you mean frage\?"):
        read(source, reader="frag")
