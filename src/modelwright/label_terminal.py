"""Labelling on the terminal: one row at a time, one key a label, nothing to confirm.

The terminal is put into raw mode and given back whatever happens. What a row holds is shown
without its control characters: a text from the web must not move the cursor or set the title.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
import unicodedata
from collections.abc import Iterator, Sequence

from modelwright.data.labelling.items import text_of
from modelwright.data.labelling.keys import BACK, FORWARD, QUIT, SKIP, UNDO, keys_of, label_for
from modelwright.data.labelling.session import Session
from modelwright.errors import ModelwrightError

_OPEN, _CLOSE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # a screen of our own, no cursor
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_KEYS = {
    "\x1b[D": BACK,
    "\x1b[C": FORWARD,
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    " ": "page down",
    "\x03": QUIT,
    "\x04": QUIT,
    "\x1b": QUIT,
}
_SHOWN = {"Cf": "", **dict.fromkeys(("Cc", "Cs", "Co", "Cn", "Zl", "Zp"), "\ufffd")}
_ROWS_OF_FRAME = 6  # lines of the screen that are not the text's


def label_rows(session: Session, column: str = "text") -> None:
    """Ask about rows until all are decided or the person quits.

    Raises:
        ModelwrightError: standard input or output is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ModelwrightError("label: this is no terminal; label on a page instead, with --page")
    with _raw():
        _Screen(session, column).run()


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Keys one by one and unechoed; the terminal as it was afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        _write(_OPEN)
        yield
    finally:
        _write(_CLOSE)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _size() -> tuple[int, int]:
    """(columns, lines) of the terminal now; COLUMNS and LINES would not follow it."""
    columns, lines = os.get_terminal_size(sys.stdout.fileno())
    return columns or 80, lines or 24


class _Screen:
    """What is shown, and what the keys do."""

    def __init__(self, session: Session, column: str) -> None:
        self.session, self.column = session, column
        self.keys = keys_of(session.labels)
        self.scrolled, self.said = 0, ""
        self.drawn_for = (0, 0)
        self.since = time.monotonic()

    def run(self) -> None:
        """Draw, wait for a key, do it."""
        shown = None
        while True:
            if self.session.place != shown:
                shown, self.scrolled, self.since = self.session.place, 0, time.monotonic()
            self._draw()
            key = self._key()
            if key == QUIT:
                return
            self.said = ""
            self._press(key)

    def _key(self) -> str:
        """The next key; the screen is drawn again when its size is not the one it was drawn for."""
        while not select.select([sys.stdin], [], [], 0.5)[0]:
            if _size() != self.drawn_for:
                self._draw()
        # One key is one read: an arrow comes as several bytes at once, and so may pasted keys.
        raw = os.read(sys.stdin.fileno(), 1)
        if not raw:
            return QUIT
        if raw == b"\x1b":
            while len(raw) < 8 and select.select([sys.stdin], [], [], 0.02)[0]:
                raw += os.read(sys.stdin.fileno(), 1)
                if raw[-1:].isalpha() or raw[-1:] == b"~":
                    break
        key = raw.decode("latin-1")
        return _KEYS.get(key, key)

    def _press(self, key: str) -> None:
        seconds = time.monotonic() - self.since
        session = self.session
        label = label_for(key, session.labels, self.keys)
        try:
            if label is not None and session.row is not None:
                session.label(label, seconds)
                self.said = f"labelled {label}"
            elif key == SKIP and session.row is not None:
                session.skip(seconds)
                self.said = "skipped"
            elif key == BACK:
                self.said = "" if session.back() else "this is the first row"
            elif key == FORWARD:
                self.said = "" if session.forward() else "this is the last row"
            elif key == UNDO:
                self.said = "taken back" if session.undo() else "nothing to take back"
            else:
                self._scroll(key)
        except ModelwrightError as error:
            self.said = str(error)

    def _scroll(self, key: str) -> None:
        page = max(1, _size()[1] - _ROWS_OF_FRAME - 1)
        step = {"up": -1, "down": 1, "page up": -page, "page down": page}.get(key, 0)
        self.scrolled = max(0, self.scrolled + step)

    def _draw(self) -> None:
        self.drawn_for = columns, lines = _size()
        room = max(1, lines - _ROWS_OF_FRAME)
        body = self._body(columns)
        self.scrolled = min(self.scrolled, max(0, len(body) - room))
        part = body[self.scrolled : self.scrolled + room]
        part += [""] * (room - len(part))
        below = len(body) - self.scrolled - room
        more = f"{below} more lines: space" if below > 0 else ""
        frame = [
            _BOLD + _cut(self._head(), columns) + _PLAIN,
            _DIM + _cut(self._thought(), columns) + _PLAIN,
            *part,
            _DIM + _cut(printable(self.said) or more, columns) + _PLAIN,
            _BOLD + _cut(self._label_keys(), columns) + _PLAIN,
            _DIM + _cut(f"{SKIP} skip  {BACK} back  {FORWARD} forward  {UNDO} undo  {QUIT} quit",
                        columns) + _PLAIN,
        ]  # fmt: skip
        _write(
            "\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in frame[:-1]) + frame[-1] + "\x1b[J"
        )

    def _head(self) -> str:
        counts = self.session.counts()
        done = self.session.total - counts["left"]
        place = "" if self.session.row is None else f"row {self.session.place + 1}, "
        return f"{place}{done} of {self.session.total} decided · {self.session.who}"

    def _thought(self) -> str:
        row, said, thought = self.session.row, self.session.decided, self.session.suggested
        parts = [] if row is None else [printable(str(row["id"]))]
        if thought is not None:
            parts.append(f"suggested: {thought.label} ({thought.probability:.0%})")
        if said is not None:
            parts.append(f"you said: {said.label or 'skipped'}")
        return " · ".join(parts)

    def _body(self, columns: int) -> list[str]:
        row = self.session.row
        if row is None:
            counts = self.session.counts()
            tally = ", ".join(
                f"{name}: {counts[name]}" for name in (*self.session.labels, "skipped")
            )
            return ["", "Every row is decided.", tally]
        return wrapped(text_of(row, self.column), columns)

    def _label_keys(self) -> str:
        pairs = zip(self.keys, self.session.labels, strict=True)
        return "  ".join(f"{key or '-'} {printable(label)}" for key, label in pairs)


def printable(text: str) -> str:
    """The text without what a terminal acts on.

    Control characters and code points that are no characters become U+FFFD; formatting ones,
    which are invisible or turn the direction of writing, are left out.
    """
    return "".join(_SHOWN.get(unicodedata.category(c), c) for c in text)


def width_of(text: str) -> int:
    """Columns of a terminal that a printable text takes: wide characters two, marks none."""
    return sum(_width(c) for c in text)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrapped(text: str, columns: int) -> list[str]:
    """The lines of a text as they fit the screen, broken at spaces where there are some."""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").expandtabs(4).split("\n"):
        lines += _wrap(printable(line), max(2, columns))
    return lines


def _wrap(line: str, columns: int) -> Sequence[str]:
    done: list[str] = []
    start = wide = 0
    space = -1
    for i, character in enumerate(line):
        size = _width(character)
        if wide + size > columns:
            end = space + 1 if space >= start else i
            done.append(line[start:end].rstrip(" "))
            start, space = end, -1
            wide = width_of(line[start:i])
        wide += size
        if character == " ":
            space = i
    return [*done, line[start:]]


def _cut(text: str, columns: int) -> str:
    if width_of(text) <= columns:
        return text
    kept = ""
    for character in text:
        if width_of(kept) + _width(character) > columns - 1:
            break
        kept += character
    return kept + "…"
