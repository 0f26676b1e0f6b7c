"""The main text of web pages; other rows pass."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from modelwright.data import page_child
from modelwright.data.child import DIED, HUNG, Child
from modelwright.data.operations.operation import Step, WorkRow
from modelwright.errors import MachineError, ModelwrightError

PAGES = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True)
class Operation:
    """Settings of the step ``extract``.

    The library works in a child process (``page_child.py``), which is kept from page to page and
    replaced when it is lost; a page on which it hangs or dies leaves.

    Attributes:
        library: "resiliparse" (fast) or "trafilatura" (more precise, a tenth of the speed). The
            flags of the one and the mode of the other were chosen after looking at all 181 pages
            that ``benchmarks/data/extraction.py`` measures.
        seconds: processor time a page may take; ten times as much by the clock, and 30 more.
        memory_mb: memory the child may take, libraries included.
        page_mb: greatest size of a page.
    """

    library: Literal["resiliparse", "trafilatura"] = "resiliparse"
    seconds: float = 2.0
    memory_mb: int = 1024
    page_mb: float = 16.0

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.page_mb <= 0 or self.memory_mb < 256:
            raise ModelwrightError(
                "step extract: seconds and page_mb must be above 0, memory_mb at least 256"
            )

    def assets(self) -> dict[str, str]:
        """The version of the library: another one extracts otherwise."""
        return {self.library: importlib.metadata.version(self.library)} if self._there() else {}

    def begin(self) -> Step:
        """Returns the step; the child starts with the first page.

        Raises:
            MachineError: the library is not installed.
        """
        if not self._there():
            raise MachineError(
                f"step extract: {self.library} is missing: pip install 'modelwright[data]'"
            )
        arguments = (self.library, str(self.seconds), str(self.memory_mb))
        child = Child(Path(page_child.__file__), arguments, 10 * self.seconds + 30)
        most = int(self.page_mb * (1 << 20))

        def step(row: WorkRow) -> str | None:
            if row.get("mime") not in PAGES:
                return None
            page = _page(row)
            if page is None:
                return None
            if len(page) > most:
                return "page too large"
            return _extract(row, page, child)

        return step

    def _there(self) -> bool:
        # Resiliparse also tells the encoding of a page.
        needs = {"resiliparse", self.library}
        return all(importlib.util.find_spec(name) is not None for name in needs)


def _page(row: WorkRow) -> bytes | None:
    """The page of a row: its bytes, or a text that is still HTML."""
    if row.get("media") is not None:
        return bytes(row["media"])
    text = row.get("text")
    return text.encode("utf-8", "replace") if isinstance(text, str) else None


def _extract(row: WorkRow, page: bytes, child: Child) -> str | None:
    meta = row.get("meta")
    declared = str(meta.get("charset") or "") if isinstance(meta, dict) else ""
    request = declared.encode("ascii", "replace").replace(b"\0", b"") + b"\0" + page
    others = child.answered
    answer, lost = child.ask(request)
    if others and (lost == DIED or answer == b"-memory"):
        # Perhaps the pages before it left too little memory: once more, alone.
        child.stop()
        answer, lost = child.ask(request)
    if answer == b"-memory":
        child.stop()
    attributes = row.setdefault("attributes", {})
    attributes["extract.page_bytes"] = len(page)
    if lost == HUNG:
        return "extractor hung"
    if lost or not answer.startswith(b"+"):
        attributes["extract.error"] = lost or answer[1:].decode("utf-8", "replace")
        return "extractor failed"
    title, _, text = answer[1:].decode("utf-8").partition("\0")
    if not text.strip():
        return "no main text"
    row["text"], row["media"], row["mime"] = text, None, "text/plain"
    attributes["extract.share"] = len(text.encode()) / len(page)
    if title:
        attributes["extract.title"] = title
    return None
