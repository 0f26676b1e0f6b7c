"""Rules about the quality of a text: those of Gopher, C4 and FineWeb, also for Chinese.

Sources: Gopher (Rae et al. 2021, arXiv:2112.11446, section A.1), C4 (Raffel et al. 2020, JMLR
21:140, section 2.2), FineWeb (Penedo et al. 2024, arXiv:2406.17557, section 3.6). Every measure
comes from one native pass over the text (``kernels/text_stats.py``), which needs no segmenter: an
ideograph is a word. A text most of whose words are such is judged by rules that fit it: the
length of words and of lines says nothing there, its function words are Chinese ones, and short
runs of words, which are then syllables, repeat more often in sound text.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from modelwright.data.operations.operation import Step, WorkRow
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.kernels.text_stats import TextStats, text_stats

_PAGE = (
    "javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies",
    "use of cookies", "use cookies",
)  # fmt: skip
_LINE_ENDS = tuple(".!?\"'…”’。！？」』")


@dataclass(frozen=True)
class Operation:
    """Settings of the step ``quality``; shares are 0..1, and the limits themselves still pass.

    Attributes:
        rules: "gopher", "c4" or "fineweb", or a list of them; the first that fails is the reason.
        min_words, max_words: (gopher) words.
        min_mean_word, max_mean_word: (gopher) characters a word; not for Chinese.
        max_symbols: (gopher) ``#``, and apart from it ellipses, a word.
        max_bullet_lines, max_ellipsis_lines: (gopher) share of the lines.
        min_alpha_words: (gopher) words with a letter, of words and lone signs.
        min_stop_words: (gopher) different ones of the, be, to, of, and, that, have, with; for
            Chinese of 的是在了不有和一. Classical Chinese has hardly any: use 0 there.
        max_repeated_lines, max_repeated_paragraphs: (gopher) share that equals an earlier one.
        max_repeated_line_chars, max_repeated_paragraph_chars: (gopher) the same in characters.
        max_top: (gopher) share of the words' characters in the commonest 2-, 3- and 4-gram.
        max_repeated: (gopher) share in 5- to 10-grams that occurred before.
        chinese_top, chinese_repeated: the two for Chinese, where a word is an ideograph. Chosen
            so that of 4,811 sound Chinese texts (encyclopedia, reviews, answers) 0.5 % leave.
        max_braces: (c4) curly brackets, the sign of code.
        max_lorem: (c4) how often "lorem ipsum" may stand.
        min_sentences: (c4) ends of sentences.
        cut_lines: (c4) first cut lines that do not end a sentence, have fewer than
            ``min_line_words`` words, or speak of cookies, terms of use or JavaScript.
        min_line_words: (c4) see there; characters for Chinese.
        min_ended_lines: (fineweb) share of lines that end in a stop or a quotation mark.
        max_short_lines: (fineweb) share of lines of at most 30 characters; not for Chinese.
        max_line_duplicates: (fineweb) share of characters in repeated lines.
        max_newlines: (fineweb) line ends a word.
        max_run: (all) longest run without white space or ideographs: embedded data.
        measures: write the measures to the attributes, and ``margin``: how far the text is from the
            nearest limit, as a share of the limit; below 0 where a rule fails.
    """

    rules: str | tuple[str, ...] = "gopher"
    min_words: int = 50
    max_words: int = 100_000
    min_mean_word: float = 3.0
    max_mean_word: float = 10.0
    max_symbols: float = 0.1
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alpha_words: float = 0.8
    min_stop_words: int = 2
    max_repeated_lines: float = 0.3
    max_repeated_paragraphs: float = 0.3
    max_repeated_line_chars: float = 0.2
    max_repeated_paragraph_chars: float = 0.2
    max_top: tuple[float, float, float] = (0.20, 0.18, 0.16)
    max_repeated: tuple[float, float, float, float, float, float] = (
        0.15, 0.14, 0.13, 0.12, 0.11, 0.10,
    )  # fmt: skip
    chinese_top: tuple[float, float, float] = (0.20, 0.20, 0.20)
    chinese_repeated: tuple[float, float, float, float, float, float] = (
        0.35, 0.32, 0.29, 0.26, 0.23, 0.20,
    )  # fmt: skip
    max_braces: int = 0
    max_lorem: int = 0
    min_sentences: int = 3
    cut_lines: bool = True
    min_line_words: int = 5
    min_ended_lines: float = 0.12
    max_short_lines: float = 0.67
    max_line_duplicates: float = 0.01
    max_newlines: float = 0.3
    max_run: int = 1000
    measures: bool = True

    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name in self.chosen:
            if name not in _RULES:
                raise ModelwrightError(
                    f"step quality: no rules {name!r}{did_you_mean(name, _RULES)}; "
                    f"known: {', '.join(_RULES)}"
                )

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names in ``rules``."""
        return (self.rules,) if isinstance(self.rules, str) else self.rules

    def assets(self) -> dict[str, str]:
        """The version of Unicode's tables, which say what a letter is."""
        return {"unicode": unicodedata.unidata_version}

    def limits(self) -> dict[str, list[float]]:
        """Measure -> the values at which the chosen rules decide, of Chinese and other texts."""
        found: dict[str, set[float]] = {"quality.margin": {0.0}}
        for chinese in (False, True):
            for limit in _limits(self, chinese):
                found.setdefault(f"quality.{limit.measure}", set()).add(limit.value)
        return {measure: sorted(values) for measure, values in found.items()}

    def begin(self) -> Step:
        """Returns the step."""
        limits = {chinese: _limits(self, chinese) for chinese in (False, True)}
        cut, grams = "c4" in self.chosen and self.cut_lines, "gopher" in self.chosen

        def step(row: WorkRow) -> str | None:
            text = row.get("text")
            if not isinstance(text, str):
                return None
            if cut:
                text = without_page_lines(text, self.min_line_words)
                if not text:
                    return "c4: no sentence"
                row["text"] = text
            stats = text_stats(text, grams)
            chinese = 2 * stats.unspaced > stats.words
            measured = _measures(stats, chinese)
            reason, margin = _judged(measured, limits[chinese])
            if self.measures:
                attributes = row.setdefault("attributes", {})
                for name, value in measured.items():
                    attributes[f"quality.{name}"] = round(value, 4)
                attributes["quality.margin"] = round(margin, 4)
            return reason

        return step


class _Limit(NamedTuple):
    reason: str
    measure: str
    value: float
    most: bool  # else it is the least


# By set of rules: (reason, measure, field of the limit); fields named min_* are least values.
_RULES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "gopher": (
        ("too few words", "words", "min_words"),
        ("too many words", "words", "max_words"),
        ("words too short", "mean_word", "min_mean_word"),
        ("words too long", "mean_word", "max_mean_word"),
        ("too many symbols", "symbols", "max_symbols"),
        ("too many bullets", "bullet_lines", "max_bullet_lines"),
        ("too many ellipses", "ellipsis_lines", "max_ellipsis_lines"),
        ("too few words with letters", "alpha_words", "min_alpha_words"),
        ("too few stop words", "stop_words", "min_stop_words"),
        ("repeated lines", "repeated_lines", "max_repeated_lines"),
        ("repeated paragraphs", "repeated_paragraphs", "max_repeated_paragraphs"),
        ("long repeated lines", "repeated_line_chars", "max_repeated_line_chars"),
        ("long repeated paragraphs", "repeated_paragraph_chars", "max_repeated_paragraph_chars"),
        ("a frequent phrase", "top", "max_top"),
        ("repeated phrases", "repeated", "max_repeated"),
    ),
    "c4": (
        ("curly brackets", "braces", "max_braces"),
        ("lorem ipsum", "lorem", "max_lorem"),
        ("too few sentences", "sentences", "min_sentences"),
    ),
    "fineweb": (
        ("lines without an end", "ended_lines", "min_ended_lines"),
        ("short lines", "short_lines", "max_short_lines"),
        ("repeated lines", "repeated_line_chars", "max_line_duplicates"),
        ("a list", "newlines", "max_newlines"),
    ),
}
_NOT_CHINESE = ("mean_word", "short_lines")
_GRAMS = {"top": (2, 3, 4), "repeated": (5, 6, 7, 8, 9, 10)}


def _limits(settings: Operation, chinese: bool) -> list[_Limit]:
    limits = [_Limit("embedded data", "longest_run", settings.max_run, True)]
    for name in settings.chosen:
        for reason, measure, field in _RULES[name]:
            if chinese and measure in _NOT_CHINESE:
                continue
            most = field.startswith("max_")
            if measure not in _GRAMS:
                value = getattr(settings, field)
                limits.append(_Limit(f"{name}: {reason}", measure, value, most))
                continue
            values = getattr(settings, f"chinese_{measure}" if chinese else field)
            for n, value in zip(_GRAMS[measure], values, strict=True):
                limits.append(_Limit(f"{name}: {reason}", f"{measure}_{n}", value, most))
    return limits


def _judged(measured: dict[str, float], limits: list[_Limit]) -> tuple[str | None, float]:
    """The first rule that fails, and the least room that a limit leaves, relative to the limit.

    A limit of 0 leaves no room to anything, so only a text that breaks it is seen there.
    """
    reason, margin = None, 1.0
    for limit in limits:
        bar = limit.value
        room = bar - measured[limit.measure] if limit.most else measured[limit.measure] - bar
        if room < 0 and reason is None:
            reason = limit.reason
        if bar and (room := room / bar) < margin:
            margin = room
        elif not bar and room < 0:
            margin = min(margin, -1.0)
    return reason, margin


def _measures(stats: TextStats, chinese: bool) -> dict[str, float]:
    """What the rules look at; a share of nothing is 0."""
    words, lines = stats.words or 1, stats.lines or 1
    line_chars, chars = stats.line_chars or 1, stats.word_chars or 1
    measures = {
        "words": stats.words,
        "mean_word": stats.word_chars / words,
        "symbols": max(stats.hashes, stats.ellipses) / words,
        "bullet_lines": stats.bullet_lines / lines,
        "ellipsis_lines": stats.ellipsis_lines / lines,
        "alpha_words": stats.alpha_words / (stats.words + stats.signs or 1),
        "stop_words": stats.chinese_stop_words if chinese else stats.stop_words,
        "repeated_lines": stats.repeated_lines / lines,
        "repeated_paragraphs": stats.repeated_paragraphs / (stats.paragraphs or 1),
        "repeated_line_chars": stats.repeated_line_chars / line_chars,
        "repeated_paragraph_chars": stats.repeated_paragraph_chars / line_chars,
        "braces": stats.braces,
        "lorem": stats.lorem,
        "sentences": stats.sentences,
        "ended_lines": stats.ended_lines / lines,
        "short_lines": stats.short_lines / lines,
        "newlines": stats.newlines / words,
        "longest_run": stats.longest_run,
        "unspaced": stats.unspaced / words,
    }
    for n in _GRAMS["top"]:
        measures[f"top_{n}"] = min(1.0, getattr(stats, f"top_{n}") / chars)
    for n in _GRAMS["repeated"]:
        measures[f"repeated_{n}"] = getattr(stats, f"repeated_{n}") / chars
    return measures


def without_page_lines(text: str, min_words: int) -> str:
    """The lines that C4 keeps: sentences of at least ``min_words`` words, none about the page."""
    lower = text.lower()
    about = any(phrase in lower for phrase in _PAGE)  # else no line need be looked at for them
    kept = [
        line
        for line in map(str.strip, text.split("\n"))
        if line.endswith(_LINE_ENDS)
        and not line.endswith("...")
        and _enough(line, min_words)
        and not (about and any(phrase in line.lower() for phrase in _PAGE))
    ]
    return "\n".join(kept)


def _enough(line: str, min_words: int) -> bool:
    if len(line.split(None, min_words - 1)) >= min_words:
        return True
    return not line.isascii() and text_stats(line, grams=False).words >= min_words
