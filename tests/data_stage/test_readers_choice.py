"""Which reader reads a file, and what a source is made of."""

from __future__ import annotations

import pytest

from modelwright.data.readers import reader as room
from modelwright.data.readers.reader import Range, inputs, make_reader, reader_for
from modelwright.errors import ModelwrightError


def name_of(path, name=None):
    return type(reader_for(path, name)).__module__.rpartition(".")[2]


@pytest.mark.parametrize(
    ("file", "content", "meant"),
    [
        ("a.txt", b"x", "text"),
        ("a.md", b"x", "text"),
        ("a.JSONL.gz", b"", "jsonl"),
        ("a.csv.zst", b"", "table"),
        ("a.parquet", b"", "parquet"),
        ("a.feather", b"", "arrow"),
        ("a.warc.gz", b"", "warc"),
        ("x-pages-articles1.xml-p1p2.bz2", b"", "wikipedia"),
        ("dump.xml", b'<mediawiki xmlns="x">', "wikipedia"),
        ("a.htm", b"", "html"),
        ("a.PDF", b"", "pdf"),
        ("a.jpeg", b"", "images"),
        ("a.flac", b"", "audio"),
        ("a.pgn.xz", b"", "pgn"),
        ("a.wtb", b"", "wthor"),
        ("a.pdn", b"", "checkers"),
        ("nothing", b"PAR1....", "parquet"),
        ("nothing", b'{"text": 1}', "jsonl"),
        ("nothing", b"<!DOCTYPE html><p>", "html"),
        ("nothing", b"%PDF-1.4", "pdf"),
        ("nothing", b'[Event "x"]', "pgn"),
        ("nothing", b"WARC/1.0\r\n", "warc"),
    ],
)
def test_by_suffix_else_by_first_bytes(tmp_path, file, content, meant):
    (tmp_path / file).write_bytes(content)
    assert name_of(tmp_path / file) == meant


def test_a_name_decides_and_a_mistyped_one_is_corrected(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    assert name_of(tmp_path / "a.txt", "checkers") == "checkers"
    with pytest.raises(ModelwrightError, match="did you mean 'wikipedia'"):
        reader_for(tmp_path / "a.txt", "wikpedia")
    with pytest.raises(ModelwrightError, match=r"reader jsonl: no option 'txt'.*'text'"):
        reader_for(tmp_path / "a.txt", "jsonl", {"txt": "a"})


def test_an_unknown_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"\x00\x01")
    with pytest.raises(ModelwrightError, match=r"a\.xyz: no reader for such a file") as error:
        reader_for(tmp_path / "a.xyz")
    assert "\n" not in str(error.value)


def test_every_reader_is_a_frozen_dataclass_with_its_declarations(tmp_path):
    for name in room.names():
        reader = make_reader(name)
        assert type(reader).__dataclass_params__.frozen, name
        assert reader.version >= 1 and reader.suffixes and isinstance(reader.folders, bool), name
    assert len(room.names()) >= 13


def test_a_folder_is_read_by_the_reader_of_most_files_less_its_notes(tmp_path):
    for name in ("a.jsonl", "b.jsonl.gz", "sub/c.jsonl", "README.md", "UPSTREAM_LICENSE.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".hidden.jsonl").write_bytes(b"")
    (tmp_path / "link.jsonl").symlink_to("/etc/passwd")
    found = inputs([tmp_path], tmp_path)
    assert [(one.key, one.reader) for one in found] == [
        ("a.jsonl", "jsonl"),
        ("b.jsonl.gz", "jsonl"),
        ("sub/c.jsonl", "jsonl"),
    ]
    notes = inputs([tmp_path], tmp_path, "text", notes=True)
    assert [one.key for one in notes] == ["README.md", "UPSTREAM_LICENSE.txt"]


def test_folders_of_media_are_one_input(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.jpg").write_bytes(b"")
    (one,) = inputs([tmp_path], tmp_path)
    assert (one.key, one.reader) == ("", "images")


def test_ranges_are_json():
    part = Range(3, None, 7)
    assert Range(*part.as_json()) == part
