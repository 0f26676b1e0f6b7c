"""Transforms of text and sound, and recipe lines that name them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data import sounds
from modelwright.data.archive import tar_members
from modelwright.data.augment import chain, generator, names
from modelwright.data.augment.transforms import audio, text_edits, text_noise
from modelwright.errors import ModelwrightError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=80)
SYNONYMS = {"good": ("fine", "sound"), "film": ("movie",), "大": ("巨",)}
OF_TEXT: list[Any] = [
    text_noise.Typos(0.2),
    text_noise.Misread(0.5),
    text_noise.Casing(0.5),
    text_edits.DeleteWords(0.3),
    text_edits.SwapWords(0.3),
    text_edits.Synonyms(SYNONYMS, 0.5, 0.5),
]
SENTENCE = "The film was good, 大 and the light in modern rooms on 10 Oak Lane was not so good."


@pytest.mark.parametrize("transform", OF_TEXT, ids=lambda t: type(t).__name__)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, seed=st.integers(0, 99))
def test_any_text_gives_a_text_and_the_same_from_the_same_seed(
    transform: Any, text: str, seed: int
) -> None:
    one, two = (transform(text, generator(seed)) for _ in range(2))
    assert one == two
    assert isinstance(one, str)
    assert text == "" or transform("", generator(seed)) == ""


@pytest.mark.parametrize("transform", OF_TEXT, ids=lambda t: type(t).__name__)
def test_real_sentences_change_and_at_no_rate_stay(transform: Any) -> None:
    assert len({transform(SENTENCE, generator(seed)) for seed in range(20)}) > 1
    quiet = {"probability": 0.0} if isinstance(transform, text_noise.Casing) else {"rate": 0.0}
    if isinstance(transform, text_edits.Synonyms):
        quiet |= {"list": SYNONYMS}  # type: ignore[dict-item]
    assert type(transform)(**quiet)(SENTENCE, generator(1)) == SENTENCE


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, seed=st.integers(0, 99))
def test_words_only_leave_or_move(text: str, seed: int) -> None:
    def words(of: str) -> Counter[str]:
        pieces, at = text_edits.parted(of)
        return Counter(pieces[i] for i in at)

    pieces, _ = text_edits.parted(text)
    assert "".join(pieces) == text
    found = text_edits.parted(text)[1]
    deleted = text_edits.DeleteWords(1.0)(text, generator(seed))
    assert len(text_edits.parted(deleted)[1]) >= min(1, len(found))
    joined = " ".join(text.split())
    swapped = text_edits.SwapWords(0.5)(joined, generator(seed))
    assert Counter(swapped) == Counter(joined)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, seed=st.integers(0, 99))
def test_noise_leaves_spaces_where_they_are(text: str, seed: int) -> None:
    for transform in (text_noise.Typos(0.3), text_noise.Misread(0.8)):
        spaces = [c for c in transform(text, generator(seed)) if c.isspace()]
        assert spaces == [c for c in text if c.isspace()]


def test_typos_come_at_their_rate() -> None:
    text = "the quick brown fox jumps over the lazy dog " * 200
    letters = sum(c.isalnum() for c in text)
    beside = text_noise.Typos(0.1)(text, generator(1))
    assert 1 - sum(a == b for a, b in zip(text, beside, strict=False)) / letters > 0.15
    assert abs(len(beside) - len(text)) < 0.03 * letters  # as many doubled as left out


def test_chinese_is_edited_character_by_character() -> None:
    text = "我们今天去公园看花"
    pieces, words = text_edits.parted(text)
    assert [pieces[i] for i in words] == list(text)
    assert Counter(text_edits.SwapWords(1.0)(text, generator(1))) == Counter(text)
    assert text_edits.Synonyms({"花": ("草",)}, 1.0)(text, generator(1)) == "我们今天去公园看草"


def test_synonyms_come_from_the_users_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.json"
    path.write_text(json.dumps({"good": ["fine"]}), encoding="utf-8")
    (transform,) = chain([{"synonyms": {"list": str(path), "rate": 1.0}}])
    assert transform("Good, good food", generator(1)) == "Fine, fine food"
    mark = transform.assets()
    path.write_text(json.dumps({"good": ["nice"]}), encoding="utf-8")
    assert transform.assets() != mark
    for content in ("[]", "{", '{"a": "b"}', '{"a": [""]}'):
        other = tmp_path / f"{len(content)}{content[0] == '['}.json"
        other.write_text(content)
        with pytest.raises(ModelwrightError, match="write {word"):
            text_edits.read_synonyms(str(other))
    with pytest.raises(ModelwrightError, match="cannot be read"):
        text_edits.read_synonyms(str(tmp_path / "none.json"))


# -- sounds -----------------------------------------------------------------------------------


def tone(seconds: float, hertz: float = 440.0, rate: int = 8000) -> Any:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype("f4")


OF_SOUND = [audio.Speed(), audio.Noise(), audio.Gain(), audio.Shift()]


@pytest.mark.parametrize("transform", OF_SOUND, ids=lambda t: type(t).__name__)
@settings(max_examples=30, deadline=None)
@given(length=st.integers(2, 500), channels=st.sampled_from([0, 1, 2]), seed=st.integers(0, 99))
def test_any_sound_stays_one(transform: Any, length: int, channels: int, seed: int) -> None:
    shape = (length, channels) if channels else (length,)
    sound = np.random.default_rng(seed).uniform(-1, 1, size=shape).astype(np.float32)
    one, two = (transform(sound, 8000, generator(seed)) for _ in range(2))
    assert np.array_equal(one, two)
    assert one.dtype == np.float32
    assert one.shape[1:] == sound.shape[1:]
    assert np.abs(one).max(initial=0) <= 1
    if not isinstance(transform, audio.Speed):
        assert one.shape == sound.shape


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
def test_speed_moves_pitch_and_length_together(factor: float) -> None:
    sound = tone(1.0)
    out = audio.Speed(factor, factor)(sound, 8000, generator(1))
    assert len(out) == round(8000 / factor)
    peak = np.argmax(np.abs(np.fft.rfft(out))) * 8000 / len(out)
    assert peak == pytest.approx(440 * factor, abs=2)
    assert sounds.level(out) == pytest.approx(sounds.level(sound), abs=0.1)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1024, 400_000), factor=st.floats(0.1, 10))
def test_speed_is_exact_at_lengths_that_are_quick(length: int, factor: float) -> None:
    wanted = max(1, round(length / factor))
    before, after = audio._quick_lengths(length, wanted, factor)
    if min(length, wanted) < audio.SHORT:
        assert (before, after) == (length, wanted)
        return
    assert length <= before <= 1.15 * length + 1
    assert after >= wanted
    assert abs(before / after / factor - 1) < audio.EXACT
    left = [before, after]
    for prime in (2, 3, 5, 7):
        for i in range(2):
            while left[i] % prime == 0:
                left[i] //= prime
    if left != [1, 1]:  # no quick lengths were near: of short ones alone
        assert (before, after) == (length, wanted)
        assert min(length, wanted) < 1 << 15


def test_speed_says_the_same_as_a_transform_of_the_whole() -> None:
    """What is below half the lower rate is the same tone, from beginning to end."""
    rate, length, factor = 16_000, 50_021, 0.93  # a prime: slow to transform
    fade = np.hanning(length)
    sound = (tone(4, 440, rate)[:length] * fade).astype("f4")
    out = audio.Speed(factor, factor)(sound, rate, generator(1))
    time = np.arange(len(out)) * factor
    meant = 0.4 * np.sin(2 * np.pi * 440 * time / rate) * np.interp(time, np.arange(length), fade)
    assert len(out) == round(length / factor)
    assert np.abs(out - meant)[: rate // 10].max() < 0.01
    assert sounds.level(out) == pytest.approx(sounds.level(sound), abs=0.05)


@pytest.mark.parametrize("ratio", [0.0, 10.0, 25.0])
def test_noise_has_the_power_it_should(ratio: float) -> None:
    sound = 0.25 * tone(2.0)
    noise = audio.Noise(ratio, ratio)(sound, 8000, generator(1)) - sound
    assert sounds.level(sound) - sounds.level(noise) == pytest.approx(ratio, abs=0.05)
    silence = np.zeros(100, np.float32)
    assert not audio.Noise()(silence, 8000, generator(1)).any()


def test_gain_and_shift() -> None:
    sound = tone(0.5)
    louder = audio.Gain(3.0, 3.0)(sound, 8000, generator(1))
    assert sounds.level(louder) - sounds.level(sound) == pytest.approx(3.0, abs=0.01)
    for seed in range(10):
        moved = audio.Shift(0.1)(sound, 8000, generator(seed))
        by = [
            k
            for k in range(-800, 801)
            if np.array_equal(np.roll(sound, k)[800:-800], moved[800:-800])
        ]
        assert by
        assert (
            any((moved[:k] == 0).all() if k > 0 else (moved[k:] == 0).all() for k in by if k)
            or 0 in by
        )


@settings(max_examples=40, deadline=None)
@given(time=st.integers(1, 90), features=st.integers(1, 40), seed=st.integers(0, 99))
def test_masks_are_bands_and_spans_of_the_mean(time: int, features: int, seed: int) -> None:
    frames = np.random.default_rng(seed).normal(size=(time, features)).astype(np.float32)
    out = audio.SpecAugment(2, 0.3, 2, 0.2)(frames, generator(seed))
    assert (out.shape, out.dtype) == (frames.shape, np.float32)
    changed = out != frames
    mean = np.broadcast_to(frames.mean(axis=0), frames.shape)
    assert np.allclose(out[changed], mean[changed])
    bands, spans = changed.all(axis=0), changed.all(axis=1)
    assert changed[~spans][:, ~bands].sum() == 0 or time == 1
    assert bands.sum() <= 2 * int(0.3 * features) or time == 1 or spans.all()
    warped = audio.SpecAugment(0, 0, 0, 0, warp=0.2)(frames, generator(seed))
    assert warped.shape == frames.shape
    assert np.allclose(warped[[0, -1]], frames[[0, -1]], atol=1e-5)
    assert warped.min() >= frames.min() - 1e-5


def test_real_recordings(data: Callable[[str], Path]) -> None:
    pytest.importorskip("soundfile")
    for _, content in islice(tar_members(data("kathleen/audio.tar"), suffix=".flac"), 3):
        samples, rate = sounds.decode(content)
        out = samples
        for transform in OF_SOUND:
            out = transform(out, rate, generator(1))
        assert 0.9 < len(out) / len(samples) < 1.12
        assert sounds.silent_share(out, rate) <= 1


# -- lines of a recipe ------------------------------------------------------------------------


def test_every_transform_is_found_by_its_name() -> None:
    assert set(names()) >= {
        "flip", "crop", "colour_jitter", "rand_augment", "mixup", "cutmix", "erase", "speed",
        "noise", "gain", "shift", "spec_augment", "typos", "misread", "casing", "delete_words",
        "swap_words", "synonyms", "symmetry", "game_symmetry", "board_symmetry",
    }  # fmt: skip
    made = chain([{"crop": {"padding": 2}}, "flip", {"flip": None}])
    assert [type(t).__name__ for t in made] == ["Crop", "Flip", "Flip"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("flipp", "augment: no transform 'flipp' (did you mean 'flip'?)"),
        ({"crop": {"pading": 2}}, "augment: crop: no option 'pading' (did you mean 'padding'?)"),
        ({"crop": {"padding": 0}}, "augment: crop: padding: "),
        ({"crop": 4}, "augment: crop: settings are a mapping, not 4"),
        ({"crop": {}, "flip": {}}, "is no line; write a name, or {name: settings}"),
        (7, "augment: '7' is no line"),
        ({"erase": {"probability": 2}}, "augment: erase: probability: "),
    ],
)
def test_a_wrong_line_is_one_line(line: Any, said: str) -> None:
    with pytest.raises(ModelwrightError) as caught:
        chain([line])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
