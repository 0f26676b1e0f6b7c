"""Main text of real pages against people's, and pages that break the extractor."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data import extraction
from modelwright.data.child import DIED, HUNG, Child
from modelwright.data.operations import operation
from modelwright.data.page_child import trimmed
from modelwright.data.readers.reader import new_row
from modelwright.errors import MachineError, ModelwrightError

DEEP = b"<html>" + b"<div><p>" * 200_000 + b"text " * 100  # Resiliparse takes minutes for it
ARTICLE = """<html><head><title>A &amp; B</title></head><body><nav>Home About Login</nav>
<article><h1>A title</h1>{}</article><footer>All rights reserved</footer></body></html>"""
SENTENCE = "<p>The ship left the harbour in the morning, and nobody saw it again.</p>"
CHINESE = "<p>那艘船早上离开了港口，从此再也没有人见过它。</p>"


def page_row(page: bytes | str, **meta: str) -> dict:
    content = page.encode() if isinstance(page, str) else page
    return new_row("1", media=content, mime="text/html", meta=meta)


def test_the_181_pages(data):
    """Each library as used here is at least as good as alone, as it comes out of its box."""
    pages = extraction.pages(data("article_extraction"))
    assert len(pages) == 181
    few = pages[::3]
    ours = extraction.score(few, extraction.by_step("resiliparse"))
    alone = extraction.score(few, extraction.resiliparse_alone)
    print(f"{len(few)} pages, token F1: {ours.f1:.4f}; resiliparse alone {alone.f1:.4f}")
    assert ours.f1 > alone.f1 > 0.85
    assert ours.f1 > 0.93
    assert ours.empty == 0


def test_trafilatura_on_some_pages(data):
    pages = extraction.pages(data("article_extraction"))[::12]
    assert extraction.score(pages, extraction.by_step("trafilatura")).f1 > 0.93


def test_what_a_row_becomes():
    row = page_row(ARTICLE.format(SENTENCE * 5))
    assert operation("extract").begin()(row) is None
    assert row["media"] is None and row["mime"] == "text/plain"
    assert row["text"].count("nobody saw it again.") == 5
    assert "rights reserved" not in row["text"]
    assert row["attributes"]["extract.title"] == "A & B"


@pytest.mark.parametrize("codec", ["utf-8", "gb18030", "big5hkscs", "utf-8-sig"])
@pytest.mark.parametrize("told", ["outside", "inside"])
def test_encodings(codec, told):
    head = f"<meta charset={codec}>" if told == "inside" else ""
    page = f"<html><head>{head}</head><body>{CHINESE * 8}</body></html>"
    text = page.replace("从此", "從此") if codec.startswith("big5") else page
    content = text.encode(codec, "ignore")
    row = page_row(content, **({"charset": codec} if told == "outside" else {}))
    assert operation("extract").begin()(row) is None
    assert row["text"].count("再也" if codec != "big5hkscs" else "港口") >= 8


def test_a_page_on_which_it_hangs_leaves_and_the_next_is_read():
    step = operation("extract", {"seconds": 0.4}).begin()
    for _ in range(2):
        row = page_row(DEEP)
        assert step(row) == "extractor hung"
        assert row["media"] is not None and row["text"] is None
        assert step(page_row(ARTICLE.format(SENTENCE * 5))) is None


def test_a_page_that_takes_all_memory_leaves_and_the_next_is_read():
    step = operation("extract", {"memory_mb": 256, "seconds": 20.0, "page_mb": 64}).begin()
    assert step(page_row(ARTICLE.format(SENTENCE * 5))) is None
    row = page_row(b"<p>a <b>b</b></p>" * 3_000_000)
    assert step(row) == "extractor failed"
    assert row["attributes"]["extract.error"]
    assert step(page_row(ARTICLE.format(SENTENCE * 5))) is None


def test_large_empty_and_other_rows():
    step = operation("extract", {"page_mb": 0.001}).begin()
    assert step(page_row(b"x" * 2000)) == "page too large"
    assert step(page_row("<html><body></body></html>")) == "no main text"
    for row in (new_row("1", text="plain"), new_row("2", media=b"\x89PNG", mime="image/png")):
        before = dict(row)
        assert step(row) is None and row == before


def test_a_text_that_is_still_html():
    row = new_row("1", text=ARTICLE.format(SENTENCE * 3), mime="text/html")
    assert operation("extract").begin()(row) is None
    assert row["text"].startswith("The ship") or row["text"].startswith("A title")


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=400) | st.text(st.sampled_from("<>/divp &;\"'=中\x00"), max_size=200))
def test_no_page_raises(page):
    row = page_row(page)
    assert _STEP(row) in (None, "no main text")


_STEP = operation("extract").begin()


def test_edges_without_a_sentence_go():
    text = (
        "Menu\nShare this\nIt rained for a whole week.\nRuins\nThen it stopped, as he said.\nMore"
    )
    assert trimmed(text).split("\n")[0] == "It rained for a whole week."
    assert trimmed(text).endswith("he said.")
    assert trimmed("菜单\n那艘船早上离开了港口。\n更多") == "那艘船早上离开了港口。"
    assert trimmed("Menu\nShare") == "Menu\nShare"


def test_settings_out_of_range_are_refused():
    with pytest.raises(ModelwrightError, match="step extract: seconds"):
        operation("extract", {"seconds": 0})


ECHO = """
import os, signal, struct, sys, time
def send(body):
    sys.stdout.buffer.write(struct.pack("<I", len(body)) + body); sys.stdout.buffer.flush()
send(sys.argv[1].encode() if len(sys.argv) > 1 else b"")
while head := sys.stdin.buffer.read(4):
    body = sys.stdin.buffer.read(struct.unpack("<I", head)[0])
    if body == b"die": os._exit(3)
    if body == b"sleep": time.sleep(60)
    if body == b"prof": os.kill(os.getpid(), signal.SIGPROF)
    send(b"%d " % os.getpid() + body)
"""


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    path = tmp_path / "echo.py"
    path.write_text(ECHO)
    return path


def test_a_child_is_kept_and_replaced(echo):
    child = Child(echo, (), 0.5)
    first, lost = child.ask(b"x" * 3_000_000)  # longer than any pipe holds
    assert not lost and len(first.split()[1]) == 3_000_000
    assert child.ask(b"a")[0].split()[0] == first.split()[0]
    for request, word in ((b"die", DIED), (b"sleep", HUNG), (b"prof", HUNG)):
        assert child.ask(request) == (b"", word)
        answer, lost = child.ask(b"again")
        assert not lost and answer.split()[0] != first.split()[0]
    child.stop()


def test_a_child_ends_with_its_owner(echo):
    child = Child(echo, (), 5)
    pid = int(child.ask(b"a")[0].split()[0])
    del child
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_that_cannot_work_says_why(echo):
    with pytest.raises(MachineError, match=r"^echo.py: cannot start: no such thing$"):
        Child(echo, ("no such thing",), 5).ask(b"a")
    with pytest.raises(MachineError, match="cannot start: it ended: 2"):
        Child(echo.with_name("absent.py"), (), 5).ask(b"a")


def test_a_child_beside_threads_and_signals(echo):
    """Started while other threads run; Ctrl-C of the terminal is the owner's business."""
    stop = threading.Event()
    busy = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        step = operation("extract").begin()
        row = page_row(ARTICLE.format(SENTENCE * 5))
        assert step(row) is None
        child = Child(echo, (), 5)
        pid = int(child.ask(b"a")[0].split()[0])
        os.kill(pid, signal.SIGTERM)
        assert child.ask(b"b") == (b"", DIED)
        assert child.ask(b"c")[1] == ""
        child.stop()
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    assert sys.executable
