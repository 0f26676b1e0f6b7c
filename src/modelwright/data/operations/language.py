"""The language of a text, from its beginning."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, ClassVar

from modelwright.data.operations.operation import Step, WorkRow
from modelwright.errors import MachineError, ModelwrightError, did_you_mean
from modelwright.kernels.text_stats import TextStats, text_stats

LATIN_LETTERS_A_WORD = 5  # an ideograph counts as much as so many letters
_OTHER_CYRILLIC = re.compile("[іїєґўђјљњћџѓќѕәғқңөұүһ]", re.IGNORECASE)
_RUSSIAN = re.compile("[ыэё]", re.IGNORECASE)


@dataclass(frozen=True)
class Operation:
    """Settings of the step ``language``.

    Scripts decide where one language is written in them: kana Japanese, hangul Korean,
    ideographs without kana Chinese (of whatever variety), Cyrillic with letters that among the
    large languages only Russian has. Five of eight English function words decide for English.
    Everything else is left to py3langid (97 languages, ISO 639-1).

    Attributes:
        keep: languages that stay; all when empty.
        minimum: least confidence, 0..1. Scripts give their share of the letters, function words
            1, the model its calibrated probability.
        prefix: how many characters are looked at.
    """

    keep: tuple[str, ...] = ()
    minimum: float = 0.5
    prefix: int = 1000

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= 1 or self.prefix < 1:
            raise ModelwrightError("step language: minimum must be in 0..1, prefix at least 1")
        for name in self.keep:
            if not re.fullmatch("[a-z]{2,3}", name):
                raise ModelwrightError(
                    f"step language: keep: {name!r} is no ISO 639 code, such as en, zh, de"
                )

    def assets(self) -> dict[str, str]:
        """The versions of the model and of Unicode's tables."""
        versions = {"unicode": unicodedata.unidata_version}
        if importlib.util.find_spec("py3langid"):
            versions["py3langid"] = importlib.metadata.version("py3langid")
        return versions

    def limits(self) -> dict[str, list[float]]:
        """Where the step decides."""
        return {"language.confidence": [self.minimum]}

    def begin(self) -> Step:
        """Returns the step.

        Raises:
            MachineError: py3langid is not installed.
            ModelwrightError: a language of ``keep`` is not among those it knows.
        """
        model = identifier()
        for name in self.keep:
            if name not in model.labels:
                hint = did_you_mean(name, model.labels)
                raise ModelwrightError(f"step language: keep: language {name!r} is not known{hint}")

        def step(row: WorkRow) -> str | None:
            text = row.get("text")
            if not isinstance(text, str):
                return None
            name, sure = language_of(text[: self.prefix])
            attributes = row.setdefault("attributes", {})
            attributes["language.language"] = name
            attributes["language.confidence"] = round(sure, 4)
            if sure < self.minimum or not name:
                return "language unsure"
            return "language not kept" if self.keep and name not in self.keep else None

        return step


@functools.cache
def identifier() -> Any:
    """The model of py3langid, loaded once a process (half a second)."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - an extra
    except ImportError:
        raise MachineError(
            "step language: py3langid is missing: pip install 'modelwright[data]'"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_of(text: str) -> tuple[str, float]:
    """(ISO 639 code, confidence 0..1) of a text; ("", 0) where it holds no letters."""
    stats = text_stats(text, grams=False)
    if not stats.letters:
        return "", 0.0
    by_script = _by_script(text, stats)
    if by_script is not None:
        return by_script
    if stats.stop_words >= 5 and stats.latin > 0.9 * stats.letters:
        return "en", 1.0
    name, sure = identifier().classify(text)
    return name, float(sure)


def _by_script(text: str, stats: TextStats) -> tuple[str, float] | None:
    """By its scripts alone, if they tell; letters of an alphabet count a fifth."""
    east = stats.han + stats.kana
    others = stats.letters - east - stats.hangul
    total = east + stats.hangul + others / LATIN_LETTERS_A_WORD
    if east > 0.5 * total:
        # Chinese may quote a Japanese name; a Japanese sentence is a third kana or more.
        return ("ja" if stats.kana > 0.1 * east else "zh"), east / total
    if stats.hangul > 0.5 * total:
        return "ko", (stats.hangul + stats.han) / total
    if stats.cyrillic > 0.5 * stats.letters:
        only_russian = _RUSSIAN.search(text) and not _OTHER_CYRILLIC.search(text)
        return ("ru", stats.cyrillic / stats.letters) if only_russian else None
    return None
