"""The times of words: the likeliest walk beside every walk, words that are the text, order."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data import subtitles
from modelwright.data.codecs import fit_codec
from modelwright.data.codecs.speech import Codec
from modelwright.data.spelling import Spelling
from modelwright.data.word_times import (
    BEHIND,
    LONGEST,
    Word,
    details,
    divided,
    letter_frames,
    path_frames,
    words_of,
)
from modelwright.errors import ModelwrightError
from modelwright.types import Example, Sound, Turn, text_turn

BLANK = 0


def scores_of(seed: int, frames: int, letters: int, sharp: float = 2.0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, sharp, (frames, letters))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def score(scores: np.ndarray, letters: tuple[int, ...], frames: np.ndarray) -> float:
    path = np.full(len(scores), BLANK)
    for letter, (begin, end) in zip(letters, frames, strict=True):
        path[begin:end] = letter
    return float(scores[np.arange(len(scores)), path].sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_walk_is_the_likeliest_of_all_that_read_as_the_letters(seed: int, frames: int) -> None:
    scores = scores_of(seed, frames, 3)
    best: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(3), repeat=frames):
        letters = tuple(c for c, _ in itertools.groupby(path) if c)
        found = float(sum(scores[t, c] for t, c in enumerate(path)))
        best[letters] = max(best.get(letters, -np.inf), found)
    for letters, worth in best.items():
        spans = letter_frames(scores, letters, BLANK)
        assert score(scores, letters, spans) == pytest.approx(worth)
        for (a, b), (c, d), (e, f) in zip(
            spans, spans[1:], itertools.pairwise(letters), strict=False
        ):
            assert a < b <= c < d and (e != f or b < c)  # a blank between two that are the same


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0.5, 8))
def test_the_likeliest_path_is_its_own_walk(seed: int, frames: int, sharp: float) -> None:
    scores = scores_of(seed, frames, 5, sharp)
    letters, spans = path_frames(scores.argmax(1), BLANK)
    assert np.array_equal(letter_frames(scores, letters, BLANK), spans)


def test_letters_that_the_frames_have_no_room_for_are_refused() -> None:
    assert letter_frames(scores_of(0, 3, 3), [1, 1], BLANK).tolist() == [[0, 1], [2, 3]]
    with pytest.raises(ModelwrightError, match="2 letters need 3 frames, there are 2"):
        letter_frames(scores_of(0, 2, 3), [1, 1], BLANK)
    assert letter_frames(scores_of(0, 2, 3), [], BLANK).shape == (0, 2)


def test_a_long_recording_is_aligned_in_a_narrow_stretch() -> None:
    """Ten minutes of peaks: as the peaks lie, though hardly any of the lattice is looked at."""
    rng = np.random.default_rng(2)
    places = np.sort(rng.choice(15_000, 6_000, replace=False))
    letters = rng.integers(1, 30, len(places))
    path = np.zeros(15_000, np.int64)
    path[places] = letters
    scores = np.full((15_000, 30), np.log(1e-4 / 29))
    scores[np.arange(15_000), path] = np.log(1 - 1e-4)
    read, spans = path_frames(path, BLANK)
    assert np.array_equal(letter_frames(scores, read, BLANK), spans)
    assert 10 * -scores.min() < BEHIND


ALPHABET = " abc'中文"


@settings(max_examples=80, deadline=None)
@given(
    text=st.text(ALPHABET, max_size=30),
    units=st.sampled_from(["characters", "words"]),
    seed=st.integers(0, 1000),
    seconds=st.floats(0.05, 500),
)
def test_words_are_the_text_in_order_and_inside_the_recording(
    text: str, units: str, seed: int, seconds: float
) -> None:
    spelling = Spelling.of([ALPHABET, text], units)  # type: ignore[arg-type]
    letters = spelling.spelled(text)
    scores = scores_of(seed, 2 * len(letters) + 3, spelling.vocabulary)
    frames = letter_frames(scores, letters, BLANK)
    found = details(scores, letters, frames, spelling, seconds)
    read = spelling.read(letters)
    words = [word["word"] for word in found["words"]]
    if units == "words" or not re.search("[中文]", read):
        assert words == read.split()
    assert "".join(words) == "".join(read.split())
    for all_of in (found["words"], found["segments"]):
        times = [t for one in all_of for t in (one["start"], one["end"])]
        assert times == sorted(times)
        assert all(one["start"] < one["end"] for one in all_of)
        assert all(0 <= t <= seconds * (1 + 1e-9) for t in times)
    assert "".join("".join(s["text"].split()) for s in found["segments"]) == "".join(words)
    for segment in found["segments"]:
        assert segment["avg_logprob"] <= 0 <= segment["no_speech_prob"] <= 1
        assert spelling.read(segment["tokens"]) == segment["text"]


def test_what_is_no_text_has_no_word() -> None:
    spelling = Spelling(("<pad>", "|", "</s>", "H", "I"), space="|", fold="upper")
    letters = [1, 3, 4, 2, 1, 1, 3]
    frames = np.stack((np.arange(7), np.arange(1, 8)), axis=1)
    assert spelling.read(letters) == " HI  H"
    words = words_of(letters, frames, spelling, 0.5)
    assert [(w.word, w.start, w.end) for w in words] == [("HI", 0.5, 1.5), ("H", 3.0, 3.5)]


def at(*times: tuple[float, float]) -> list[Word]:
    return [Word(f"w{i}", a, b, i, i + 1) for i, (a, b) in enumerate(times)]


def test_segments_end_at_pauses_and_long_ones_at_their_widest_gap() -> None:
    words = at((0, 1), (1.1, 2), (2.6, 3), (3.2, 4))
    assert [len(some) for some in divided(words, 0.6)] == [2, 2]
    assert len(divided(words, 0.7)) == 1
    assert divided([], 0.6) == []
    steady = [(i + 0.0, i + 0.9) for i in range(20)]
    steady[7] = (7.0, 7.6)  # the widest gap follows it
    parts = divided(at(*steady), 0.6)
    assert [w for part in parts for w in part] == at(*steady)
    assert parts[0][-1].word == "w7"
    assert all(part[-1].end - part[0].start <= LONGEST for part in parts)
    assert len(divided(at((0, 2 * LONGEST)), 0.6)) == 1  # a word is never divided


def test_subtitles_are_as_players_read_them() -> None:
    segments = [
        {"start": 0.0, "end": 1.5, "text": "one"},
        {"start": 3599.9996, "end": 3661.25, "text": "a < b --> c"},
    ]
    assert subtitles.srt(segments) == (
        "1\n00:00:00,000 --> 00:00:01,500\none\n\n2\n01:00:00,000 --> 01:01:01,250\na < b --> c\n"
    )
    assert subtitles.vtt(segments) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\none\n\n"
        "01:00:00.000 --> 01:01:01.250\na &lt; b --&gt; c\n"
    )
    assert subtitles.srt([]) == "" and subtitles.vtt([]).strip() == "WEBVTT"
    found = {"words": [{"start": 0.5, "end": 0.75, "word": "hum"}], "segments": segments}
    assert subtitles.WAYS["words"](found) == "0.50 0.75 hum"
    assert subtitles.WAYS["segments"](found).splitlines()[0] == "0.00 1.50 one"


@pytest.mark.parametrize("options", [{}, {"beams": 6, "language_weight": 1.5, "letter_bonus": 2.0}])
@pytest.mark.parametrize("seed", range(4))
def test_a_codec_times_what_it_decodes(options: dict[str, float], seed: int) -> None:
    """Also what a search finds that is not on the likeliest path."""
    hum = Sound(np.sin(np.arange(8000) / 9).astype(np.float32), 8000)
    example = Example((Turn("user", (hum,)), text_turn("assistant", "abba cab ba", learn=True)))
    codec = fit_codec("speech", [example], {"rate": 8000, "bands": 10, **options})
    assert isinstance(codec, Codec)
    outputs = torch.from_numpy(scores_of(seed, 40, codec.vocabulary))[None].float()
    (turn,) = codec.decode(outputs)
    found = codec.timed(outputs, 2.0)
    assert found.turn == turn
    assert [word["word"] for word in found.details["words"]] == turn.text.split()
    if options:
        best, _ = path_frames(outputs[0].argmax(-1).numpy(), codec.blank)
        assert codec.spelling.read(best) != turn.text
