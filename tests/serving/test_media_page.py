"""The page of models whose answers come whole, in a real browser: a picture in, boxes out."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.data.pictures import encode_png
from modelwright.serving.passes import PassEngine
from modelwright.types import Answer, Box, Image, Label, Text, Turn
from tests.serving.parts import running, wait_for
from tests.serving.test_chat_page import BROWSER, DRIVER, browser, complaints, element, opened, text

__all__ = ["browser"]
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER and shutil.which("chromium")),
    reason="chromium and chromedriver are not installed",
)

PICTURE = np.full((60, 80, 3), 200, np.uint8)


class Fixed:
    """Answers by a rule: the two sides of a picture; or a picture of one colour, or a tone."""

    at_once = 8

    def __init__(self, kind: str, suffix: str = "") -> None:
        self.kind, self.suffix = kind, suffix
        self.shown: list[int] = []

    def detailed(self, given, looks: int = 0, seen: Any = None, **params: Any) -> list[Answer]:
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
        if self.kind == "labels":
            assert isinstance(part, Image | Text)
            details = {"probabilities": {"fox": 0.75, "<b>dog</b>": 0.25}}
            return Answer(Turn("assistant", (Label("fox"),)), details)
        return Answer(Turn("assistant", (Image(PICTURE) if self.suffix == ".png" else part,)))

    def content(self, answer: Turn) -> bytes:
        return encode_png(PICTURE)

    def facts(self) -> dict[str, Any]:
        reads = ["text"] if self.suffix else ["image", "numbers", "text"]
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
