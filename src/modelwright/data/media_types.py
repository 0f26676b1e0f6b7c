"""What bytes are: the type of a picture, sound or document by its first bytes."""

from __future__ import annotations

IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".opus")
# Sound, or pictures that move with it, in kinds of files that are not read: convert these.
UNREAD_SOUNDS = (
    *(".m4a", ".m4b", ".mp4", ".m4v", ".aac", ".ac3", ".aif", ".aiff", ".aifc", ".caf", ".au"),
    *(".oga", ".ogv", ".spx", ".webm", ".weba", ".mka", ".mkv", ".mov", ".avi", ".3gp", ".flv"),
    *(".wma", ".amr", ".mp2", ".mpga", ".ape", ".wv"),
)
_MARKS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"P6", "image/x-portable-pixmap"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"%PDF-", "application/pdf"),
)


def sniff_mime(content: bytes) -> str:
    """The media type of bytes by their beginning; application/octet-stream where unknown."""
    if content[:4] == b"RIFF":
        kinds = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}
        return kinds.get(content[8:12], "application/octet-stream")
    for mark, mime in _MARKS:
        if content.startswith(mark):
            return mime
    if _is_mpeg(content):
        return "audio/mpeg"
    head = content[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    return "application/octet-stream"


def _is_mpeg(content: bytes) -> bool:
    """Whether bytes begin as a frame of MPEG audio (ISO 11172-3, 13818-3), such as an MP3's, does.

    Eleven bits of 1, then two of the version and two of the layer, of which one value each is
    reserved; so are the highest bit rate and sampling rate of the third byte.
    """
    first, second, third = content[:3].ljust(3, b"\0")
    version, layer = second >> 3 & 3, second >> 1 & 3
    rate, sampling = third >> 4, third >> 2 & 3
    known = version != 1 and layer != 0 and rate != 15 and sampling != 3
    return first == 0xFF and second & 0xE0 == 0xE0 and known


def modality_of(mime: str) -> str:
    """image, audio, or text: what a row with such media is."""
    kind = mime.partition("/")[0]
    return kind if kind in ("image", "audio") else "text"
