"""Web archives, Wikipedia dumps, pages and PDF."""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter

import pytest

from modelwright.data.http_message import parse_answer
from modelwright.data.wikitext import plain_text
from modelwright.errors import ModelwrightError
from tests.data_stage.reading import gz, passed_of, rows_of, tar_of

PAGE = b"<html><body><p>Hello</p></body></html>"


def record(kind: str, content: bytes, declared: str = "application/http") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://a.org/x\r\n"
    head += f"Content-Type: {declared}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content + b"\r\n\r\n"


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/html; charset=ISO-8859-1", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_the_five_archives(data):
    rows, bad = rows_of(data("warc_samples"))
    assert not bad
    names = ("s/example.arc.gz", "s/example.warc.gz")
    arc, warc = ([r for r in rows if r["id"].startswith(name)] for name in names)
    assert len(arc) == len(warc) == 129  # the same crawl in two formats
    same = [(a["meta"]["url"], a["media"] or a["text"]) for a in arc]
    assert same == [(w["meta"]["url"], w["media"] or w["text"]) for w in warc]
    (wet,) = (r for r in rows if "wet" in r["id"])
    assert wet["text"].startswith("Escopete - Biquipedia")
    assert wet["groups"] == ["host=an.wikipedia.org"] and wet["meta"]["language"] == "spa"
    (page,) = (r for r in rows if r["id"].startswith("s/whirlwind.warc.gz"))
    assert page["mime"] == "text/html" and b"Escopete" in page["media"]


def test_answers_are_unpacked_and_others_passed_over(tmp_path):
    chunked = b"5\r\n<html\r\n21;x=y\r\n" + PAGE[5:] + b"\r\n0\r\n\r\n"
    records = [
        record("warcinfo", b"software: x", "application/warc-fields"),
        record("request", b"GET / HTTP/1.0\r\n\r\n"),
        record("response", answer(PAGE)),
        record("response", answer(gz(PAGE), "Content-Encoding: gzip")),
        record("response", answer(zlib.compress(PAGE), "Content-Encoding: deflate")),
        record("response", answer(chunked, "Transfer-Encoding: chunked")),
        record("response", answer(PAGE, status="404 Not Found")),
        record("conversion", "näher".encode(), "text/plain"),
        record("response", answer(b"\x1f\x8bxx", "Content-Encoding: gzip")),
        record("response", answer(b"xx", "Content-Encoding: br")),
        record("response", b"not HTTP"),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    rows, bad = rows_of(tmp_path)
    assert [r["media"] or r["text"] for r in rows] == [PAGE] * 4 + ["näher"]
    assert rows[0]["meta"]["charset"] == "ISO-8859-1"
    assert [b.reason for b in bad] == [
        "broken answer: not packed with gzip as its header says",
        "broken answer: packed with 'br', which is not read",
        "broken answer: no status line",
    ]
    assert passed_of(tmp_path) == {
        "record of type warcinfo": 1,
        "record of type request": 1,
        "answer of status 404": 1,
    }


def test_every_record_of_an_archive_is_accounted_for(data):
    with gzip.open(data("warc_samples") / "example.warc.gz") as archive:
        kinds = Counter(re.findall(rb"^WARC-Type: (\w+)\r$", archive.read(), re.MULTILINE))
    rows, bad = rows_of(data("warc_samples") / "example.warc.gz")
    passed = passed_of(data("warc_samples") / "example.warc.gz")
    assert len(rows) + len(bad) + passed.total() == sum(kinds.values()) > len(rows)
    assert passed["record of type request"] == kinds[b"request"]


def test_a_bomb_in_an_answer_is_refused():
    packed = gz(bytes(5_000_000))
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        parse_answer(answer(packed, "Content-Encoding: gzip"), 1000)


@pytest.mark.parametrize("packed", [False, True])
def test_a_cut_archive_keeps_what_came_before(tmp_path, packed):
    whole = b"".join(record("response", answer(PAGE * 20)) for _ in range(10))
    (tmp_path / "a.warc").write_bytes(whole[:-500])
    if packed:
        (tmp_path / "a.warc").unlink()
        content = b"".join(gz(record("response", answer(PAGE * 20 + b"%d" % i))) for i in range(10))
        (tmp_path / "a.warc.gz").write_bytes(content[:-60])
    rows, (bad,) = rows_of(tmp_path)
    assert len(rows) == 9
    assert "record at byte" in bad.where and "damaged or cut short" in bad.reason


def test_rubbish_in_an_archive_ends_it_with_a_reason(tmp_path):
    (tmp_path / "a.warc").write_bytes(record("response", answer(PAGE)) + b"rubbish\n" * 9)
    rows, (bad,) = rows_of(tmp_path)
    assert len(rows) == 1 and bad.reason.startswith("broken record (neither WARC nor ARC)")


def test_the_wikipedia_excerpt(data):
    rows, bad = rows_of(data("wiki_xml"))
    assert not bad and len(rows) == 106  # of 206 pages the others are redirects
    anarchism = rows[0]
    assert anarchism["id"].endswith(":12") and anarchism["meta"]["title"] == "Anarchism"
    assert anarchism["text"].startswith("Anarchism is a political philosophy that advocates")
    for mark in ("[[", "]]", "{{", "}}", "<ref", "'''", "&nbsp;", "\n\n\n", "|}"):
        assert sum(mark in row["text"] for row in rows) <= 2, mark
    assert sum(len(r["text"]) for r in rows) > 2_000_000
    redirects, _ = rows_of(data("wiki_xml"), redirects=True)
    assert len(redirects) == 205  # one page is of another namespace
    assert passed_of(data("wiki_xml")) == {"redirect": 99, "page of another namespace": 1}


def test_a_cut_dump_keeps_the_pages_before(tmp_path, data):
    (source,) = data("wiki_xml").glob("*.bz2")
    cut = tmp_path / "x-pages-articles.xml.bz2"
    cut.write_bytes(source.read_bytes()[:900_000])
    rows, (bad,) = rows_of(cut)
    assert 10 < len(rows) < 106
    assert "after page" in bad.where and "damaged or cut short" in bad.reason


def test_entities_and_broken_xml_are_refused(tmp_path):
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><mediawiki>&b;</mediawiki>'
    page = "<page><title>T</title><ns>0</ns><id>7</id><revision><text>Words</text></revision>"
    page += "</page>"
    (tmp_path / "a.xml").write_text(bomb)
    rows, (bad,) = rows_of(tmp_path / "a.xml", "wikipedia")
    assert not rows and "EntitiesForbidden" in bad.reason
    (tmp_path / "a.xml").write_text(f"<mediawiki>{page}<page><title>U</tit")
    rows, (bad,) = rows_of(tmp_path / "a.xml")
    assert [r["text"] for r in rows] == ["Words"] and bad.where.endswith("after page 7")


def test_a_page_without_an_end_is_given_up(tmp_path, monkeypatch):
    from modelwright.data.readers import wikipedia

    monkeypatch.setattr(wikipedia, "MAX_PAGE_BYTES", 200_000)
    (tmp_path / "a.xml").write_text("<mediawiki><page><id>1</id>" + "x" * 500_000)
    rows, (bad,) = rows_of(tmp_path / "a.xml", "wikipedia")
    assert not rows and "a page of more than" in bad.reason


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''it''.", "Bold and it."),
        ("A [[b|link]], [[c]], [[d (e)|]].", "A link, c, d."),
        ("x{{cite|a={{b}}}} y", "x y"),
        ("x {{lang|fr|mot}} y", "x mot y"),
        ("a<ref name=x/> b<ref>c [[d]]</ref> e", "a b e"),
        ("{| class=x\n|a\n{|\n|b\n|}\n|}\nafter", "after"),
        ("[[File:a.jpg|thumb|a [[b]] c]]text", "text"),
        ("[[Category:A]][[fr:B]][[zh-yue:C]]x", "x"),
        ("[http://a.b c d] and [http://a.b]", "c d and"),
        ("== H ==\ntext\n== References ==\n{{reflist}}\n", "H\ntext"),
        ("* one\n# two\n:three", "one\ntwo\nthree"),
        ("a<!-- b -->c &amp; d&nbsp;e", "ac & d e"),
        ("never {{closed [[still here", "never closed still here"),
        ("closed}} nothing]] here", "closed nothing here"),
        ("<ref>never closed, kept", "never closed, kept"),
        ("a<br />b __TOC__", "a\nb"),
    ],
)
def test_wikitext(markup, text):
    assert plain_text(markup) == text


def test_wikitext_takes_time_in_proportion_to_its_length():
    for mark in ("{{", "[[", "<ref>", "<!--", "'", "=", "{|\n", "[[a|", "[//", "==\n"):
        plain_text(mark * 50_000)  # quadratic time would not end within the test's limit


def test_pages_and_their_archive(data, tmp_path):
    rows, bad = rows_of(data("article_extraction") / "html.tar", "html")
    assert len(rows) == 181 and not bad
    assert all(r["mime"] == "text/html" and r["text"] is None for r in rows)
    (tmp_path / "a.html").write_bytes(PAGE)
    ((row,), _) = rows_of(tmp_path)
    assert row["media"] == PAGE and row["id"] == "s/a.html:1"


def pdf_of(text: str) -> bytes:
    stream = f"BT /F1 18 Tf 20 200 Td ({text}) Tj ET".encode()
    bodies = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    parts = [b"%d 0 obj%s endobj\n" % (i, body) for i, body in enumerate(bodies, start=1)]
    return b"%PDF-1.4\n" + b"".join(parts) + b"trailer<</Root 1 0 R>>\n"


def test_pdf(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf_of("Hello, page."))
    ((row,), bad) = rows_of(tmp_path)
    assert (row["text"], row["meta"], bad) == ("Hello, page.", {"pages": 1}, [])


def test_bad_pdf_costs_one_file(tmp_path):
    (tmp_path / "a.tar").write_bytes(
        tar_of({"a.pdf": b"%PDF-1.4\nnothing", "b.pdf": pdf_of("Good"), "c.pdf": pdf_of("")})
    )
    ((row,), bad) = rows_of(tmp_path / "a.tar", "pdf")
    assert row["text"] == "Good"
    assert [b.where for b in bad] == ["a.tar: a.pdf", "a.tar: c.pdf"]
    assert bad[0].reason.startswith("not readable PDF") and bad[1].reason.startswith("no text")
    rows, (late,) = (
        rows_of(tmp_path / "a.tar", "html")[0],
        rows_of(_one(tmp_path, pdf_of("x")), "pdf", seconds=0.001)[1],
    )
    assert not rows and "takes longer than 0.001 seconds" in late.reason


def _one(folder, content):
    (folder / "z.pdf").write_bytes(content)
    return folder / "z.pdf"


def test_settings_are_checked():
    from modelwright.data.readers.reader import make_reader

    with pytest.raises(ModelwrightError, match="reader wikipedia: namespaces"):
        make_reader("wikipedia", {"namespaces": ["x"]})
