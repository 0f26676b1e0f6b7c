"""Spoken orders understood two ways: straight from the recording, and by way of a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright import api
from modelwright.data.orders import spans
from modelwright.data.sources import read_rows
from modelwright.data.spoken import orders
from modelwright.errors import ModelwrightError
from modelwright.pipeline.relayed import NAME
from modelwright.tasks.speech_understanding import SpeechUnderstanding, pairs
from modelwright.types import Label, Span, Turn

SMALL = ("train.steps=2", "train.threads=1", "train.compile=false")


def test_slots_of_a_sentence_are_told_by_rule() -> None:
    text = "make me a medium dark roast double shot latte with a little bit of soy milk and sugar"
    found = {name: text[begin:end] for begin, end, name in spans(text)}
    assert found == {
        "size": "medium",
        "roast": "dark roast",
        "numberOfShots": "double shot",
        "coffeeDrink": "latte",
        "milkAmount": "a little bit of soy milk",
        "sugarAmount": "sugar",
    }
    text = "a medium roast iced mocha"
    assert [text[begin:end] for begin, end, _ in spans(text)] == ["medium roast", "iced mocha"]


def test_the_sentences_have_the_slots_of_the_spoken_orders(data: Callable[[str], Path]) -> None:
    rows = list(read_rows("coffee-sentences", path=data("coffee_slu")))
    assert len(rows) > 400
    assert all(any(name == "coffeeDrink" for *_, name in row["spans"]) for row in rows)
    spoken = list(orders(data("coffee_slu")))
    assert {name for row in rows for *_, name in row["spans"]} == {
        name for row in spoken for name in row["slots"]
    }
    for row in spoken:  # every value is found, and as one of its own kind
        for name, words in row["slots"].items():
            assert [n for *_, n in spans(words.strip())] == [name]


def test_an_answer_is_made_of_a_text_and_what_was_found_in_it() -> None:
    task = SpeechUnderstanding()
    text = "a small latte no espresso"
    found = Turn(
        "assistant", (Span(2, 7, "size"), Span(16, 24, "drink", 0.4), Span(8, 13, "drink"))
    )
    line = task.understood(text, found, "order").text
    assert line == "order; drink: latte; size: small"
    assert pairs(line) == {("", "order"), ("drink", "latte"), ("size", "small")}
    assert task.understood("", Turn("assistant", (Label("stop"),)), "order").text == "stop"


def test_both_ways_are_measured_beside_a_baseline(
    data: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("jiwer")
    kathleen, coffee = (f"data.path={data(name)}" for name in ("kathleen", "coffee_slu"))
    ear = api.train(
        "speech-kathleen", kathleen, "data.limit=30", *SMALL, "train.epochs=null", "codec.bands=20",
        "model.width=16", "model.depth=1", out=tmp_path / "ear",
    )  # fmt: skip
    reader = api.train(
        "coffee-sentences", coffee, *SMALL, "train.epochs=null", "model.width=16",
        out=tmp_path / "reader",
    )  # fmt: skip
    run = api.train(
        "coffee-orders", coffee, *SMALL, "codec.bands=20", "model.width=16",
        "model.encoder_depth=1", out=tmp_path / "orders",
    )  # fmt: skip
    found = api.evaluate(run, recogniser=str(ear.path), reader=str(reader.path))
    rows: dict[str, Any] = {
        m["name"]: {row["who"]: row["value"] for row in m["rows"]} for m in found["measures"]
    }
    assert set(rows) == {"test requests understood", "test intent accuracy", "test slot F1"}
    assert all(set(of) == {"ours", NAME, "most common answer"} for of in rows.values())
    assert rows["test intent accuracy"][NAME] == 1.0  # there is one intent
    with pytest.raises(ModelwrightError, match=r"reader: the other of recogniser and reader"):
        api.evaluate(run, recogniser=str(ear.path))
    with pytest.raises(ModelwrightError, match="did you mean 'reader'"):
        api.evaluate(run, raeder=str(reader.path))
    with pytest.raises(ModelwrightError, match="options hold for the run's own test part"):
        api.evaluate(run, on=str(tmp_path / "x.jsonl"), reader="x")
