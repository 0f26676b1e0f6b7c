"""Pictures and recordings of strangers: as base64 or in a form, decoded in a child with limits."""

from __future__ import annotations

import base64
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelwright.data import media_child
from modelwright.data.child import Child
from modelwright.data.media_types import modality_of, sniff_mime
from modelwright.serving import limits
from modelwright.serving.openai import ApiError
from modelwright.types import Image, Sound

CPU_SECONDS = 10.0  # of decoding one file
MEGABYTES = 2048  # of memory for it
CHILDREN = 2  # programs that decode at once
PARTS = 80  # of a form
HEADERS = 2048  # bytes of the headers of a part of a form
IMAGE, SOUND = "image", "audio"
_DATA_URL = re.compile(r"data:(?P<kind>image|audio)/[\w.+-]{1,64}(;[\w=.+-]{1,64})*;base64,", re.A)


def of_text(text: str, kind: str, param: str) -> bytes:
    """The bytes of a file given as base64, or as a data URL of a kind.

    Raises:
        ApiError: it is neither; a URL of a place is never fetched.
    """
    found = _DATA_URL.match(text)
    if found is None and re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        message = f"{param}: nothing is fetched; send the file itself as base64"
        raise ApiError(400, message, param=param, code="unsupported_url")
    if found is not None and found["kind"] != kind:
        raise ApiError(400, f"{param}: {kind} is meant", param=param, code="invalid_value")
    try:
        return base64.b64decode(text[found.end() if found else 0 :], validate=True)
    except ValueError:
        raise ApiError(400, f"{param}: no base64", param=param, code="invalid_value") from None


def kind_of(content: bytes) -> str:
    """Whether a file looks like a recording; all else is taken for a picture, and must be one."""
    return SOUND if modality_of(sniff_mime(content)) == SOUND else IMAGE


_MEANT = {b"i": "picture", b"s": "recording"}
_NAMED = re.compile(r" \(\w+\)$")  # a library's class, which tells a client nothing


class Decoder:
    """Decodes files in programs of its own; only such a program is lost to a hostile file."""

    def __init__(self) -> None:
        arguments = [CPU_SECONDS, MEGABYTES, limits.PIXELS, limits.SOUND_SECONDS]
        program = Path(media_child.__file__)
        self._free = [
            Child(program, [str(a) for a in arguments], 3 * CPU_SECONDS) for _ in range(CHILDREN)
        ]
        self._places = threading.Semaphore(CHILDREN)

    def picture(self, content: bytes, param: str) -> Image:
        """The pixels of a picture.

        Raises:
            ApiError: it cannot be decoded, or costs too much.
        """
        head, numbers = self._ask(b"i", content, param)
        height, width, channels = head
        shape = (height, width, channels) if channels else (height, width)
        return Image(np.frombuffer(numbers, dtype=np.uint8).reshape(shape).copy())

    def sound(self, content: bytes, param: str) -> Sound:
        """The samples of a recording.

        Raises:
            ApiError: it cannot be decoded, or costs too much.
        """
        head, numbers = self._ask(b"s", content, param)
        return Sound(np.frombuffer(numbers, dtype=np.float32).copy(), head[0])

    def _ask(self, kind: bytes, content: bytes, param: str) -> tuple[list[int], bytes]:
        with self._places:
            child = self._free.pop()
            try:
                reply, lost = child.ask(kind + content)
            finally:
                self._free.append(child)
        if lost or not reply.startswith(b"+"):
            why = "decoding it takes too much" if lost else reply[1:].decode("utf-8", "replace")
            why = _NAMED.sub("", why)
            message = f"{param}: {why}; send a whole {_MEANT[kind]} within the limits"
            raise ApiError(400, message, param=param, code="invalid_media")
        head, _, numbers = reply[1:].partition(b"\0")
        return json.loads(head), numbers

    def stop(self) -> None:
        """End the programs, each when it has answered; a later question starts another."""
        for _ in range(CHILDREN):
            self._places.acquire()
        try:
            for child in self._free:
                child.stop()
        finally:
            self._places.release(CHILDREN)


@dataclass(frozen=True)
class FormPart:
    """A field of a form, or a file in it."""

    name: str
    filename: str | None
    content: bytes

    @property
    def text(self) -> str:
        """The field as text.

        Raises:
            ApiError: it is none.
        """
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError:
            message = f"{self.name}: not UTF-8"
            raise ApiError(400, message, param=self.name, code="invalid_value") from None


def form(content_type: str, body: bytes) -> list[FormPart]:
    """The parts of a multipart/form-data body (RFC 7578), at most PARTS.

    Raises:
        ApiError: it is none.
    """
    found = re.search(r'boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', content_type)
    if found is None:
        raise _no_form()
    mark = b"--" + (found[1] or found[2]).encode("latin-1")
    pieces = (b"\r\n" + body).split(b"\r\n" + mark, PARTS + 1)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--") or pieces[0].strip():
        raise _no_form()
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> FormPart:
    head, blank, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not blank or len(head) > HEADERS:
        raise _no_form()
    fields = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            fields = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', value))
    if "name" not in fields:
        raise _no_form()
    return FormPart(fields["name"], fields.get("filename"), content)


def _no_form() -> ApiError:
    return ApiError(400, "the body is not a valid multipart/form-data form", code="invalid_form")
