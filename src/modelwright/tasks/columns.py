"""Which column of a table is what: guessed by its name, else by what it holds, and said.

A task's ``roles`` are its options that name columns. A guess is never silent: what was chosen is a
line for people, and where several columns would do, all of them are named instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from modelwright.data.sources import ROW_COLUMNS
from modelwright.errors import ModelwrightError
from modelwright.types import Row

MOST_CLASSES = 50  # that a column of classes is guessed to have
_WORDS = 3  # of a text, in the mean, from which a column is guessed to hold texts
_SHOWN = 4
_CLASSES = ("class", "word")  # the kinds that hold classes


class Role(NamedTuple):
    """An option that names a column: what it holds and how it is called.

    ``kind`` is "text", "class", "word" (a class whose names are no numbers, to be told from
    columns of numbers), or "any", which is found by its name alone.
    """

    kind: str
    names: tuple[str, ...]


def guess(
    roles: Mapping[str, Role], rows: Sequence[Row], given: Mapping[str, Any], where: str
) -> tuple[dict[str, str], str]:
    """The columns that ``given`` does not name, by option, and a line that says all of them.

    Args:
        roles: the task's options that name columns.
        rows: the first rows of the data.
        given: options that are set.
        where: how messages call the data.

    Raises:
        ModelwrightError: a column is not there, several would do, or none does.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns = [column for column in columns if column not in ROW_COLUMNS]
    found: dict[str, str] = {}
    for option in roles:
        if option in given:
            found[option] = str(given[option])
            if found[option] not in columns:
                raise ModelwrightError(
                    f"{where}: {option}={found[option]}: no such column; it has:"
                    f" {', '.join(columns)}"
                )
    for option, role in roles.items():  # names first, so that content decides among the others
        left = [c for c in columns if c not in found.values()]
        named = [c for name in role.names for c in left if c.lower() == name]
        if option not in found and named:
            found[option] = named[0]
    for option, role in sorted(roles.items(), key=lambda item: item[1].kind):  # classes first
        if option in found:
            continue
        left = [c for c in columns if c not in found.values()]
        suits = [c for c in left if _suits(role.kind, [row.get(c) for row in rows])]
        if len(suits) != 1:
            raise ModelwrightError(_undecided(option, role, suits, columns, where))
        found[option] = suits[0]
    for option, column in found.items():
        values = {str(row[column]) for row in rows if not _blank(row.get(column))}
        if roles[option].kind in _CLASSES and len(values) < 2:
            raise ModelwrightError(
                f"{where}: column {column!r} has {len(values)} class only, between which nothing"
                f" can be learned; name another: {option}=COLUMN"
            )
    line = "; ".join(
        f"{option}: column {found[option]!r}{_content(roles[option].kind, found[option], rows)}"
        for option in roles
    )
    return found, line


def _suits(kind: str, values: Sequence[Any]) -> bool:
    filled = [value for value in values if not _blank(value)]
    if not filled or kind == "any":
        return False
    distinct = {str(value) for value in filled}
    if kind in _CLASSES:
        if kind == "word" and any(map(_is_number, distinct)):
            return False
        few = 2 <= len(distinct) <= min(MOST_CLASSES, max(2, len(filled) // 2))
        return few and all(isinstance(v, str | int | bool) and len(str(v)) < 60 for v in filled)
    if not all(isinstance(value, str) for value in filled):
        return False
    words = sum(len(v.split()) + sum(c > "\u2e80" for c in v) for v in filled) / len(filled)
    return words >= _WORDS and 2 * len(distinct) > len(filled)


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value)  # an array has no one answer


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _undecided(
    option: str, role: Role, suits: Sequence[str], columns: Sequence[str], where: str
) -> str:
    what = {"text": "texts", "any": "it"}.get(role.kind, "a class")
    if suits:
        return (
            f"{where}: which column is the {option}? {', '.join(suits)} could all hold {what};"
            f" name it: {option}={suits[0]}"
        )
    return (
        f"{where}: no column looks like the {option}, which holds {what}; it has:"
        f" {', '.join(columns)}; name it: {option}=COLUMN"
    )


def _content(kind: str, column: str, rows: Sequence[Row]) -> str:
    """The classes of a column, as a remark."""
    if kind not in _CLASSES:
        return ""
    names = sorted({str(row[column]) for row in rows if not _blank(row.get(column))})
    more = ", ..." * (len(names) > _SHOWN)
    return f" ({len(names)} classes: {', '.join(names[:_SHOWN])}{more})"
