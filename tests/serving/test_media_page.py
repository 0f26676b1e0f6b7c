"""The page of models whose answers come whole, in a real browser: a picture in, boxes out."""

from __future__ import annotations

import base64
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.data.pictures import encode_png
from modelwright.data.sounds import encode_wav
from modelwright.serving.passes import PassEngine
from modelwright.types import Answer, Box, Image, Label, Sound, Text, Turn
from tests.serving.parts import running, wait_for
from tests.serving.test_chat_page import BROWSER, DRIVER, browser, complaints, element, opened, text

__all__ = ["browser"]
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER and shutil.which("chromium")),
    reason="chromium and chromedriver are not installed",
)

PICTURE = np.full((60, 80, 3), 200, np.uint8)
TONE = (0.3 * np.sin(np.arange(4000) / 8)).astype(np.float32)  # half a second at 8 kHz


class Fixed:
    """Answers by a rule: the two sides of a picture; or a picture of one colour, or a tone."""

    at_once = 8

    def __init__(self, kind: str, suffix: str = "") -> None:
        self.kind, self.suffix = kind, suffix
        self.shown: list[int] = []
        self.heard: list[Sound] = []

    def detailed(self, given, looks: int = 0, seen: Any = None, **params: Any) -> list[Answer]:
        if self.kind == "speaks" and seen:
            for number in range(3):
                seen(number, Turn("assistant", (Sound(TONE, 8000),)))
            return [Answer(Turn("assistant", (Sound(np.tile(TONE, 3), 8000),)))]
        for look in range(looks):
            seen(look, Turn("assistant", (Image(PICTURE),)))
            self.shown.append(look)
        return [self._one(turns) for turns in given]

    def _one(self, turns) -> Answer:
        (part,) = turns[0].parts
        if self.kind == "boxes":
            assert isinstance(part, Image) and part.pixels.shape[:2] == (60, 80)
            found = (Box("cell", 5, 5, 30, 30, 0.9), Box("dust", 40, 10, 70, 50, 0.7),
                     Box("cell", 0, 0, 3, 3, 0.1))  # fmt: skip
            return Answer(Turn("assistant", found))
        if self.kind == "hears":
            assert isinstance(part, Sound)
            self.heard.append(part)
            return Answer(Turn("assistant", (Text("yes please"),)))
        if self.kind == "labels":
            assert isinstance(part, Image | Text)
            details = {"probabilities": {"fox": 0.75, "<b>dog</b>": 0.25}}
            return Answer(Turn("assistant", (Label("fox"),)), details)
        return Answer(Turn("assistant", (Image(PICTURE) if self.suffix == ".png" else part,)))

    def content(self, answer: Turn) -> bytes:
        if self.kind == "speaks":
            (sound,) = answer.parts
            assert isinstance(sound, Sound)
            return encode_wav(sound.samples, sound.rate)
        return encode_png(PICTURE)

    def facts(self) -> dict[str, Any]:
        reads = ["text"] if self.suffix else ["image", "numbers", "text"]
        if self.kind == "hears":
            reads = ["audio"]
        return {"inputs": reads, "labels": ["fox", "dog"]}


def request(text: str) -> tuple[Turn, ...]:
    return (Turn("user", (Text(text),)),)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cells.png"
    path.write_bytes(encode_png(PICTURE))
    return path


def test_a_picture_is_answered_with_its_boxes(browser, file):
    with running(PassEngine(Fixed("boxes"), request)) as served:
        opened(browser, served)
        assert not element(browser, "#dials").is_displayed()
        assert "Drop a picture" in text(browser, "#lead")
        element(browser, "#file").send_keys(str(file))
        wait_for(lambda: browser.find_elements("css selector", ".assistant canvas"))
        wait_for(lambda: text(browser, ".assistant .meta").endswith(" s"))
        size = browser.execute_script(
            "const c = document.querySelector('canvas'); return [c.width, c.height,"
            " ...c.getContext('2d').getImageData(5, 20, 1, 1).data]"
        )
        assert size[:2] == [80, 60] and size[2:5] != [200, 200, 200]  # the side of a box
        assert element(browser, "canvas").get_attribute("aria-label") == "cell, dust"
        assert "cell 0.90 at 5 5 30 30" in text(browser, ".assistant .said")
        assert browser.find_elements("css selector", ".user img")
        assert complaints(browser) == []


def test_a_dropped_picture_gets_its_labels_as_text_alone(browser, file):
    with running(PassEngine(Fixed("labels"), request)) as served:
        opened(browser, served)
        browser.execute_script(
            """
            const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "a.png", { type: "image/png" }));
            for (const kind of ["dragover", "drop"]) document.getElementById("scroll")
              .dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true,
                cancelable: true }));
            """,
            base64.b64encode(file.read_bytes()).decode(),
        )
        wait_for(lambda: text(browser, ".chances span"))
        assert text(browser, ".chances span") == "fox|75.0 %|<b>dog</b>|25.0 %"
        assert not browser.find_elements("css selector", ".chances b")
        element(browser, "#question").send_keys("[[0]]\n")
        wait_for(lambda: text(browser, ".assistant .meta").count(" s") == 2)
        assert complaints(browser) == []


def test_a_file_that_is_no_picture_is_explained(browser, tmp_path):
    path = tmp_path / "note.png"
    path.write_text("no picture")
    with running(PassEngine(Fixed("labels"), request)) as served:
        opened(browser, served)
        element(browser, "#file").send_keys(str(path))
        wait_for(lambda: "cannot be decoded" in text(browser, "#error"))
        assert not browser.find_elements("css selector", ".turn")


def test_a_model_that_draws_shows_its_picture(browser):
    policy = Fixed("draws", ".png")
    with running(PassEngine(policy, request)) as served:
        opened(browser, served)
        assert not element(browser, "#attach").is_displayed()
        assert text(browser, "#lead") == "What shall be drawn?"
        element(browser, "#question").send_keys("fox\n")
        wait_for(lambda: browser.find_elements("css selector", ".assistant img"))
        wait_for(
            lambda: (
                browser.execute_script(
                    "return document.querySelector('.assistant img').naturalWidth"
                )
                == 80
            )
        )
        assert complaints(browser) == []
        wait_for(lambda: text(browser, ".assistant .meta").endswith(" s"))
        assert policy.shown == [0, 1, 2]  # it was seen on the way


def test_a_microphone_is_recorded_until_it_is_enough(browser):
    policy = Fixed("hears")
    with running(PassEngine(policy, request)) as served:
        opened(browser, served)
        record = element(browser, "#record")
        assert (record.is_displayed(), record.text) == (True, "Record")
        record.click()
        wait_for(lambda: record.text == "Done, 1 s")
        assert record.get_attribute("aria-pressed") == "true"
        record.click()
        wait_for(lambda: text(browser, ".assistant .said") == "yes please")
        assert record.text == "Record"
        (sound,) = policy.heard
        assert sound.rate == 16_000 and 0.9 < len(sound.samples) / sound.rate < 5
        assert np.abs(sound.samples).max() > 0.01  # the browser's own beeps
        assert browser.find_elements("css selector", ".user audio")
        record.click()
        wait_for(lambda: record.text.startswith("Done"))
        element(browser, "body").send_keys("\ue00c")  # Esc throws it away
        wait_for(lambda: record.text == "Record")
        assert complaints(browser) == []
        assert len(policy.heard) == 1
        # A page that may not use it says so.
        browser.execute_script(
            "navigator.mediaDevices.getUserMedia ="
            " () => Promise.reject(new DOMException('no', 'NotAllowedError'));"
        )
        record.click()
        wait_for(lambda: "may not use the microphone" in text(browser, "#error"))


def test_speech_is_heard_while_it_is_made_and_kept(browser):
    with running(PassEngine(Fixed("speaks", ".wav"), request)) as served:
        opened(browser, served)
        assert not element(browser, "#record").is_displayed()
        assert text(browser, "#lead") == "What shall be said?"
        browser.execute_script(
            """
            window.played = [];
            const start = AudioBufferSourceNode.prototype.start;
            AudioBufferSourceNode.prototype.start = function (at) {
              window.played.push([at, this.buffer.duration, this.buffer.getChannelData(0)[5]]);
              start.call(this, at);
            };
            """
        )
        element(browser, "#question").send_keys("Hear us. And us. And them.\n")
        wait_for(lambda: browser.find_elements("css selector", ".assistant audio"))
        played = browser.execute_script("return window.played")
        assert [duration for _, duration, _ in played] == [0.5, 0.5, 0.5]
        starts = [at for at, _, _ in played]
        assert all(b - a >= 0.5 - 1e-6 for a, b in itertools.pairwise(starts))
        assert played[0][2] == pytest.approx(TONE[5], abs=1e-4)
        kept = "return document.querySelector('.assistant audio').duration"
        wait_for(lambda: browser.execute_script(kept) == pytest.approx(1.5))
        assert complaints(browser) == []
