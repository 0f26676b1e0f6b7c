"""Words and segments with their times as text: lines, SubRip (.srt) and WebVTT (.vtt).

Both are the ``details`` of an answer (``word_times.py``): mappings with ``start`` and ``end`` in
seconds, and ``word`` or ``text``.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Timed = Sequence[Mapping[str, Any]]
DIGITS = 3  # of a second


def rounded(found: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """A word or a segment with its times rounded, and none behind the end of the recording."""
    times = {name: min(round(found[name], DIGITS), seconds) for name in ("start", "end")}
    return {**found, **times}


def lines(found: Timed, name: str) -> str:
    """A line each: when it begins and ends, and ``name`` of it."""
    return "\n".join(f"{one['start']:.2f} {one['end']:.2f} {one[name]}" for one in found)


def srt(segments: Timed) -> str:
    """Segments as SubRip."""
    cues = (
        f"{number}\n{stamp(one['start'], ',')} --> {stamp(one['end'], ',')}\n{one['text']}\n"
        for number, one in enumerate(segments, start=1)
    )
    return "\n".join(cues)


def vtt(segments: Timed) -> str:
    """Segments as WebVTT; marks of it in the text are escaped."""
    cues = (
        f"{stamp(one['start'], '.')} --> {stamp(one['end'], '.')}\n"
        f"{html.escape(one['text'], quote=False)}\n"
        for one in segments
    )
    return "\n".join(("WEBVTT\n", *cues))


def stamp(seconds: float, mark: str) -> str:
    """A time as hours, minutes, seconds and, behind a mark, milliseconds.

    >>> stamp(3723.5, ",")
    '01:02:03,500'
    """
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{thousandths:03}"


WAYS: dict[str, Callable[[Mapping[str, Any]], str]] = {  # of showing the details of an answer
    "words": lambda found: lines(found["words"], "word"),
    "segments": lambda found: lines(found["segments"], "text"),
    "srt": lambda found: srt(found["segments"]),
    "vtt": lambda found: vtt(found["segments"]),
}
