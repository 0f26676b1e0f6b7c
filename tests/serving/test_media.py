"""S7 to S9: strangers' files, decoded in a child with limits, and never fetched."""

from __future__ import annotations

import base64
import io
import struct
import wave
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.pictures import encode_png
from modelwright.serving import limits
from modelwright.serving.media import Decoder, form, kind_of, of_text
from modelwright.serving.openai import ApiError


@pytest.fixture(scope="module")
def decoder():
    decoder = Decoder()
    yield decoder
    decoder.stop()


def drawn(mode: str, size: tuple[int, int], kind: str, **given) -> bytes:
    from PIL import Image

    written = io.BytesIO()
    filled = {"L": 3, "P": 3, "I;16": 3 << 8}.get(mode)
    Image.new(mode, size, filled).save(written, kind, **given)
    return written.getvalue()


def sound(seconds: float = 0.1, rate: int = 8000) -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.full((int(seconds * rate), 2), 16384, np.int16).tobytes())
    return written.getvalue()


def png_of(width: int, height: int) -> bytes:
    """The header of a picture of any size, and next to no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_pictures_of_every_kind_are_pixels(decoder):
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    found = decoder.picture(encode_png(pixels), "image")
    assert found.pixels.tolist() == pixels.tolist()
    kinds = [(mode, "PNG") for mode in ("L", "I;16", "P", "RGBA", "1")]
    for mode, kind in [*kinds, ("CMYK", "JPEG"), ("RGB", "GIF"), ("RGB", "WEBP"), ("L", "BMP")]:
        found = decoder.picture(drawn(mode, (1, 1), kind), "image")
        assert found.pixels.dtype == np.uint8 and found.pixels.shape[:2] == (1, 1)
    animated = drawn("RGB", (3, 2), "GIF", save_all=True, append_images=[])
    assert decoder.picture(animated, "image").pixels.shape[:2] == (2, 3)


BAD = {
    "empty": b"",
    "text": b"hello",
    "truncated": drawn("RGB", (64, 64), "PNG")[:80],
    "bomb": png_of(50_000, 50_000),
    "a little too large": png_of(10_000, limits.PIXELS // 10_000 + 1),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "mislabelled": b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_400_in_fixed_words(decoder, name):
    with pytest.raises(ApiError) as error:
        decoder.picture(BAD[name], "image")
    assert (error.value.status, error.value.code) == (400, "invalid_media")
    assert error.value.param == "image"
    assert "0x" not in error.value.message and "\n" not in error.value.message  # no address
    assert decoder.picture(drawn("RGB", (2, 2), "PNG"), "image").pixels.shape == (2, 2, 3)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]), st.data())
def test_damaged_pictures_are_refused_or_read(decoder, kind, data):
    content = bytearray(drawn("RGB", (16, 16), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decoder.picture(bytes(content), "image").pixels.size
    except ApiError as error:
        assert error.status == 400


def test_sound_is_one_channel_and_long_or_damaged_sound_is_refused(decoder, monkeypatch):
    found = decoder.sound(sound(), "audio")
    assert (len(found.samples), found.rate) == (800, 8000)
    assert found.samples == pytest.approx(0.5)
    for bad in (b"", b"RIFF", sound()[:50], b"OggS" + bytes(99), b"fLaC" + bytes(99)):
        with pytest.raises(ApiError) as error:
            decoder.sound(bad, "audio")
        assert error.value.code == "invalid_media"
    # A day, by its header alone; and a length left open by a pipe, which is what there is.
    long = bytearray(sound())
    long[40:44] = long[4:8] = struct.pack("<I", 2**30)
    with pytest.raises(ApiError):
        decoder.sound(bytes(long), "audio")
    long[40:44] = long[4:8] = struct.pack("<I", 2**32 - 100)
    assert len(decoder.sound(bytes(long), "audio").samples) == 800


def test_a_program_that_is_lost_costs_its_own_request_alone(decoder):
    child = decoder._free[-1]
    decoder.picture(drawn("RGB", (2, 2), "PNG"), "image")
    child._process.kill()
    with pytest.raises(ApiError, match="takes too much"):
        decoder.picture(drawn("RGB", (2, 2), "PNG"), "image")
    assert decoder.picture(drawn("RGB", (2, 2), "PNG"), "image").pixels.shape == (2, 2, 3)


def test_its_programs_end_with_the_model_and_are_there_again_when_asked():
    decoder, picture = Decoder(), drawn("RGB", (3, 2), "PNG")
    assert decoder.picture(picture, "file").pixels.shape == (2, 3, 3)
    (process,) = [child._process for child in decoder._free if child._process is not None]
    decoder.stop()
    assert process.poll() is not None
    assert decoder.picture(picture, "file").pixels.shape == (2, 3, 3)
    decoder.stop()


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/a.png", "https://169.254.169.254/latest", "http://[::ffff:10.0.0.1]/",
     "http://2130706433/", "http://0x7f.1/", "http://a@127.0.0.1/", "file:///etc/passwd",
     "unix:/run/x", "http:\\\\127.0.0.1", "gopher://x", "ftp://x", "data:text/plain;base64,aGk=",
     "data:audio/wav;base64,aGk="],
)  # fmt: skip
def test_nothing_is_fetched(url):
    with pytest.raises(ApiError) as error:
        of_text(url, "image", "inputs[0]")
    assert error.value.status == 400 and error.value.param == "inputs[0]"


def test_base64_is_read_plain_and_as_a_data_url():
    encoded = base64.b64encode(b"abc").decode()
    assert of_text(encoded, "image", "x") == b"abc"
    assert of_text(f"data:image/png;base64,{encoded}", "image", "x") == b"abc"
    with pytest.raises(ApiError, match="no base64"):
        of_text("ab*c", "image", "x")


def test_kinds_are_known_by_their_first_bytes():
    assert kind_of(sound()) == "audio" and kind_of(b"fLaC123") == "audio"
    assert kind_of(drawn("RGB", (1, 1), "WEBP")) == "image" and kind_of(b"?") == "image"


def written(boundary: str, *parts: tuple[str, bytes]) -> bytes:
    made = b""
    for head, content in parts:
        made += f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"
    return made + f"--{boundary}--\r\n".encode()


@given(st.binary(max_size=200).filter(lambda b: b"--XyZ" not in b), st.text("abcé ", max_size=9))
def test_forms_are_read_as_they_were_written(content, text):
    body = written(
        "XyZ",
        (
            'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: x',
            content,
        ),
        ('content-disposition: form-data; name="text"', text.encode()),
    )
    file, field = form('multipart/form-data; boundary="XyZ"', body)
    assert (file.name, file.filename, file.content) == ("file", "a.png", content)
    assert (field.name, field.filename, field.text) == ("text", None, text)
    assert form("multipart/form-data; boundary=XyZ", body)[1] == field


@pytest.mark.parametrize(
    "body",
    [b"", b"--X", b"--X--", b"--X\r\n\r\n--X", b"junk--X\r\n\r\nx\r\n--X--",
     b"--X\r\nno-name: 1\r\n\r\nx\r\n--X--", b"--X\r\n" + b"a" * 3000 + b"\r\n\r\nx\r\n--X--",
     b"--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n" * 100 + b"--X--"],
    ids=lambda b: b[:12].decode(),
)  # fmt: skip
def test_what_is_no_form_is_400(body):
    for kind in ("multipart/form-data; boundary=X", "multipart/form-data",
                 f"multipart/form-data; boundary={'x' * 99}"):  # fmt: skip
        try:
            assert form(kind, body) == []
        except ApiError as error:
            assert (error.status, error.code) == (400, "invalid_form")


def test_a_field_that_is_no_text_is_400():
    body = written("X", ('Content-Disposition: form-data; name="text"', b"\xff"))
    (part,) = form("multipart/form-data; boundary=X", body)
    with pytest.raises(ApiError, match="not UTF-8"):
        assert part.text
