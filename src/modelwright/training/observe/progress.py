"""Progress of a training: a live view on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.text import Text

EVERY = 10.0  # seconds between lines where there is no terminal
REFRESH = 2.0  # redraws a second of the live view
SMOOTHING = 0.8  # of the rate that the live view shows
POINTS = 256  # of the loss that are kept for the sparkline
GAP = "  "
BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+*%#"


@dataclass(frozen=True)
class Status:
    """What a step showed.

    ``rate`` is in ``unit`` a second (positions the model worked on), ``mfu`` a share of the
    machine's matrix products, ``validation`` what the last validation said.
    """

    step: int
    loss: float
    rate: float
    unit: str
    mfu: float
    gradient_norm: float
    learning_rate: float
    memory_bytes: int
    bits_per_byte: float | None = None
    validation: str = ""

    @property
    def note(self) -> str:
        """The quality and the rates in a few words."""
        bits = self.bits_per_byte
        shown = f"{bits:.3f} bits/byte" if bits is not None else f"loss {self.loss:.4f}"
        return f"{shown}  {self.rate:,.0f} {self.unit}/s  {self.mfu:.0%} MFU"


class Curve:
    """A sequence of any length as at most ``POINTS`` means of equally many values each."""

    def __init__(self) -> None:
        self.points: list[float] = []
        self.each, self.total, self.held = 1, 0.0, 0

    def add(self, value: float) -> None:
        """Append a value; one that is not finite is left out."""
        if not math.isfinite(value):
            return
        self.total, self.held = self.total + value, self.held + 1
        if self.held < self.each:
            return
        self.points.append(self.total / self.held)
        self.total, self.held = 0.0, 0
        if len(self.points) == POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [(a + b) / 2 for a, b in pairs]
            self.each *= 2

    def sparkline(self, width: int, signs: str = BLOCKS) -> str:
        """The points in at most ``width`` characters, the lowest as the first of ``signs``."""
        count = min(width, len(self.points))
        if count < 1:
            return ""
        edges = [i * len(self.points) // count for i in range(count + 1)]
        means = [_mean(self.points[a:b]) for a, b in itertools.pairwise(edges)]
        low, span = min(means), max(means) - min(means)
        top = len(signs) - 1
        return "".join(signs[round((m - low) / span * top) if span else 0] for m in means)


class Progress:
    """Shows how far a stage is: ``update`` after every step, inside ``with``.

    ``total`` may change on the way. ``console`` is for tests; left out it is standard error, live
    where that is a terminal.
    """

    def __init__(self, title: str, total: int, done: int, console: Console | None = None) -> None:
        self.title, self.total, self.done, self.first = title, total, done, done
        self.started, self.last = time.perf_counter(), -math.inf
        self.status: Status | None = None
        self.rate = 0.0
        self.curve = Curve()
        console = console or (Console(stderr=True) if sys.stderr.isatty() else None)
        able = console is not None and not console.is_dumb_terminal
        # Standard output is not redirected: it may be a file, while standard error is a terminal.
        self.live = (
            Live(self, console=console, refresh_per_second=REFRESH, redirect_stdout=False)
            if able
            else None
        )

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.stop()

    @property
    def spent(self) -> float:
        """Seconds since this process began with the stage."""
        return time.perf_counter() - self.started

    @property
    def left(self) -> float:
        """Seconds to go at the mean speed so far; infinite before the first step."""
        did = self.done - self.first
        return self.spent / did * (self.total - self.done) if did else math.inf

    def update(self, status: Status) -> None:
        """Show a step."""
        self.rate = SMOOTHING * self.rate + (1 - SMOOTHING) * status.rate
        if self.done == self.first:
            self.rate = status.rate
        self.status, self.done = status, status.step
        self.curve.add(status.loss)
        now = time.perf_counter()
        if self.live or (self.done < self.total and now - self.last < EVERY):
            return
        self.last = now
        print(
            f"{self.title}: {self.done}/{self.total}  {self.spent:.0f} s, {self.left:.0f} s left"
            f"  {status.note}",
            file=sys.stderr,
            flush=True,
        )

    # The live view ---------------------------------------------------------------------------

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        plain = options.ascii_only
        head, *rest = self.lines(options.max_width, plain=plain)
        yield Text(head, style="bold", no_wrap=True, overflow="crop")
        for line in rest:
            yield Text(line, no_wrap=True, overflow="crop")

    def lines(self, width: int, *, plain: bool = False) -> list[str]:
        """The view as lines of at most ``width`` cells; ``plain`` keeps to ASCII."""
        share = min(1.0, self.done / max(1, self.total))
        full, empty, cut = ("#", "-", ".") if plain else ("━", "─", "…")
        bar = max(5, min(40, width // 4))
        filled = round(bar * share)
        head = [
            self.title,
            full * filled + empty * (bar - filled),
            f"{self.done}/{self.total}",
            f"{share:.0%}",
            f"{_clock(self.spent)} spent",
            f"{_clock(self.left)} left",
        ]
        lines = _wrapped(head, width, cut)
        if self.status is not None:
            lines += _wrapped(self._cells(self.status), width, cut)
            label = f"loss{GAP}"
            spark = self.curve.sparkline(min(60, width - len(label)), PLAIN if plain else BLOCKS)
            lines += [label + spark] if spark else []
        return lines

    def _cells(self, s: Status) -> list[str]:
        cells = [f"loss {s.loss:.4f}"]
        if s.bits_per_byte is not None:
            cells.append(f"{s.bits_per_byte:.3f} bits/byte")
        cells += [
            f"{self.rate:,.0f} {s.unit}/s",
            f"{s.mfu:.0%} MFU",
            f"{s.memory_bytes / 2**30:.2f} GiB",
            f"gradient {s.gradient_norm:.3g}",
            f"rate {s.learning_rate:.3g}",
        ]
        return [*cells, f"validation {s.validation}"] if s.validation else cells


def _wrapped(cells: Sequence[str], width: int, cut: str) -> list[str]:
    """Cells side by side, as many a line as fit; one that is too long alone is cut."""
    lines: list[str] = []
    for cell in cells:
        joined = f"{lines[-1]}{GAP}{cell}" if lines else cell
        if lines and cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(_cut(cell, width, cut))
    return lines


def _cut(text: str, width: int, cut: str) -> str:
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[:-1]
    return text + cut


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds; dashes for a time that is not known."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
