"""From tokens to text as they come: whole characters only, and stop texts taken out."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """The text of one answer, given out in pieces.

    Bytes that do not yet make a whole UTF-8 character are held back, and so is text that may
    turn out to begin a stop text. The pieces depend on how the bytes arrive, their sum does
    not: the answer ends where the first stop text to be complete begins. Stop texts that are set
    later are looked for in what comes then.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, spelled: bytes) -> str:
        """Take more bytes and return the text that is now certain."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(spelled)
        ends = [(at + len(s), at) for s in self.stop if (at := self._held.find(s)) >= 0]
        if ends:
            self.stopped = True
            certain, self._held = self._held[: min(ends)[1]], ""
            return certain
        keep = self._may_begin_stop()
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return certain

    def close(self) -> str:
        """The text still held back when the answer ends; half a character is dropped."""
        rest, self._held = self._held, ""
        return rest

    def _may_begin_stop(self) -> int:
        """The length of the longest end of the held text that begins a stop text."""
        longest = max((len(s) for s in self.stop), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-size:]) for s in self.stop):
                return size
        return 0
