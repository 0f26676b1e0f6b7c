"""The program that extracts the main text of web pages; ``child.py`` speaks to it.

It imports nothing of this package, so that it starts fast. Arguments: library, seconds of
processor time a page, megabytes of memory. A request is a declared encoding, a zero byte, and
the page; an answer is "+", title, zero byte and text, or "-" and why there is none.
"""

from __future__ import annotations

import re
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

Extractor = Callable[[str], tuple[str, str]]  # page -> (title, text)

_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{0,500})", re.IGNORECASE)
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_ENDS = tuple(".!?\"'…”’。！？」』:)")


def page_text(page: bytes, declared: str) -> str:
    """The page as text: UTF-8 where it is valid, else as declared outside, inside, or guessed."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding  # noqa: PLC0415

    try:
        return page.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    inside = _META.search(page[:8192])
    for name in (declared, inside.group(1).decode("ascii", "replace") if inside else ""):
        if name and name.lower().replace("-", "") not in ("utf8", "ascii", "usascii"):
            try:
                return page.decode({"gb2312": "gb18030", "gbk": "gb18030"}.get(name.lower(), name))
            except (UnicodeDecodeError, LookupError):
                continue
    text: str = bytes_to_str(page, detect_encoding(page) or "utf-8")
    return text


def with_resiliparse() -> Extractor:
    """Fast; the lines before the first and after the last sentence go."""
    from html import unescape  # noqa: PLC0415

    from resiliparse.extract.html2text import extract_plain_text  # noqa: PLC0415

    def extract(page: str) -> tuple[str, str]:
        text = extract_plain_text(
            page, main_content=True, alt_texts=False, comments=False, post_meta=False
        )
        title = _TITLE.search(page)
        return unescape(title.group(1)).strip() if title else "", trimmed(text)

    return extract


def with_trafilatura() -> Extractor:
    """Slower and more precise."""
    import trafilatura  # noqa: PLC0415

    def extract(page: str) -> tuple[str, str]:
        found = trafilatura.bare_extraction(page, include_comments=False, favor_precision=True)
        if found is None:
            return "", ""
        return found.title or "", found.text or ""

    return extract


def trimmed(text: str) -> str:
    """The text from its first to its last line that is a sentence; all of it if there is none.

    Menus, bylines and links stand at both ends of what an extractor takes for the article. A
    sentence ends in a stop, and has five words, or ideographs among ten characters.
    """
    lines = text.split("\n")
    good = [i for i, line in enumerate(lines) if _sentence(line.strip())]
    return "\n".join(lines[good[0] : good[-1] + 1]) if good else text


def _sentence(line: str) -> bool:
    if not line.endswith(_ENDS):
        return False
    return len(line.split(None, 4)) == 5 or (len(line) >= 10 and bool(_IDEOGRAPH.search(line)))


def answer(request: bytes, extract: Extractor) -> bytes:
    """The answer to a request."""
    declared, _, page = request.partition(b"\0")
    try:
        title, text = extract(page_text(page, declared.decode("ascii", "replace")))
    except MemoryError:
        return b"-memory"
    except Exception as error:  # whatever a library meets in a strange page
        return f"-{type(error).__name__}".encode()
    title = " ".join(title.replace("\0", " ").split())
    return f"+{title}\0{text}".encode("utf-8", "replace")


def frame(stream: BinaryIO) -> bytes | None:
    """The next request; None at the end of the input."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    size = struct.unpack("<I", head)[0]
    body = stream.read(size)
    return body if len(body) == size else None


def send(stream: BinaryIO, body: bytes) -> None:
    """An answer, its length before it."""
    stream.write(struct.pack("<I", len(body)) + body)
    stream.flush()


def main(library: str, seconds: float, megabytes: int) -> None:
    """Answer until the input ends."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is beside us decides when we end
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends us
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        extract = with_trafilatura() if library == "trafilatura" else with_resiliparse()
    except ImportError as error:
        send(stdout, str(error).encode())
        return
    send(stdout, b"")
    while (request := frame(stdin)) is not None:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reply = answer(request, extract)
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(stdout, reply)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
