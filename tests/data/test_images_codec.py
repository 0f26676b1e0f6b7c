"""The images codec: pictures of every kind come to one size as bytes, and are scaled in batches."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from modelwright.data.archive import tar_members
from modelwright.data.codecs.images import Codec, resized
from modelwright.data.picture_settings import ImageSettings, prepared
from modelwright.data.pictures import Undecodable, check, decode, encode_png, measured
from modelwright.errors import ModelwrightError
from modelwright.types import Example, Image, ImageFile, Label, Part, Turn, stack

ROTATED = 6  # EXIF: the first row is the right side


def example(part: Part, label: str | None = None) -> Example:
    answer = (Turn("assistant", (Label(label),), True),) if label is not None else ()
    return Example((Turn("user", (part,)), *answer))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(image: Pillow.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def two(*parts: Part) -> list[Example]:
    return [example(p, "ab"[i % 2]) for i, p in enumerate(parts)]


def flowers(data: Callable[[str], Path], count: int) -> list[bytes]:
    found = tar_members(data("flowers12") / "flowers12.tar", suffix=".jpg")
    return [content for (_, content), _ in zip(found, range(count), strict=False)]


def test_arrays_keep_their_size_and_are_scaled_by_channel() -> None:
    examples = two(*(Image(noise(6, 8, i)) for i in range(6)))
    codec = Codec.fit(examples)
    encoded = codec.encode(examples[0])
    assert encoded["features"].dtype == np.uint8
    assert np.array_equal(encoded["features"], noise(6, 8, 0))
    batch = codec.tensors(stack([codec.encode(e) for e in examples], codec.ragged))
    assert batch["features"].shape == (6, 6, 8, 3)
    assert batch["features"].dtype == torch.float32
    assert batch["features"].mean((0, 1, 2)).abs().max() < 1e-5
    assert (batch["features"].std((0, 1, 2), correction=0) - 1).abs().max() < 1e-5
    assert batch["label"].tolist() == [0, 1] * 3


def test_grey_pictures_have_one_channel_unless_another_is_coloured() -> None:
    grey = noise(5, 5)[:, :, 0]
    assert Codec.fit(two(Image(grey), Image(grey[:, :, None]))).shape == (5, 5)
    mixed = Codec.fit(two(Image(grey), Image(noise(5, 5))))
    assert mixed.shape == (5, 5, 3)
    found = mixed.encode(example(Image(grey)))["features"]
    assert all(np.array_equal(found[:, :, c], grey) for c in range(3))
    assert Codec.fit(two(Image(grey), Image(grey)), channels=3).shape == (5, 5, 3)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    resize=st.sampled_from(["crop", "stretch"]),
    more=st.integers(0, 7),
)
def test_every_picture_comes_to_the_size(
    height: int, width: int, size: tuple[int, int], resize: str, more: int
) -> None:
    shortest = max(size) + more if resize == "crop" else None
    settings_ = ImageSettings(*size, shortest=shortest)
    found = prepared(noise(height, width), settings_)
    assert found.shape == (*size, 3)
    assert found.dtype == np.uint8


def test_the_middle_is_cut_out() -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 200
    assert (prepared(pixels, ImageSettings(4, 4, shortest=4)) == 200).all()
    squashed = prepared(pixels, ImageSettings(4, 4))
    assert squashed[:, 0].max() < 200


def test_files_of_every_kind_are_read(data: Callable[[str], Path]) -> None:
    whole = Pillow.open(io.BytesIO(flowers(data, 1)[0])).resize((40, 30))
    plain = np.asarray(whole)
    turned = Pillow.Exif()
    turned[0x0112] = ROTATED
    wide = np.asarray(whole.convert("L")).astype(np.uint16) << 8
    kinds = {
        "png": saved(whole, "PNG"),
        "bmp": saved(whole, "BMP"),
        "tiff": saved(whole, "TIFF"),
        "webp": saved(whole, "WEBP", lossless=True),
        "transparent": saved(whole.convert("RGBA"), "PNG"),
        "rotated": saved(whole.transpose(Pillow.Transpose.ROTATE_90), "PNG", exif=turned),
        "animated": saved(
            whole.quantize(256),
            "GIF",
            save_all=True,
            append_images=[Pillow.new("P", (40, 30))],
        ),
        "cmyk": saved(whole.convert("CMYK"), "JPEG", quality=100, subsampling=0),
        "16 bits": saved(Pillow.fromarray(wide), "PNG"),
    }
    for name, content in kinds.items():
        check(content)
        pixels, _ = decode(content, upright=True)
        height, width, grey = measured(content)
        assert (height, width) == (30, 40) == pixels.shape[:2], name
        assert grey == (pixels.ndim == 2) == (name == "16 bits"), name
        meant = np.asarray(whole.convert("L")) if grey else plain
        worst = {"cmyk": 25, "animated": 120}.get(name, 0)
        assert np.abs(pixels.astype(int) - meant).max() <= worst, name
        assert np.abs(pixels.astype(int) - meant).mean() <= {"animated": 8}.get(name, 3), name


def bomb(side: int) -> bytes:
    """A PNG that says it has side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + sum_

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_bad_files_are_refused_by_name(data: Callable[[str], Path]) -> None:
    whole = flowers(data, 1)[0]
    codec = Codec(["a", "b"], ImageSettings(8, 8))
    for name, content, why in (
        ("cut.jpg", whole[: len(whole) // 2], "cannot be decoded"),
        ("text.jpg", b"no picture at all", "cannot be decoded"),
        ("empty.png", b"", "cannot be decoded"),
        ("bomb.png", bomb(50_000), "more pixels than the limit"),
    ):
        with pytest.raises(Undecodable, match=why):
            check(content)
        with pytest.raises(ModelwrightError, match=rf"^{name}: {why}.*; give a whole picture"):
            codec.encode(example(ImageFile(content, name)))
    one = encode_png(noise(1, 1))
    assert codec.encode(example(ImageFile(one, "one.png")))["features"].shape == (8, 8, 3)


def test_arrays_that_are_no_pictures_are_refused() -> None:
    for pixels in (
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(4, np.uint8),
    ):
        with pytest.raises(ModelwrightError, match="take the task vector_classification"):
            Codec.fit(two(Image(pixels), Image(pixels)))
    with pytest.raises(ModelwrightError, match="without pixels"):
        Codec.fit(two(*[Image(np.zeros((0, 4), np.uint8))] * 2))


def test_pictures_of_two_sizes_need_a_size() -> None:
    pictures = [ImageFile(encode_png(noise(5, 6 + i)), f"{i}.png") for i in range(2)]
    with pytest.raises(ModelwrightError, match=r"0\.png has 5 x 6 and 1\.png 5 x 7; give the one"):
        Codec.fit(two(*pictures))
    assert Codec.fit(two(*pictures), size=4).shape == (4, 4, 3)
    assert Codec.fit(two(*pictures), size=(4, 3), resize="stretch").shape == (4, 3, 3)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"mean": (0.5,)}, r"codec\.mean: 1 numbers for pictures of 3 channels"),
        ({"size": 8, "shortest": 4}, "8 x 8 cannot be cut out of pictures resized to 4 x 4"),
        ({"deviation": (1.0, 0.0, 1.0)}, "deviations above 0"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], why: str) -> None:
    with pytest.raises(ModelwrightError, match=why):
        Codec.fit(two(Image(noise(8, 8)), Image(noise(8, 8, 1))), **options)  # type: ignore[arg-type]


def test_what_was_stored_is_not_prepared_again() -> None:
    codec = Codec.fit(two(Image(noise(20, 20)), Image(noise(20, 20, 1))), size=8, shortest=12)
    encoded = codec.encode(example(Image(noise(20, 20)), "b"))
    again = codec.encode(codec.example(encoded))
    assert np.array_equal(again["features"], encoded["features"])
    assert again["label"] == encoded["label"] == 1
    other = codec.encode(example(Image(np.asarray(encoded["features"]))))
    assert not np.array_equal(other["features"], encoded["features"])  # a picture of that size


def test_a_larger_picture_is_kept_of_what_is_learned_and_shows_the_same_part(
    data: Callable[[str], Path],
) -> None:
    files = [ImageFile(content, f"{i}.jpg") for i, content in enumerate(flowers(data, 4))]
    plain, codec = (Codec.fit(two(*files), size=32, **more) for more in ({}, {"stored": 96}))
    assert codec.shape == plain.shape == (32, 32, 3)
    for learned in two(*files):
        encoded = codec.encode(learned)
        assert encoded["larger"].shape == (96, 96, 3)
        assert np.array_equal(encoded["features"], plain.encode(learned)["features"])
        small = np.asarray(encoded["larger"]).reshape(32, 3, 32, 3, 3).mean((1, 3))
        assert np.abs(small - encoded["features"]).mean() < 6
    question = example(files[0])
    assert codec.encode(question).keys() == {"features", "label"}
    again = Codec.load(codec.save())
    assert again.stored == 96
    assert np.array_equal(again.encode(learned)["larger"], encoded["larger"])
    assert "stored" not in plain.save()["images.json"].decode()
    wide = Codec.fit(two(*files), size=(20, 30), stored=40)
    assert wide.encode(learned)["larger"].shape == (40, 60, 3)
    with pytest.raises(
        ModelwrightError, match=r"codec\.stored: 32 pixels are not more than the 32"
    ):
        Codec.fit(two(*files), size=32, stored=32)


def test_another_size_keeps_the_share_that_is_cut_away() -> None:
    published = ImageSettings(224, 224, shortest=256, rest={"crop_pct": 0.875, "more": 1})
    assert resized(published, (112, 112)).shortest == 128
    assert resized(published, (112, 112)).rest == {"more": 1}
    stretched = ImageSettings(224, 224, stretched=(256, 280))
    assert resized(stretched, (112, 112)).stretched == (128, 140)
    codec = Codec.around(published, two(Image(noise(2, 2)), Image(noise(2, 2))), size=112)
    assert codec.shape == (112, 112, 3)


def test_the_front_of_a_graph_does_what_tensors_does() -> None:
    examples = two(Image(noise(20, 30)), Image(noise(20, 30, 1)))
    codec = Codec.fit(examples, size=8)
    front = codec.front()
    raw = torch.from_numpy(np.concatenate([front.raw(e)["features"] for e in examples]))
    meant = codec.tensors(stack([codec.encode(e) for e in examples], codec.ragged))
    assert torch.allclose(front(raw)["features"], meant["features"], atol=1e-6)
    assert front.reads[0].shape == ("batch", 8, 8, 3)
