"""Law 14, bad data: each is refused in one line that names the file, the line or the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelwright.cli import main
from modelwright.errors import EXIT_CORRUPT, EXIT_USAGE
from tests.programs import rows, the_line, write_corpus

LABELLED = """\
name: table
data: {source: table.csv, split: {by: row, validation: 0.1, test: 0.1}}
train: {task: vector_classification, steps: 2, precision: float32, threads: 1}
"""
Prepare = Callable[..., str]


@pytest.fixture
def prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Prepare:
    """Prepare a source with the text recipe (or another); the one line it is refused with."""
    write_corpus(tmp_path)
    (tmp_path / "table.yaml").write_text(LABELLED)
    monkeypatch.chdir(tmp_path)

    def run(
        source: str,
        *overrides: str,
        recipe: str = "tiny",
        code: int = EXIT_USAGE,
        out: str = "run",
    ) -> str:
        capsys.readouterr()
        given = ["train", f"{recipe}.yaml", f"data.source={source}", *overrides]
        assert main([*given, "--out", out]) == code
        return the_line(capsys.readouterr().err)

    return run


CORPORA: dict[str, tuple[dict[str, bytes], str]] = {
    "empty.txt": ({"empty.txt": b""}, "empty.txt: the file is empty: give one with content"),
    "blank.txt": ({"blank.txt": b" \n\n"}, "its 1 texts are blank"),
    "empty.jsonl": ({"empty.jsonl": b"\n\n"}, "empty.jsonl: the source is empty"),
    "folder": ({"folder/.keep": b""}, "folder"),
    "pictures": ({f"pictures/{i}.png": b"x" for i in range(9)}, "no text"),
    "mixed": ({"mixed/a.txt": b"x", "mixed/b.csv": b"y"}, "this folder mixes"),
    "film.mp4": ({"film.mp4": b"x"}, "film.mp4: files of this kind cannot be read"),
    "latin.txt": ({"latin.txt": b"ol\xe9\n" * 9}, "latin.txt: not UTF-8 at byte 2, line 1"),
    "wide.csv": ({"wide.csv": "text\nword\n".encode("utf-16")}, "wide.csv: not UTF-8"),
    "later.txt": ({"later.txt": b"a\n" * 500 + b"\xff\n"}, "byte 1000, line 501"),
    "half.jsonl": ({"half.jsonl": b'{"text": "a"}\n{"text": "b'}, "half.jsonl: line 2"),
    "list.jsonl": ({"list.jsonl": b'{"text": "a"}\n[1]\n'}, "line 2 is a JSON list"),
    "torn.csv": ({"torn.csv": b"text,b\nx,1\ny\n"}, "line 3 has 1 fields, the header has 2"),
    "twice.csv": ({"twice.csv": b"text,text\nx,1\n"}, "names column 'text' 2 times"),
    "field.csv": ({"field.csv": b"words\nx\ny\nz\nw\n"}, "no text in field 'text'"),
    "number.jsonl": ({"number.jsonl": b'{"text": 5}\n' * 5}, "no text in field 'text'"),
    "few.jsonl": ({"few.jsonl": b'{"text": "a"}\n{"text": "b"}\n'}, "3 parts need as many groups"),
    "ids.jsonl": ({"ids.jsonl": b'{"id": 1, "text": "a"}\n' * 2}, "two rows have the id '1'"),
}


@pytest.mark.parametrize("source", CORPORA)
def test_a_corpus_that_is_none(prepare: Prepare, tmp_path: Path, source: str) -> None:
    content, words = CORPORA[source]
    for name, raw in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    assert words in prepare(source)


def test_a_corpus_that_is_not_there(prepare: Prepare, tmp_path: Path) -> None:
    assert "(did you mean 'corpus.jsonl'?)" in prepare("corpus.jsnl")
    assert "/nonexistent: no such file or folder" in prepare("/nonexistent")
    assert "(did you mean 'python-stdlib'?)" in prepare("python-stdlb")
    (tmp_path / "gone.txt").symlink_to("nothing")
    assert "gone.txt: no such file" in prepare("gone.txt")
    assert "no such file" in prepare("a" * 5000)


def test_a_corpus_that_the_machine_cannot_read(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "device.txt").symlink_to("/proc/self/mem")  # reading it is an I/O error
    assert "device.txt: cannot be read (Input/output error)" in prepare("device.txt")
    packed = tmp_path / "cut.jsonl.gz"
    packed.write_bytes(b"\x1f\x8b\x08\x00\x00")
    assert "cut.jsonl.gz" in prepare("cut.jsonl.gz", code=EXIT_CORRUPT)


def test_a_directory_where_a_file_is_meant(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "table.csv").mkdir()
    (tmp_path / "table.csv" / "a.csv").write_text("x,label\n1,a\n")
    line = prepare("table.csv", recipe="table")
    assert "table.csv: is a folder, but its name ends in .csv as a file's does" in line


def table(tmp_path: Path, count: int = 40, *, last: str = "") -> None:
    lines = [f"{i},{i % 7},{'big' if i % 2 else 'small'}" for i in range(count)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,size", *lines]) + f"\n{last}")


def test_a_label_column_that_does_not_exist(prepare: Prepare, tmp_path: Path) -> None:
    table(tmp_path)
    line = prepare("table.csv", recipe="table")
    assert "row table.csv:2: no column 'label'" in line
    assert "it has: a, b, size" in line
    assert "train.options.label" in line
    line = prepare("table.csv", "train.options.label=sise", recipe="table")
    assert "no column 'sise' (did you mean 'size'?)" in line
    line = prepare("table.csv", "data.columns.label=siez", recipe="table")
    assert "data.columns: no column 'siez' (did you mean 'size'?)" in line
    line = prepare("table.csv", "train.options={label: size, features: [a, c]}", recipe="table")
    assert "no column 'c'" in line


def test_columns_that_hold_no_numbers(prepare: Prepare, tmp_path: Path) -> None:
    table(tmp_path, last="x,1,big\n")
    line = prepare("table.csv", "train.options.label=size", recipe="table")
    assert "row table.csv:42: column 'a' holds 'x', not a number" in line
    table(tmp_path, last="nan,1,big\n")
    line = prepare("table.csv", "train.options.label=size", recipe="table")
    assert "column 'a' holds 'nan'" in line


def test_labels_that_teach_nothing(prepare: Prepare, tmp_path: Path) -> None:
    lines = [f"{i},same" for i in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["a,label", *lines]) + "\n")
    assert "label" in prepare("table.csv", recipe="table")
    (tmp_path / "table.csv").write_text("a,label\n" + "1,\n" * 40)
    assert "no label" in prepare("table.csv", recipe="table")


def test_arrays_that_could_run_code(prepare: Prepare, tmp_path: Path) -> None:
    x = np.array([{"a": 1}] * 4, dtype=object)
    np.savez(tmp_path / "code.npz", x=x)
    assert "holds pickled objects, which can run code" in prepare("code.npz", recipe="table")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "code.npz").read_bytes()[:50])
    line = prepare("torn.npz", recipe="table", code=EXIT_CORRUPT)
    assert "torn.npz: damaged .npz file" in line


def test_a_split_that_the_rows_do_not_have(prepare: Prepare) -> None:
    assert "no such column" in prepare("corpus.jsonl", "data.split.by=given")


def test_a_task_for_other_data(prepare: Prepare) -> None:
    for override, words in (
        ("train.objective=classification", "objective classification: cannot learn what the text"),
        ("model.vocabulary=10", "model.vocabulary: the data need 320, not 10"),
        ("model.context=1000000", "training tokens are too few for model.context=1000000"),
        ("model.width=7", "model.width: 7 is not an even multiple of heads=2"),
        ("codec.vocabulary=10", "codec.vocabulary: 10 is below 260"),
    ):
        assert words in prepare("corpus.jsonl", override, out=override)


def test_text_that_no_file_can_hold_is_learned_all_the_same(
    prepare: Prepare, tmp_path: Path
) -> None:
    """JSON may spell half of a surrogate pair; it is replaced, not a crash."""
    lines = [json.dumps(row | {"text": row["text"] + "\ud83d"}) for row in rows()]
    (tmp_path / "half.jsonl").write_text("\n".join(lines))
    assert main(["train", "tiny.yaml", "data.source=half.jsonl", "train.steps=1"]) == 0


def test_what_was_prepared_and_then_removed_is_prepared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tiny.yaml", "train.steps=2", "--out", "run"]) == 0
    values = tmp_path / "run" / "data" / "train" / "train" / "tokens.values.npy"
    whole = values.read_bytes()
    values.write_bytes(whole[:-100])
    capsys.readouterr()
    code = main(["evaluate", "run"])
    line = the_line(capsys.readouterr().err)
    assert code == EXIT_CORRUPT
    folder = Path("run") / "data" / "train" / "train"
    assert f"{folder}: the prepared data cannot be read" in line
    assert "delete this folder and run" in line
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert main(["run", "run"]) == 0
    assert values.read_bytes() == whole
    assert "train: nothing changed, kept" in capsys.readouterr().err
