"""PDF: the text of its pages, taken out by PDFium in a child process with limits.

PDFium is a large C++ library and a PDF can come from anywhere: a child that crashes, hangs or
takes too much memory costs one file, which is quarantined.
"""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelwright.data.operations.operation import WorkRow
from modelwright.data.parts import Piece, cut_lines, over
from modelwright.data.readers.reader import Bad, Item, Range, new_row
from modelwright.errors import MachineError

MEMORY_BYTES = 2 << 30
MAX_CHARS = 64 << 20
MAX_PAGES = 20_000
_MISSING = 4


@dataclass(frozen=True)
class Reader:
    """Documents; scanned pages hold no text and give none.

    Attributes:
        seconds: after which a document is given up.
    """

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".pdf",)
    folders: ClassVar[bool] = False
    seconds: float = 60.0

    def cut(self, path: Path) -> list[Range]:
        """One range; a plain tar is cut between members."""
        return cut_lines(path) if path.suffix.lower() == ".tar" else [Range()]

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """One row a document, pages parted by blank lines; ``meta`` holds ``pages`` and title."""
        return over(path, part, self.suffixes, self._document)

    def _document(self, piece: Piece) -> Iterator[WorkRow | Bad]:
        content = piece.whole()
        command = [sys.executable, "-m", "modelwright.data.readers.pdf"]
        try:
            child = subprocess.run(  # noqa: S603 - this module, by this interpreter
                command, input=content, capture_output=True, timeout=self.seconds, check=False
            )
        except subprocess.TimeoutExpired:
            yield Bad("", f"takes longer than {self.seconds:g} seconds")
            return
        if child.returncode == _MISSING:
            raise MachineError(
                "PDF needs pypdfium2, which is not installed: pip install 'modelwright[data]'"
            )
        if child.returncode != 0:
            lines = child.stderr.decode("utf-8", "replace").strip().splitlines()
            known = child.returncode == 1 and lines
            yield Bad("", f"not readable PDF ({lines[-1] if known else child.returncode})"[:200])
            return
        found: dict[str, Any] = json.loads(child.stdout)
        text = found.pop("text")
        if text.strip():
            yield new_row("", text=text, meta=found)
        else:
            yield Bad("", "no text: a scan needs to be recognised first")


def _extract(content: bytes) -> dict[str, Any]:
    """Text, number of pages and title of a PDF."""
    import pypdfium2  # noqa: PLC0415 - an extra

    document = pypdfium2.PdfDocument(content)
    pages, size = [], 0
    for number in range(min(len(document), MAX_PAGES)):
        text = document[number].get_textpage().get_text_bounded()
        size += len(text)
        if size > MAX_CHARS:
            raise ValueError(f"more than {MAX_CHARS} characters")
        pages.append(text.replace("\r\n", "\n").strip())
    title = document.get_metadata_dict().get("Title", "")
    spoken = "\n\n".join(page for page in pages if page)
    clean = spoken.replace("\0", "").encode("utf-8", "replace").decode()
    return {"text": clean, "pages": len(document)} | ({"title": title} if title else {})


def _main() -> int:
    """Read a PDF from standard input, write JSON to standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        found = _extract(sys.stdin.buffer.read())
    except ImportError:
        return _MISSING
    except Exception as error:  # whatever a hostile file brings about is its own reason
        sys.stderr.write(f"{' '.join(str(error).split()) or type(error).__name__}\n")
        return 1
    io.TextIOWrapper(sys.stdout.buffer, "utf-8").write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
