"""Checks of images and recordings, on real ones and on real ones that were damaged."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data import pictures, sounds
from modelwright.data.archive import tar_members
from modelwright.data.operations import audio, images
from modelwright.data.readers.reader import new_row

PIL = pytest.importorskip("PIL.Image")


def picked(path: Path, suffix: str, count: int, step: int = 1) -> list[tuple[str, bytes]]:
    return list(islice(tar_members(path, suffix=suffix), 0, count * step, step))


def judged(module: Any, row: dict[str, Any], **settings: Any) -> tuple[str | None, dict[str, Any]]:
    return module.Operation(**settings).begin()(row), row["attributes"]


def image(content: bytes) -> dict[str, Any]:
    return new_row("1", "image", media=content)


def sound(content: bytes, text: str | None = None) -> dict[str, Any]:
    return new_row("1", "audio", media=content, text=text)


def jpeg(pixels: Any, quality: int = 75) -> bytes:
    out = io.BytesIO()
    PIL.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.fixture(scope="module")
def flowers(data: Callable[[str], Path]) -> list[Any]:
    members = picked(data("flowers12/flowers12.tar"), ".jpg", 24, 8)
    return [pictures.decode(content)[0] for _, content in members]


# -- images -----------------------------------------------------------------------------------


def test_real_images_pass_and_are_measured(data: Callable[[str], Path]) -> None:
    for name, content in picked(data("bccd/BCCD.tar"), ".jpg", 10, 7):
        reason, found = judged(images, image(content), shortest=480, aspect=1.5)
        assert reason is None, name
        assert (found["images.width"], found["images.height"]) == (640, 480)
        assert (found["images.format"], found["images.aspect"]) == ("JPEG", 640 / 480)
        assert len(found["images.phash"]) == 16
    for _, content in picked(data("cifar10/cifar10_train.tar.xz"), ".jpg", 20):
        assert judged(images, image(content))[0] is None
        assert judged(images, image(content), shortest=33)[0] == "image too small"
        assert judged(images, image(content), longest=31)[0] == "image too large"


def test_every_truncation_and_most_flipped_bits_of_a_png_are_found(flowers: list[Any]) -> None:
    """A PNG has checksums; of a JPEG, which has none, the truncation alone is sure to be seen."""
    png = pictures.encode_png(flowers[0][:64, :64])
    for end in range(1, len(png) - 12, len(png) // 40):
        assert judged(images, image(png[:end]))[0] == "image cannot be decoded"
    rng = np.random.default_rng(1)
    found = 0
    for at in rng.integers(8, len(png) - 12, size=60):
        broken = bytearray(png)
        broken[at] ^= 1 << int(rng.integers(8))
        found += judged(images, image(bytes(broken)))[0] is not None
    assert found == 60
    photo = jpeg(flowers[0])
    for share in (0.1, 0.5, 0.9):
        reason, attributes = judged(images, image(photo[: int(share * len(photo))]))
        assert reason == "image cannot be decoded"
        assert attributes["images.problem"].startswith("cannot be decoded")


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"]),
)
def test_no_bytes_do_harm(rest: bytes, begin: bytes) -> None:
    refused = ("image cannot be decoded", "no image", "more pixels than the limit")
    assert judged(images, image(begin + rest))[0] in refused


def test_a_bomb_is_not_unpacked() -> None:
    """One gigapixel in a kilobyte: refused by its header."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 40_000, 25_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    assert judged(images, image(bomb))[0] in (
        "more pixels than the limit",
        "image cannot be decoded",
    )
    small = pictures.encode_png(np.zeros((100, 100), np.uint8))
    assert judged(images, image(small), pixels=9999)[0] == "more pixels than the limit"
    assert judged(images, image(small), pixels=10_000)[0] is None


def test_other_rows_and_empty_ones() -> None:
    assert judged(images, new_row("1", "text", text="a")) == (None, {})
    assert judged(images, image(b""))[0] == "no image"
    assert judged(audio, new_row("1", "image", media=b"x")) == (None, {})
    assert judged(audio, sound(b""))[0] == "no recording"


def test_blur_lowers_the_sharpness_and_leaves(flowers: list[Any]) -> None:
    from PIL import ImageFilter

    for pixels in flowers:
        soft = np.asarray(PIL.fromarray(pixels).filter(ImageFilter.GaussianBlur(6)))
        sharp, blurred = pictures.sharpness(pixels), pictures.sharpness(soft)
        assert blurred < 0.1 * sharp
        limit = (sharp + blurred) / 2
        assert (
            judged(images, image(pictures.encode_png(soft)), sharpness=limit)[0] == "image blurred"
        )
        assert judged(images, image(pictures.encode_png(pixels)), sharpness=limit)[0] is None


def test_the_sharpness_is_the_variance_of_the_laplacian() -> None:
    spot = np.zeros((5, 5), np.uint8)
    spot[2, 2] = 10  # the Laplacian inside: -40 once, 10 four times, 0 four times
    values = [-40.0, *[10.0] * 4, *[0.0] * 4]
    assert pictures.sharpness(spot) == pytest.approx(np.var(values))
    assert pictures.sharpness(np.zeros((2, 9), np.uint8)) == 0


@pytest.mark.parametrize("hashed", [pictures.phash, pictures.dhash])
def test_copies_have_near_hashes_and_others_far_ones(
    flowers: list[Any], hashed: Callable[[Any], int]
) -> None:
    """Half the size, strong compression, brighter: what a copy on the web goes through."""
    near, far = [], []
    for i, pixels in enumerate(flowers):
        copies = [
            pictures.resized(pixels, pixels.shape[1] // 2, pixels.shape[0] // 2),
            pictures.decode(jpeg(pixels, 30))[0],
            np.clip(pixels.astype(int) * 9 // 8 + 5, 0, 255).astype(np.uint8),
        ]
        near += [pictures.distance(hashed(pixels), hashed(copy)) for copy in copies]
        far += [pictures.distance(hashed(pixels), hashed(other)) for other in flowers[:i]]
    assert np.mean(np.array(near) <= 10) > 0.95
    assert np.mean(np.array(far) <= 10) < 0.02
    assert hashed(flowers[0]) == hashed(flowers[0].copy()) < 2**64


def test_grey_and_palettes_and_depths_are_read() -> None:
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    wide = PIL.fromarray(levels.astype(np.uint16) * 257)
    for mode in ("L", "P", "RGBA", "LA", "CMYK", "1"):
        out = io.BytesIO()
        PIL.fromarray(levels).convert(mode).save(out, "TIFF" if mode == "CMYK" else "PNG")
        found, _ = pictures.decode(out.getvalue())
        assert found.shape[:2] == (8, 8)
    out = io.BytesIO()
    wide.save(out, "PNG")
    assert np.array_equal(pictures.decode(out.getvalue())[0], levels)


# -- sounds -----------------------------------------------------------------------------------


def recordings(data: Callable[[str], Path], count: int) -> list[bytes]:
    return [content for _, content in picked(data("fsdd/recordings.tar.xz"), ".wav", count)]


def test_real_recordings_pass(data: Callable[[str], Path]) -> None:
    for content in recordings(data, 40):
        reason, found = judged(audio, sound(content), rates=(8000,), silence=0.9, clipping=0.01)
        assert reason is None
        assert (found["audio.rate"], found["audio.channels"]) == (8000, 1)
        assert found["audio.seconds"] == (len(content) - 44) / 16000
        assert judged(audio, sound(content), rates=(16000,))[0] == "sample rate"
        half = content[: len(content) // 2]
        assert judged(audio, sound(half))[0] == "recording cannot be decoded"


def test_transcripts_fit_their_recordings(data: Callable[[str], Path]) -> None:
    """Each of Kathleen's sentences is read at 8 to 25 characters a second; a wrong one is not."""
    pytest.importorskip("soundfile")
    lines = data("kathleen/metadata.csv").read_text(encoding="utf-8").splitlines()[1:]
    texts = dict(line.split("|", 1) for line in lines)
    for name, content in picked(data("kathleen/audio.tar"), ".flac", 12):
        text = texts[Path(name).stem]
        reason, found = judged(audio, sound(content, text), slowest=8, fastest=25, transcript=True)
        assert reason is None, (name, found)
        assert found["audio.rate"] == 16000
        for wrong in ("No.", text * 4):
            reason, _ = judged(audio, sound(content, wrong), slowest=8, fastest=25)
            assert reason == "transcript does not fit the length"
        assert judged(audio, sound(content), transcript=True)[0] == "no transcript"
        cut = content[: len(content) // 2]
        assert judged(audio, sound(cut, text))[0] == "recording cannot be decoded"


def tone(seconds: float, rate: int = 8000, loud: float = 0.5) -> Any:
    return loud * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def test_silence_clipping_and_length() -> None:
    half = np.concatenate([tone(1.0), np.zeros(8000)])
    assert sounds.silent_share(half, 8000) == 0.5
    assert sounds.silent_share(np.zeros(800), 8000) == 1.0
    assert judged(audio, sound(sounds.encode_wav(half, 8000)), silence=0.4)[0] == "mostly silent"
    clipped = np.clip(tone(1.0, loud=3.0), -1, 1)
    share = float((np.abs(clipped) >= 0.999).mean())
    assert sounds.clipped_share(clipped) == pytest.approx(share, abs=0.01)
    assert sounds.clipped_share(tone(1.0, loud=1.0)) < 0.02  # a peak is no clipping
    assert judged(audio, sound(sounds.encode_wav(clipped, 8000)), clipping=0.1)[0] == "clipped"
    short = sounds.encode_wav(tone(0.2), 8000)
    assert judged(audio, sound(short), shortest=0.3)[0] == "recording too short"
    assert judged(audio, sound(short), longest=0.1)[0] == "recording too long"
    assert sounds.level(tone(1.0, loud=1.0)) == pytest.approx(-3.01, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 3), st.sampled_from([8000, 16000, 44100]), st.integers(0, 9)
)
def test_what_is_written_is_read(length: int, channels: int, rate: int, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-1, 1, size=(length, channels))
    found, at = sounds.decode(sounds.encode_wav(samples, rate))
    assert (found.shape, at) == ((length, channels), rate)
    assert np.abs(found - samples).max() <= 2**-15


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_depth_of_pcm(width: int) -> None:
    import wave

    values = np.array([-1.0, -0.5, 0.0, 0.5])
    whole = np.rint(values * 2 ** (8 * width - 1)).astype(np.int64)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(8000)
        offset = 128 if width == 1 else 0
        file.writeframes(
            b"".join(int(v + offset).to_bytes(width, "little", signed=width > 1) for v in whole)
        )
    assert np.allclose(sounds.decode(out.getvalue())[0][:, 0], values)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"ID3\x03"]))
def test_no_bytes_do_harm_as_sound(rest: bytes, begin: bytes) -> None:
    pytest.importorskip("soundfile")
    reason, _ = judged(audio, sound(begin + rest))
    assert reason in ("recording cannot be decoded", "no recording", "recording too long", None)
