"""What bytes are: the type of a picture, sound or document by its first bytes."""

from __future__ import annotations

IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".opus")
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
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
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
    head = content[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    return "application/octet-stream"


def modality_of(mime: str) -> str:
    """image, audio, or text: what a row with such media is."""
    kind = mime.partition("/")[0]
    return kind if kind in ("image", "audio") else "text"
