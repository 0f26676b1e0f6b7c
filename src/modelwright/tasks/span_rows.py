"""What tasks with spans read of rows: tags of words, or stretches of a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.types import Row, Span

_BEGINS, _GOES_ON, _ENDS = "BSU", "IEML", "ESLU"  # of BIO, BIOES and BILOU
_NAMES = (("begin", "start"), ("end", "stop"), ("label", "entity", "type", "slot", "tag"))


def of_tags(words: Sequence[str], tags: Sequence[str], where: str) -> tuple[str, list[Span]]:
    """The words with a space between, and the spans that their tags mean.

    BIO, BIOES and BILOU are read. I-x after anything but x begins a span, as conlleval has it
    (Tjong Kim Sang and De Meulder 2003), and so does I-x or E-x after an end.

    Raises:
        ModelwrightError: a tag is none.
    """
    text, spans = "", list[Span]()
    going = ""  # the kind of the span that the next word may go on with
    for word, tag in zip(words, tags, strict=True):
        text += " " * bool(text)
        begin, end = len(text), len(text) + len(word)
        text += word
        mark, dash, kind = tag.partition("-")
        if tag == "O":
            going = ""
            continue
        if not dash or not kind or mark not in _BEGINS + _GOES_ON or len(mark) != 1:
            raise ModelwrightError(
                f"{where}: tag {tag!r} of the word {word!r} is none; write O, B-KIND or I-KIND"
            )
        if mark in _GOES_ON and going == kind:
            spans[-1] = Span(spans[-1].begin, end, kind)
        else:
            spans.append(Span(begin, end, kind))
        going = "" if mark in _ENDS else kind
    return text, [_worded(span, text) for span in spans]


def of_stretches(text: str, found: Iterable[Any], where: str) -> list[Span]:
    """The spans of a text, given as [begin, end, kind] or as mappings, in the order of the text.

    Raises:
        ModelwrightError: one is not of the text, has no kind, or overlaps another.
    """
    spans = []
    for one in found:
        values = _values(one)
        if values is None:
            raise ModelwrightError(
                f"{where}: span {str(one)[:60]!r} is none; write [begin, end, kind] in characters"
            )
        begin, end, kind = values
        if not 0 <= begin < end <= len(text):
            raise ModelwrightError(
                f"{where}: span {begin} to {end} is not within a text of {len(text)} characters;"
                " ends are one past the last character"
            )
        spans.append(Span(begin, end, kind))
    spans.sort(key=lambda span: (span.begin, span.end))
    for one, other in pairwise(spans):
        if other.begin < one.end:
            raise ModelwrightError(
                f"{where}: spans {one.begin} to {one.end} and {other.begin} to {other.end} overlap;"
                " keep one of them"
            )
    return [_worded(span, text) for span in spans]


def _values(one: Any) -> tuple[int, int, str] | None:
    if isinstance(one, Mapping):
        one = [next((one[n] for n in names if n in one), None) for names in _NAMES]
    if not isinstance(one, Sequence) or isinstance(one, str) or len(one) != 3:
        return None
    begin, end, kind = one
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in (begin, end)):
        return None
    return (begin, end, kind) if isinstance(kind, str) and kind else None


def _worded(span: Span, text: str) -> Span:
    return Span(span.begin, span.end, span.label, text=text[span.begin : span.end])


def listed(row: Row, column: str, option: str) -> list[Any]:
    """The list in a column.

    Raises:
        ModelwrightError: it holds something else.
    """
    value = row[column]
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise ModelwrightError(
            f"row {row.get('id', '?')}: column {column!r} holds {str(value)[:40]!r}, not a list;"
            f" name the one that is meant with train.options.{option}"
        )
    return list(value)
