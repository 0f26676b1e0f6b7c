"""Labelling functions: rules that label a row or abstain, and a table of what each is worth.

A rule is cheap and often wrong; many rules together, weighed by a label model, label what nobody
has time to read (Ratner et al. 2017, "Snorkel: Rapid Training Data Creation with Weak
Supervision", arXiv:1711.10160).
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from modelwright.data.labelling.votes import MISSING, Votes
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.types import Row

KINDS = ("keywords", "pattern", "longer", "shorter")
PREFIX = "label_"  # of the functions in a user's Python file


@dataclass(frozen=True)
class LabellingFunction:
    """A rule: ``decide(row)`` is a label, or None where it abstains."""

    name: str
    decide: Callable[[Row], str | None]


@dataclass(frozen=True)
class Figures:
    """What one labelling function does on a set of rows.

    Attributes:
        name: the function.
        coverage: share of rows on which it votes.
        overlaps: share of rows on which it and at least one other vote.
        conflicts: share of rows on which it votes and at least one other votes differently.
        accuracy: share of its votes that are right, or None where the truth is not known.
    """

    name: str
    coverage: float
    overlaps: float
    conflicts: float
    accuracy: float | None


def keywords(
    label: str, words: Sequence[str], *, column: str = "text", name: str = ""
) -> LabellingFunction:
    """Label rows that hold one of ``words``, whatever its case.

    Letters and digits must not go on beside a word, except where the word's own end is of a
    script written without spaces (Chinese, Japanese), which has no such borders.
    """
    if not words or not all(words):
        raise ModelwrightError(f"labelling function for {label!r}: give at least one keyword")
    found = re.compile("|".join(_bounded(word) for word in words), re.IGNORECASE)
    return _searching(label, found, column, name or f"keywords:{words[0]}")


def _bounded(word: str) -> str:
    left = r"(?<!\w)" if _alphabetic(word[0]) else ""
    right = r"(?!\w)" if _alphabetic(word[-1]) else ""
    return left + re.escape(word) + right


def _alphabetic(character: str) -> bool:
    return character.isalnum() and not "\u3040" <= character <= "\u9fff"


def pattern(
    label: str, expression: str, *, column: str = "text", name: str = ""
) -> LabellingFunction:
    """Label rows in which the regular expression is found.

    Raises:
        ModelwrightError: the expression cannot be read.
    """
    try:
        found = re.compile(expression)
    except re.error as error:
        raise ModelwrightError(
            f"labelling function for {label!r}: pattern {expression!r} cannot be read"
            f" ({error}); correct it"
        ) from None
    return _searching(label, found, column, name or f"pattern:{expression}")


def _searching(label: str, found: re.Pattern[str], column: str, name: str) -> LabellingFunction:
    return LabellingFunction(name, lambda row: label if found.search(_text(row, column)) else None)


def length(
    label: str,
    *,
    longer: int | None = None,
    shorter: int | None = None,
    column: str = "text",
    name: str = "",
) -> LabellingFunction:
    """Label rows whose text has more than ``longer`` and fewer than ``shorter`` characters."""
    if longer is None and shorter is None:
        raise ModelwrightError(f"labelling function for {label!r}: give 'longer' or 'shorter'")

    def decide(row: Row) -> str | None:
        size = len(_text(row, column))
        above = longer is None or size > longer
        return label if above and (shorter is None or size < shorter) else None

    return LabellingFunction(name or f"length:{longer or 0}-{shorter or ''}", decide)


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    return value if isinstance(value, str) else ""


def read_functions(path: Path) -> list[LabellingFunction]:
    """The functions of a file that the user named: ``.yaml`` rules, or ``.py`` code.

    YAML is a list of rules, each with ``label`` and one of ``keywords`` (a list), ``pattern``
    (a regular expression), ``longer`` or ``shorter`` (characters); ``column`` and ``name`` may
    be given. A Python file is **run**; each of its functions named ``label_...`` takes a row and
    returns a label or None. Only a path on the user's own command line may lead here.

    Raises:
        ModelwrightError: the file is missing, cannot be read, or has no functions.
    """
    if not path.is_file():
        raise ModelwrightError(f"{path}: no such file of labelling functions; correct the path")
    found = _of_python(path) if path.suffix == ".py" else _of_yaml(path)
    names = [f.name for f in found]
    if not found:
        how = f"functions named {PREFIX}..." if path.suffix == ".py" else "rules"
        raise ModelwrightError(f"{path}: holds no labelling functions; write {how} in it")
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise ModelwrightError(f"{path}: two rules are called {twice!r}; give each its own name")
    return found


def _of_python(path: Path) -> list[LabellingFunction]:
    spec = importlib.util.spec_from_file_location(f"labelling_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ModelwrightError(f"{path}: cannot be read as Python; name a .py file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelwrightError(
            f"{path}: fails when it is run ({type(error).__name__}: {error}); mend it"
        ) from error
    return [
        LabellingFunction(name.removeprefix(PREFIX), decide)
        for name, decide in vars(module).items()
        if name.startswith(PREFIX) and inspect.isfunction(decide)
    ]


def _of_yaml(path: Path) -> list[LabellingFunction]:
    try:
        rules = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise ModelwrightError(f"{path}: not readable YAML ({said}); correct it") from None
    if not isinstance(rules, list):
        raise ModelwrightError(
            f"{path}: a list of rules is meant: - {{label: positive, keywords: [superb]}}"
        )
    return [_rule(rule, f"{path}: rule {number}") for number, rule in enumerate(rules, start=1)]


def _rule(rule: Any, where: str) -> LabellingFunction:
    if not isinstance(rule, dict) or not isinstance(rule.get("label"), str):
        raise ModelwrightError(
            f"{where}: give a mapping with 'label' and one of {', '.join(KINDS)}"
        )
    known = ("label", "column", "name", *KINDS)
    if unknown := next((str(key) for key in rule if key not in known), None):
        raise ModelwrightError(
            f"{where}: no key {unknown!r}{did_you_mean(unknown, known)}; known: {', '.join(known)}"
        )
    label = rule["label"]
    place: dict[str, Any] = {k: str(rule[k]) for k in ("column", "name") if k in rule}
    words, expression = rule.get("keywords"), rule.get("pattern")
    bounds: dict[str, Any] = {k: rule[k] for k in ("longer", "shorter") if k in rule}
    if (words is not None) + (expression is not None) + bool(bounds) != 1:
        raise ModelwrightError(f"{where}: give exactly one of keywords, pattern, longer/shorter")
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return keywords(label, words, **place)
    if isinstance(expression, str):
        return pattern(label, expression, **place)
    if bounds and all(isinstance(b, int) and not isinstance(b, bool) for b in bounds.values()):
        return length(label, **bounds, **place)
    raise ModelwrightError(
        f"{where}: keywords are a list of words, a pattern is a string, lengths whole numbers"
    )


def apply_functions(
    functions: Sequence[LabellingFunction], rows: Iterable[Row], labels: Sequence[str]
) -> Votes:
    """Ask every function about every row.

    Raises:
        ModelwrightError: a function fails, or answers with something that is not a label.
    """
    number = {label: i for i, label in enumerate(labels)}
    items: list[str] = []
    table: list[list[int]] = []
    for row in rows:
        items.append(str(row["id"]))
        table.append([_ask(function, row, number) for function in functions])
    given = np.array(table, dtype=np.int64).reshape(len(items), len(functions))
    return Votes(items, [f.name for f in functions], list(labels), given)


def _ask(function: LabellingFunction, row: Row, number: dict[str, int]) -> int:
    try:
        said = function.decide(row)
    except Exception as error:
        raise ModelwrightError(
            f"labelling function {function.name!r} fails on row {row['id']!r}"
            f" ({type(error).__name__}: {error}); mend it"
        ) from error
    if said is None:
        return MISSING
    if said not in number:
        hint = did_you_mean(str(said), number)
        raise ModelwrightError(
            f"labelling function {function.name!r} says {said!r} about row {row['id']!r}; it may"
            f" say {', '.join(number)} or None{hint}"
        )
    return number[said]


def figures(votes: Votes, truth: NDArray[np.int64] | None = None) -> list[Figures]:
    """Coverage, overlaps and conflicts of every function, and accuracy where truth is known.

    Args:
        votes: what the functions said.
        truth: int64 (items,), positions in ``votes.labels``, MISSING where not known.
    """
    given = votes.given
    voted = given != MISSING
    total = max(len(votes.items), 1)
    several = voted.sum(axis=1) > 1
    counts = votes.counts
    mixed = (counts > 0).sum(axis=1) > 1
    table = []
    for i, name in enumerate(votes.voters):
        accuracy = None
        if truth is not None:
            judged = voted[:, i] & (truth != MISSING)
            accuracy = float((given[judged, i] == truth[judged]).mean()) if judged.any() else None
        coverage, overlaps, conflicts = (
            np.count_nonzero(voted[:, i] & among) / total for among in (True, several, mixed)
        )
        table.append(Figures(name, coverage, overlaps, conflicts, accuracy))
    return table
