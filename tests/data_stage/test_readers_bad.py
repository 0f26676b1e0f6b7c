"""Hostile and broken input: a reason and a place, within memory, and what is good is read."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import subprocess
import sys
import tarfile
import textwrap
import zipfile
import zlib

import pytest
import zstandard

from modelwright.data import archive
from modelwright.data.readers import reader as room
from modelwright.data.readers.reader import Bad, make_reader
from tests.data_stage.reading import gz, rows_of, tar_of

ZSTD = zstandard.ZstdCompressor()
PACK = {".gz": gz, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": ZSTD.compress}
LINES = "".join(
    json.dumps({"text": f"row {i} {zlib.crc32(str(i).encode())}"}) + "\n" for i in range(9000)
)
BOMB = (b" " * 63 + b"\n") * (1 << 16)


@pytest.mark.parametrize("suffix", PACK)
def test_a_cut_file_keeps_the_rows_before(tmp_path, suffix):
    packed = PACK[suffix](LINES.encode())
    (tmp_path / f"a.jsonl{suffix}").write_bytes(packed[: len(packed) * 9 // 10])
    rows, bad = rows_of(tmp_path)
    some = 0 if suffix == ".bz2" else 4000  # bzip2 unpacks blocks of 900 kB or nothing
    assert some <= len(rows) < 9000
    assert "damaged or cut short" in bad[-1].reason
    assert bad[-1].where == f"a.jsonl{suffix}: line {len(rows) + 1}" or not rows


@pytest.mark.parametrize("suffix", PACK)
def test_a_packed_bomb_ends_at_its_limit(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(archive, "FREE_BYTES", 1 << 18)
    (tmp_path / f"a.txt{suffix}").write_bytes(PACK[suffix](BOMB))
    rows, (bad,) = rows_of(tmp_path / f"a.txt{suffix}", separator="x")
    assert not rows and "unpacks to more than" in bad.reason


def test_bombs_and_names_in_archives(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FREE_BYTES", 1 << 18)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("bomb.jsonl", BOMB)
        packed.writestr("good.jsonl", '{"text": "x"}')
        packed.writestr("../up.jsonl", '{"text": "no"}')
        packed.writestr("/root.jsonl", '{"text": "no"}')
        packed.writestr("C:\\dos.jsonl", '{"text": "no"}')
        link = zipfile.ZipInfo("link.jsonl")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    ((row,), bad) = rows_of(tmp_path / "a.zip")
    assert row["text"] == "x"
    assert [b.where.removeprefix("a.zip: ").partition(":")[0] for b in bad] == [
        "bomb.jsonl",
        "../up.jsonl",
        "/root.jsonl",
        "C",
        "link.jsonl",
    ]
    assert [b.reason.split()[0] for b in bad] == ["unpacks", "a", "a", "a", "a"]


def test_links_and_names_in_a_tar_are_refused_by_name(tmp_path):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as packed:
        for name, kind in (("../up.txt", tarfile.REGTYPE), ("l.txt", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            packed.addfile(info)
        info = tarfile.TarInfo("good.txt")
        info.size = 4
        packed.addfile(info, io.BytesIO(b"good"))
    (tmp_path / "a.tar.gz").write_bytes(raw.getvalue())
    ((row,), bad) = rows_of(tmp_path / "a.tar.gz")
    assert row["text"] == "good"
    assert bad == [
        Bad("a.tar.gz: ../up.txt", "a name that leads out of the archive is refused"),
        Bad("a.tar.gz: l.txt", "a link or device in an archive is refused"),
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz", ".tar.zst", ".zip"])
def test_a_cut_container(tmp_path, suffix):
    members = {f"{i}.txt": str(zlib.crc32(str(i).encode())).encode() * 500 for i in range(50)}
    content = tar_of(members)
    if suffix == ".zip":
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as packed:
            for name, text in members.items():
                packed.writestr(name, text)
        content = raw.getvalue()
    elif suffix != ".tar":
        content = PACK[suffix.removeprefix(".tar")](content)
    (tmp_path / f"a{suffix}").write_bytes(content[: len(content) * 3 // 4])
    rows, bad = rows_of(tmp_path / f"a{suffix}", "text")
    assert bad and all("damaged" in b.reason for b in bad)
    assert (0 if suffix == ".zip" else 10) <= len(rows) < 50


@pytest.mark.parametrize("kind", ["jsonl", "table", "text"])
def test_bad_lines_among_good_ones(tmp_path, monkeypatch, kind):
    from modelwright.data import lines

    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 5000)
    bad_lines = {3: b"\xff\xfe broken", 5: b"a\0b", 8: b"x" * 60_000}
    good = {
        "jsonl": lambda i: b'{"text": "t%d"}' % i,
        "table": lambda i: b"t%d,1" % i,
        "text": lambda i: b"t%d" % i,
    }[kind]
    content = [bad_lines.get(i, good(i)) for i in range(1, 12)]
    if kind == "table":
        content[0] = b"text,n"
    suffix = {"jsonl": "jsonl", "table": "csv", "text": "txt"}[kind]
    (tmp_path / f"a.{suffix}").write_bytes(b"\n".join(content))
    if kind == "text":  # a document that lost a line is no document
        rows, (bad,) = rows_of(tmp_path / "a.txt")
        assert not rows and (bad.where, bad.reason[:9]) == ("a.txt: line 3", "not UTF-8")
        return
    rows, bad = rows_of(tmp_path)
    assert [r["text"] for r in rows] == [f"t{i}" for i in range(1, 12) if i not in bad_lines][
        kind == "table" :
    ]
    assert [(b.where.rpartition(": ")[2], b.reason) for b in bad] == [
        ("line 3", "not UTF-8; declare its 'encoding'"),
        ("line 5", "holds NUL bytes"),
        ("line 8", "longer than 5000 bytes"),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        ("1" * 5000, "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        ('{"txet": "a"}', "no column 'text' (did you mean 'txet'?); it has: txet"),
        ('{"text": null}', "column 'text' is no text"),
        ('{"text": "\\ud800"}', "holds half a character"),
    ],
)
def test_bad_records(tmp_path, line, why):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "x"}}\n{line}\n{{"text": "y"}}\n')
    rows, (bad,) = rows_of(tmp_path)
    assert [r["text"] for r in rows] == ["x", "y"]
    assert bad.where.startswith("a.jsonl: line 2") and why in bad.reason and "\n" not in bad.reason


def test_records_that_do_not_fit_their_header(tmp_path):
    (tmp_path / "a.csv").write_text('text,n\na,1\nb,2,3\n"c\nd",4\n\ne\nf,6\n')
    rows, bad = rows_of(tmp_path)
    assert [(r["id"], r["text"]) for r in rows] == [
        ("s/a.csv:2", "a"),
        ("s/a.csv:5", "c\nd"),
        ("s/a.csv:8", "f"),
    ]
    assert [b.where for b in bad] == ["a.csv: line 3", "a.csv: line 7"]
    (tmp_path / "a.csv").write_text("a,a\n1,2\n")
    assert "two of one name" in rows_of(tmp_path)[1][0].reason


def test_gbk_and_utf_16_declared_as_utf_8(tmp_path):
    text = "这是我们的中国，在这里的人有他们的国家。\n" * 20
    for encoding in ("gbk", "utf-16"):
        (tmp_path / "a.txt").write_bytes(text.encode(encoding))
        rows, bad = rows_of(tmp_path / "a.txt", encoding="utf-8")
        assert not rows and bad[0].where == "a.txt: line 1"
        assert "UTF-8" in bad[0].reason or "NUL" in bad[0].reason


def test_damaged_and_bomb_parquet(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from modelwright.data.readers import parquet

    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"t{i}" for i in range(3000)]}), file, row_group_size=1000)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    rows, (bad,) = rows_of(file)
    assert not rows and "damaged or cut short" in bad.reason
    damaged = bytearray(whole)
    middle = len(whole) // 2
    damaged[middle : middle + 200] = bytes(200)
    file.write_bytes(damaged)
    rows, bad = rows_of(file)
    assert len(rows) < 3000 and bad
    monkeypatch.setattr(parquet, "FREE_BYTES", 1 << 20)
    pq.write_table(pa.table({"text": ["x" * 100_000] * 1000}), file, compression="zstd")
    rows, (bad,) = rows_of(file)  # a hundred megabytes in a kilobyte
    assert file.stat().st_size < 10_000 and len(rows) < 40
    assert "unpacks to more than 250 times" in bad.reason
    pq.write_table(
        pa.table({"text": ["y" * 10_000_000]}), file, compression="zstd", use_dictionary=False
    )
    assert "unpacks to more than" in rows_of(file)[1][0].reason


def test_a_cut_arrow_file(tmp_path):
    import pyarrow as pa

    table = pa.table({"text": [f"t{i}" for i in range(1000)]})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    raw = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(raw[: len(raw) * 6 // 10])
    rows, (bad,) = rows_of(tmp_path / "a.arrow")
    assert len(rows) == 500 and "damaged or cut short" in bad.reason


@pytest.mark.parametrize("name", room.names())
@pytest.mark.parametrize("content", [b"", b"\0" * 999, bytes(range(256)) * 40, b"\xff\xd8\xff\xe0"])
def test_rubbish_raises_nothing(tmp_path, name, content):
    reader = make_reader(name)
    for suffix in (reader.suffixes[0], reader.suffixes[0] + ".gz", ".tar", ".zip"):
        if name == "pdf" and suffix != ".pdf":
            continue  # a process each
        file = tmp_path / f"a{suffix}"
        file.write_bytes(content)
        for part in reader.cut(file):
            for item in reader.rows(file, part):
                assert isinstance(item, Bad | dict)
                if isinstance(item, Bad):
                    assert item.reason and "\n" not in item.reason


def test_a_gigabyte_line_is_not_held(tmp_path):
    """A line of 1 GB among good ones: read by a process that may take 600 MB of memory."""
    file = tmp_path / "a.jsonl.gz"
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    block = bytes(range(32, 127)) * 11_000
    with file.open("wb") as out:
        out.write(packer.compress(b'{"text": "a"}\n'))
        for _ in range((1 << 30) // len(block) + 1):
            out.write(packer.compress(block))
        out.write(packer.compress(b'\n{"text": "b"}\n') + packer.flush())
    code = f"""
        import resource
        from pathlib import Path
        resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
        from modelwright.data import archive
        archive.MAX_RATIO = 10_000  # the line of this test packs well
        from modelwright.data.readers.reader import Range, make_reader
        for item in make_reader("jsonl").rows(Path({str(file)!r}), Range()):
            print(item["text"] if isinstance(item, dict) else item)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "a",
        "Bad(where='line 2', reason='longer than 33554432 bytes')",
        "b",
    ], done.stderr
