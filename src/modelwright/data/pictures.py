"""Images between files and arrays: decoded whole or refused, measured, hashed, written.

What they are decoded to is what Pillow gives: CMYK by its plain formula, colours of 16 bits by
their upper 8. Greys of 16 bits are brought to 8 the same way, by the range of 16 bits and not by
what one picture has of it, so that pictures stay comparable; what is transparent shows white.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import MachineError, ModelwrightError

if TYPE_CHECKING:
    from modelwright.types import Array

PIXELS = 50_000_000  # more in one image is taken for a bomb
# Formats whose decoders read pixels and run nothing: EPS, for one, would start an interpreter.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # Pillow's modes of more than 8 bits
GREY = ("1", "L", "LA", "La", *WIDE)  # and of pictures without colours
ORIENTATION = 0x0112  # the EXIF tag
SHARP_SIDE = 512  # images are brought to this longer side before their sharpness is measured
SIXTEEN = 2**16 - 1  # the largest number of 16 bits
HASH_SIDE = 32  # and to this square before they are hashed


class Undecodable(ModelwrightError):
    """Bytes that are no whole image, or sound, that can be decoded."""


class OutOfRange(Undecodable):
    """Numbers whose range does not say what is black and what is white; the message says more."""


def pillow() -> Any:
    """Pillow's ``Image`` module.

    Raises:
        MachineError: it is not installed.
    """
    try:
        from PIL import Image  # noqa: PLC0415
    except ImportError as error:
        raise MachineError("images need Pillow: pip install 'modelwright[data]'") from error
    return Image


@contextmanager
def decoding() -> Iterator[None]:
    """Whatever a decoder raises or warns of, in a damaged file, as one error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="Image size", category=Warning)
            yield
    except (MemoryError, ModelwrightError):
        raise
    except Exception as error:  # decoders raise nearly anything when bytes are wrong
        if type(error).__name__ == "DecompressionBombError":  # Pillow's own limit, by the header
            raise Undecodable("more pixels than the limit") from error
        raise Undecodable(f"cannot be decoded ({type(error).__name__})") from error


def decode(
    content: bytes, *, pixels: int = PIXELS, upright: bool = False
) -> tuple[NDArray[np.uint8], str]:
    """The pixels (height, width, 3), or (height, width) of a grey image, and the format's name.

    The size is read from the header and compared before anything is unpacked. What is transparent
    is laid over white; of an animation the first picture is taken. Of 16 bits the upper 8 are
    kept, floating-point values 0..1 become 0..255. ``upright`` turns the picture as its EXIF
    orientation says.

    Raises:
        Undecodable: damaged, cut short, of no known format, or of more than ``pixels`` pixels.
        OutOfRange: values that neither 8 nor 16 bits nor 0..1 explain.
    """
    image_module = pillow()
    with decoding():
        with image_module.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(image, pixels)
            kind = str(image.format)
            image.verify()  # checksums, where the format has them
        with image_module.open(io.BytesIO(content), formats=FORMATS) as opened:
            image = opened
            image.load()
            image = _turned(image) if upright else image
            if image.mode in WIDE:
                found = _narrowed(np.asarray(image), image.info.get("transparency"))
            else:
                found = np.asarray(_opaque(image))
    return found, kind


def _opaque(image: Any) -> Any:
    """A picture of mode L or RGB, what is transparent laid over white."""
    wanted = "L" if image.mode in GREY else "RGB"
    if not image.has_transparency_data and image.mode not in ("La", "RGBa"):
        return image.convert(wanted)
    if image.mode == "La":  # which Pillow brings to no other mode
        image = image.convert("LA")
    image = image.convert("RGBA")
    module = pillow()
    white = module.new("RGBA", image.size, "white")
    return module.alpha_composite(white, image).convert(wanted)


def _narrowed(values: Array, transparent: int | None = None) -> NDArray[np.uint8]:
    """Grey values (height, width) of more than 8 bits as bytes.

    Whole numbers are those of 16 bits, 0..65535, of which the upper 8 bits are kept; floating-point
    ones lie in 0..1. ``transparent`` is the value that shows the white behind it.

    Raises:
        OutOfRange: others; or whole numbers that would all be black.
    """
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if np.issubdtype(values.dtype, np.floating):
        if not (low >= 0 and high <= 1):  # so for NaN, too
            raise OutOfRange(
                "floating-point values that are not in 0..1; scale them to 0..1, or save the"
                " picture in 8 or 16 bits"
            )
        scaled: NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
        return scaled
    if low < 0 or high > SIXTEEN:
        raise OutOfRange(
            f"whole numbers outside 0..{SIXTEEN}; scale them to that range, or save the picture in"
            " 8 bits"
        )
    if 0 < high <= SIXTEEN >> 8:
        raise OutOfRange(
            f"16 bits a pixel of which none is above {SIXTEEN >> 8}, all black; save the picture in"
            f" 8 bits, or scale it to 0..{SIXTEEN}"
        )
    found: NDArray[np.uint8] = (values >> 8).astype(np.uint8)
    if transparent is not None:
        found[values == transparent] = 255
    return found


def measured(content: bytes, *, pixels: int = PIXELS) -> tuple[int, int, bool]:
    """Height and width of the upright picture, and whether it is grey; from its header alone.

    Raises:
        Undecodable: of no known format, or of more than ``pixels`` pixels.
    """
    with decoding(), pillow().open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = _check_size(image, pixels)
        lying = image.getexif().get(ORIENTATION, 1) in range(5, 9)
        grey = image.mode in GREY
    return (width, height, grey) if lying else (height, width, grey)


def check(content: bytes, *, pixels: int = PIXELS) -> None:
    """Read a picture to its end; a JPEG at an eighth of its size, which is quicker.

    Raises:
        Undecodable, OutOfRange: as ``decode``.
    """
    module = pillow()
    with decoding():
        with module.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = _check_size(image, pixels)
            image.verify()
        with module.open(io.BytesIO(content), formats=FORMATS) as image:
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            image.load()
            if image.mode in WIDE:
                _narrowed(np.asarray(image))


def _check_size(image: Any, pixels: int) -> tuple[int, int]:
    width, height = image.size
    if width * height > pixels:
        raise Undecodable("more pixels than the limit")
    return width, height


def _turned(image: Any) -> Any:
    """The picture as its EXIF orientation says."""
    from PIL import ImageOps  # noqa: PLC0415 - of an extra

    return ImageOps.exif_transpose(image)


def encode_png(pixels: Array) -> bytes:
    """The pixels, uint8 (height, width) or (height, width, 3), as a PNG file."""
    out = io.BytesIO()
    pillow().fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def resized(pixels: Array, width: int, height: int) -> NDArray[np.uint8]:
    """The image in another size, each new pixel the mean of the area it covers, or nearest."""
    module = pillow()
    shrinks = width <= pixels.shape[1] and height <= pixels.shape[0]
    method = module.Resampling.BOX if shrinks else module.Resampling.BILINEAR
    return np.asarray(module.fromarray(pixels).resize((width, height), method))


def cut(pixels: Array, box: Array, height: int, width: int) -> NDArray[np.uint8]:
    """A part of an image in another size, bilinear, over all that a new pixel covers.

    Args:
        pixels: uint8 (H, W, C).
        box: left, top, right and bottom of the part, in pixels and fractions of them.
        height: of what is returned, (height, width, C).
        width: of what is returned.
    """
    module = pillow()
    method, sides = module.Resampling.BILINEAR, tuple(map(float, box))
    planes = [pixels] if pixels.shape[2] == 3 else list(np.moveaxis(pixels, 2, 0))
    found = [module.fromarray(p).resize((width, height), method, box=sides) for p in planes]
    return np.dstack([np.asarray(image) for image in found])


def grey(pixels: Array) -> Array:
    """Luma Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601) in 0..255, float32."""
    if pixels.ndim == 2:
        return pixels.astype(np.float32)
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.asarray(pixels[..., :3].astype(np.float32) @ weights)


def sharpness(pixels: Array) -> float:
    """Variance of the Laplacian of the luma, in squared levels: low where nothing has an edge.

    The Laplacian is the sum of the four neighbours less four times the pixel (Pech-Pacheco et
    al., 2000). Images longer than ``SHARP_SIDE`` are brought to it first, since the measure
    depends on how many pixels an edge is spread over. Less than 3 x 3 pixels give 0.
    """
    height, width = pixels.shape[:2]
    longer = max(height, width)
    if longer > SHARP_SIDE:
        scale = SHARP_SIDE / longer
        pixels = resized(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    y = grey(pixels)
    if min(y.shape) < 3:
        return 0.0
    edges = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    return float(edges.var(dtype=np.float64))


def phash(pixels: Array) -> int:
    """A 64-bit hash that a change of size, compression or brightness hardly alters.

    The luma in 32 x 32 pixels, its cosine transform (DCT-II), and of the coefficients (1, 1) to
    (8, 8), which leave out brightness, whether each is above their median (Zauner, 2010).
    """
    small = grey(resized(pixels, HASH_SIDE, HASH_SIDE)).astype(np.float64)
    basis = _cosines(HASH_SIDE)[1:9]
    found = basis @ small @ basis.T
    return _as_int(found > np.median(found))


def dhash(pixels: Array) -> int:
    """A 64-bit hash of where the luma rises from left to right in 9 x 8 pixels; quicker."""
    small = grey(resized(pixels, 9, 8))
    return _as_int(small[:, 1:] > small[:, :-1])


def distance(a: int, b: int) -> int:
    """In how many of their bits two hashes differ; of images that look alike, some 10 at most."""
    return (a ^ b).bit_count()


def _as_int(bits: Array) -> int:
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


@lru_cache(maxsize=4)
def _cosines(size: int) -> NDArray[np.float64]:
    """The matrix C of the DCT-II: C[k, n] = cos(π k (2 n + 1) / (2 size))."""
    n = np.arange(size)
    return np.asarray(np.cos(math.pi / (2 * size) * n[:, None] * (2 * n[None, :] + 1)))
