"""Orders to a coffee machine as people type them: sentences, and which of their words are a slot.

Picovoice's benchmark gives the sentences alone. A slot is told by its last word, such as a
"roast", so the spans are found by rule; the names are those of the spoken orders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from modelwright.errors import ModelwrightError
from modelwright.types import Row

FILE = "text_corpus.txt"
INTENT = "orderDrink"
_SOME = r"(?:(?:(?:a (?:little )?bit|a lot|lots) of|some) )?"
_SLOTS = {
    "roast": r"(?:light|medium|dark) roast",
    "numberOfShots": r"(?:single|double|triple) shot",
    "size": r"(?:eight|twelve|sixteen|twenty) ounce|small|medium|large",
    "milkAmount": _SOME + r"(?:(?:almond|soy|whole|skim) )?(?:milk|cream)",
    "sugarAmount": _SOME + r"(?:(?:brown )?sugar|sweetener)",
    "coffeeDrink": r"(?:iced|house|drip) coffee|iced mocha|americano|cappuccino|coffee|espresso"
    r"|latte|mocha",
}
_ANY = re.compile(r"\b(?:" + "|".join(f"(?P<{n}>{p})" for n, p in _SLOTS.items()) + r")\b")


def sentences(folder: Path) -> Iterator[Row]:
    """``text``, ``intent`` and ``spans`` [begin, end, slot] of each line of text_corpus.txt.

    Raises:
        ModelwrightError: the file is missing.
    """
    path = folder / FILE
    if not path.is_file():
        raise ModelwrightError(f"{folder}: {FILE} is missing: put it there, as downloaded")
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if text := line.strip():
            yield {"id": f"line {number}", "text": text, "intent": INTENT, "spans": spans(text)}


def spans(text: str) -> list[tuple[int, int, str]]:
    """The slots of an order in small letters, as (first character, end, name)."""
    return [(*m.span(), str(m.lastgroup)) for m in _ANY.finditer(text)]
