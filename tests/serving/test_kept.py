"""Requests kept for training: only when asked for, masked, bounded, and readable as data."""

from __future__ import annotations

import json
import os
import stat

import httpx
import pytest

from modelwright.errors import ModelwrightError
from modelwright.serving.engine import Engine
from modelwright.serving.kept import Keeper
from modelwright.types import text_turn
from tests.serving.parts import running

PRIVATE = "Mail anna.schmidt@example.org or call +1 415 555 2671, card 4111 1111 1111 1111."
MARKS = ("[EMAIL]", "[PHONE]", "[CARD]")


def rows(folder):
    files = sorted(folder.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_answered_is_kept_masked(model, codec, tmp_path, stream):
    keeper = Keeper(tmp_path / "kept", 1.0)
    with running(Engine(model, codec), keeper=keeper) as served:
        body = {"model": "tiny", "max_tokens": 3, "stream": stream, "n": 2}
        chat = {**body, "messages": [{"role": "user", "content": "Who?"}]}
        whole = httpx.post(f"{served.url}/v1/chat/completions", json=chat, timeout=30)
        text = {**body, "prompt": PRIVATE[:50], "n": 1}
        httpx.post(f"{served.url}/v1/completions", json=text, timeout=30)
        httpx.post(f"{served.url}/v1/completions", json={**text, "max_tokens": 0}, timeout=30)
        assert "requests_kept_total" in httpx.get(f"{served.url}/metrics").text
    found = rows(tmp_path / "kept")
    assert [set(row) for row in found] == [{"id", "model", "messages"}] * 2 + [
        {"id", "model", "text"}
    ]
    assert found[0]["messages"][0] == {"role": "user", "content": "Who?"}
    if not stream:
        answers = {choice["message"]["content"] for choice in whole.json()["choices"]}
        assert {row["messages"][1]["content"] for row in found[:2]} == answers
    assert "[EMAIL]" in found[2]["text"] and "anna" not in json.dumps(found)
    (file,) = (tmp_path / "kept").glob("*.jsonl")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_is_kept_unasked(model, codec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with running(Engine(model, codec)) as served:
        body = {"model": "tiny", "max_tokens": 3, "prompt": PRIVATE[:50]}
        assert httpx.post(f"{served.url}/v1/completions", json=body, timeout=30).status_code == 200
    assert not list(tmp_path.iterdir())


def test_every_kind_is_masked_on_both_sides(tmp_path):
    keeper = Keeper(tmp_path, 1.0)
    keeper.keep("m", [text_turn("user", PRIVATE)], PRIVATE)
    keeper.close()
    (row,) = rows(tmp_path)
    for message in row["messages"]:
        assert all(mark in message["content"] for mark in MARKS), message


def test_what_cannot_be_kept_is_no_end_of_keeping(tmp_path, caplog):
    keeper = Keeper(tmp_path, 1.0)
    keeper.keep("m", [text_turn("user", "Who?")], "half of a character: \ud800")
    keeper.keep("m", [text_turn("user", "Who?")], "Me.")
    keeper.close()
    assert [row["messages"][1]["content"] for row in rows(tmp_path)] == ["Me."]
    assert "could not be kept" in caplog.text


def test_half_a_row_is_none(tmp_path, monkeypatch):
    """A disk that is full in the middle of a row leaves the rows before it readable."""
    keeper = Keeper(tmp_path, 1.0)
    write, cut = os.write, []

    def short(descriptor, line):
        if cut or b"second" not in line:
            return write(descriptor, line)
        cut.append(line)
        return write(descriptor, line[: len(line) // 2])

    monkeypatch.setattr("modelwright.serving.kept.os.write", short)
    for said in ("first", "second", "third"):
        keeper.keep("m", (text_turn("user", said),), "yes")
    keeper.close()
    assert cut
    assert [row["messages"][0]["content"] for row in rows(tmp_path)] == ["first", "third"]


def test_a_share_is_drawn_and_a_full_folder_takes_no_more(tmp_path):
    keeper = Keeper(tmp_path / "some", 0.3)
    for number in range(200):
        keeper.keep("m", [text_turn("document", f"{number}")], "")
    keeper.close()
    assert 20 < len(rows(tmp_path / "some")) < 110
    for _ in range(2):  # also of what was there before
        keeper = Keeper(tmp_path / "full", 1.0, most=300)
        for _ in range(20):
            keeper.keep("m", [text_turn("document", "x" * 30)], "")
        keeper.close()
    assert sum(f.stat().st_size for f in (tmp_path / "full").iterdir()) <= 300


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    with pytest.raises(ModelwrightError, match="keep-share"):
        Keeper(tmp_path, share)
