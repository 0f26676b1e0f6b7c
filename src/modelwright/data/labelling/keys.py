"""Which key gives which label, the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence

BACK, SKIP, UNDO, QUIT, FORWARD = "b", "s", "u", "q", "f"
TAKEN = frozenset((BACK, SKIP, UNDO, QUIT, FORWARD))
_REST = "1234567890abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def keys_of(labels: Sequence[str]) -> list[str]:
    """One key for each label: its first letter that is free, else a free digit or letter.

    Labels beyond the number of keys get "", and are chosen on the page with a click. Besides,
    the digits 1 to 9 give the first nine labels, where no label has that digit for its key.
    """
    keys: list[str] = []
    for label in labels:
        own = (c for c in label.lower() if c.isascii() and c.isalnum())
        free = (c for c in (*own, *_REST) if c not in TAKEN and c not in keys)
        keys.append(next(free, ""))
    return keys


def label_for(key: str, labels: Sequence[str], keys: Sequence[str]) -> str | None:
    """The label that a pressed key means, or None."""
    if key and key in keys:
        return labels[keys.index(key)]
    if len(key) == 1 and key in "123456789" and int(key) <= len(labels):
        return labels[int(key) - 1]
    return None
