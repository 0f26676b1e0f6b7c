"""What the values of a file become: 16 bits, floating point, and what is transparent."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from modelwright.data.codecs.images import Codec
from modelwright.data.picture_settings import ImageSettings
from modelwright.data.pictures import OutOfRange, check, decode, measured
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.serving.media import Decoder
from modelwright.tasks.task import make_task
from modelwright.types import Example, ImageFile, Turn

STEPS = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)


def saved(image: Pillow.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def wide(values: np.ndarray, kind: str = "TIFF") -> bytes:
    return saved(Pillow.fromarray(values), kind)


def test_sixteen_bits_are_scaled_by_their_own_range() -> None:
    bright, dark = STEPS.copy(), STEPS // 4  # of one camera, by two lamps
    files = {
        "png": wide(bright, "PNG"),
        "tiff": wide(bright),
        "the other order of bytes": wide(bright.astype(">u2")),
        "32 bits that hold 16": wide(bright.astype(np.int32)),
        "pgm": b"P5 16 16 65535\n" + bright.astype(">u2").tobytes(),
    }
    for name, content in files.items():
        check(content)
        assert measured(content) == (16, 16, True), name
        assert np.array_equal(decode(content)[0].ravel(), np.arange(256)), name
    assert decode(wide(dark, "PNG"))[0].max() == 63  # stays darker than the other


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 65535), min_size=4, max_size=4))
def test_a_brighter_value_of_16_bits_is_never_darker(values: list[int]) -> None:
    found = decode(wide(np.array([[*values, 65535]], np.uint16), "PNG"))[0][0].tolist()
    assert found[-1] == 255
    order = np.argsort(values)
    assert np.all(np.diff(np.array(found)[order]) >= 0)
    assert np.abs(np.array(found[:4]) - np.array(values) / 257).max() < 1


def test_floating_point_between_0_and_1_is_scaled() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(decode(wide(values))[0].ravel(), np.arange(256))


OUTSIDE = {
    "celsius": (np.linspace(-20, 40, 16, dtype=np.float32), "not in 0..1; scale them to 0..1"),
    "bytes": (np.linspace(0, 255, 16, dtype=np.float32), "not in 0..1; scale them to 0..1"),
    "holes": (np.array([0.5, np.nan], np.float32), "not in 0..1; scale them to 0..1"),
    "counts": (np.array([0, 70_000], np.int32), r"outside 0\.\.65535; scale them"),
    "negative": (np.array([-1, 5], np.int32), r"outside 0\.\.65535; scale them"),
    "bytes in 16 bits": (np.arange(256, dtype=np.uint16), "all black; save the picture in 8 bits"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_values_that_nothing_explains_are_refused_by_name(tmp_path: Path, name: str) -> None:
    values, why = OUTSIDE[name]
    content = wide(values[None])
    with pytest.raises(OutOfRange, match=why):
        check(content)
    codec = Codec(["a", "b"], ImageSettings(4, 4))
    with pytest.raises(ModelwrightError, match=rf"^x\.tif: .*{why}[^;]*$"):
        codec.encode(Example((Turn("user", (ImageFile(content, "x.tif"),)),)))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.tif").write_bytes(content)
    (row,) = read_rows(str(tmp_path))
    reason = make_task("image_classification", {}).examples(row)
    assert isinstance(reason, str)
    assert re.search(why, reason)


def transparent() -> dict[str, bytes]:
    """A red and a clear pixel, written in every way that a file can say it; grey ones are black."""
    rgba = Pillow.new("RGBA", (2, 1), (*RED, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 0))
    grey = Pillow.new("LA", (2, 1), (0, 255))
    grey.putpixel((1, 0), (0, 0))
    palette = Pillow.new("P", (2, 1))
    palette.putpalette([*RED, *BLACK])
    palette.putpixel((1, 0), 1)
    key = Pillow.new("RGB", (2, 1), RED)
    key.putpixel((1, 0), (1, 2, 3))
    deep = Pillow.fromarray(np.array([[0, 40_000]], np.uint16))
    return {
        "rgba png": saved(rgba, "PNG"),
        "rgba webp": saved(rgba, "WEBP", lossless=True, exact=True),
        "rgba tiff": saved(rgba, "TIFF"),
        "palette png": saved(palette, "PNG", transparency=1),
        "palette gif": saved(palette, "GIF", transparency=1),
        "palette of many": saved(palette, "PNG", transparency=b"\xff\0"),
        "colour key": saved(key, "PNG", transparency=(1, 2, 3)),
        "grey": saved(grey, "PNG"),
        "grey key": saved(Pillow.fromarray(np.array([[0, 7]], np.uint8)), "PNG", transparency=7),
        "16 bits key": saved(deep, "PNG", transparency=40_000),
    }


@pytest.mark.parametrize("name", transparent())
def test_what_is_transparent_shows_white(name: str) -> None:
    content = transparent()[name]
    check(content)
    pixels, _ = decode(content)
    grey = "grey" in name or "16" in name
    assert measured(content) == (1, 2, grey)
    assert pixels.tolist() == ([[0, 255]] if grey else [[list(RED), list(WHITE)]])


def test_half_transparent_is_half_white() -> None:
    half = saved(Pillow.new("RGBA", (1, 1), (100, 0, 200, 51)), "PNG")  # a fifth
    assert np.abs(decode(half)[0][0, 0].astype(int) - (224, 204, 244)).max() <= 1


def test_what_is_served_sees_what_training_saw() -> None:
    decoder = Decoder()
    try:
        for content in (*transparent().values(), wide(STEPS, "PNG")):
            seen = decoder.picture(content, "image").pixels
            assert np.array_equal(seen, decode(content, upright=True)[0])
    finally:
        decoder.stop()
