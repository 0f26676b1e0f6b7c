"""Recordings and compared words beside the answers of a page."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.data.sounds import encode_wav
from modelwright.reporting import beside
from modelwright.reporting.record import read_record
from modelwright.reporting.report import render

SOUND = encode_wav(np.zeros(80), 16_000)
HOSTILE = "</del><script>alert('x')</script>\" onload=\"x"


def answered(run: Path, *examples: dict[str, Any], part: str = "examples") -> None:
    """A run whose evaluation has these answers, and a recording a.wav."""
    (run / "samples").mkdir(exist_ok=True)
    (run / "samples" / "a.wav").write_bytes(SOUND)
    blank = {"question": "a recording", "reference": "r", "answer": "a", "baselines": {}}
    found = json.loads((run / "evaluation.json").read_text())
    found |= {"examples": [], part: [blank | example for example in examples]}
    (run / "evaluation.json").write_text(json.dumps(found))


class Page(HTMLParser):
    """Every element of a page by its tag, with attributes, and the text within del and ins."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.marked: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("del", "ins"):
            self.marked.append((self.open[-1], data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("part", ["examples", "worst"])
def test_a_recording_can_be_played_beside_its_answer(run: Path, part: str) -> None:
    answered(run, {"sounds": {"recording": "a.wav"}}, part=part)
    page = render(read_record(run))
    (player,) = Page(page).of("audio")
    assert player["src"] == f"data:audio/wav;base64,{base64.b64encode(SOUND).decode()}"
    assert player["preload"] == "none" and "controls" in player
    assert player["aria-label"] == "recording: a recording"
    policy = next(m["content"] for m in Page(page).of("meta") if "http-equiv" in m)
    assert policy is not None
    assert policy.startswith("default-src 'none'") and " media-src data:;" in policy
    assert not Page(page).of("script")


def test_speech_without_words_is_heard_alone(run: Path) -> None:
    both = {"this model": "a.wav", "recording": "a.wav"}
    answered(run, {"question": "Say this.", "reference": "", "answer": "", "sounds": both})
    page = render(read_record(run))
    assert len(Page(page).of("audio")) == 2
    assert "<dt>reference</dt>" not in page
    assert "(empty)" not in page.partition('id="data"')[0]


def test_differences_are_marked_without_colour_alone(run: Path) -> None:
    pairs = [["the", "the"], ["cat", "hat"], ["sat", ""], ["", "down"]]
    answered(run, {"compared": pairs})
    page = render(read_record(run))
    marked = Page(page).marked[-4:]  # those before are of the explanation
    assert marked == [("del", "cat"), ("ins", "hat"), ("del", "sat"), ("ins", "down")]
    titles = [tag.get("title") for tag in Page(page).of("del") + Page(page).of("ins")]
    assert {"left out", "put in"} <= set(titles)
    assert 'title="cat is meant, hat is said"' in page
    assert "Compared word by word" in page
    assert "(del, ins)::before" in page and "del::before" in page  # a plus and a minus
    answered(run, {"compared": [["the", "the"]]})
    assert "Compared word by word" not in render(read_record(run))


def test_words_of_scripts_without_spaces_stand_together(run: Path) -> None:
    answered(run, {"compared": [["貓", "貓"], ["在", ""], ["裡", "裡"], ["a", "a"], ["b", "b"]]})
    assert '>貓<del title="left out">在</del>裡 a b</dd>' in render(read_record(run))


def test_hostile_words_and_names_are_text(run: Path) -> None:
    pairs = [[HOSTILE, HOSTILE[:-1]], [HOSTILE, ""], ["", HOSTILE], [1, 2], "no pair", [HOSTILE]]
    sounds = {HOSTILE: "a.wav", "x": HOSTILE, "y": "../evaluation.json", "z": 3}
    answered(run, {"question": HOSTILE, "compared": pairs, "sounds": sounds})
    page = render(read_record(run))
    assert "<script" not in page
    found = Page(page)
    assert not any("onload" in attributes for _, attributes in found.tags)
    assert ("del", HOSTILE) in found.marked and ("ins", HOSTILE) in found.marked
    (player,) = found.of("audio")
    assert player["aria-label"] == f"{HOSTILE}: {HOSTILE}"
    assert "is no name of a recording there" in page
    answered(run, {"compared": {"a": 1}, "sounds": ["a.wav"]})  # other shapes than ours
    assert not Page(render(read_record(run))).of("audio")


def test_what_has_no_room_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(run, *[{"sounds": {"recording": "a.wav"}}] * (beside.PLAYERS + 3))
    page = render(read_record(run))
    assert len(Page(page).of("audio")) == beside.PLAYERS
    assert page.count("<dd>samples/a.wav</dd>") == 3
    monkeypatch.setattr(beside, "BYTES", 2 * len(SOUND))
    page = render(read_record(run))
    assert len(Page(page).of("audio")) == 1  # with base64 there is no room for another
    assert page.count("<dd>samples/a.wav</dd>") == beside.PLAYERS + 2
