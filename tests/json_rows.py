"""Rows as JSON can hold them: any value at any place of a row that would be read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)  # no float holds it
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["", " ", "{", "null", "[null]", "3", '[{"name": "w"}]', '{"name": null}'])
)


def values(keys: Sequence[str]) -> st.SearchStrategy[Any]:
    """Any JSON, whose objects have some of the keys that a reader knows."""
    return st.recursive(
        _LEAVES,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(keys) | st.text(max_size=3), inner, max_size=4)
        ),
        max_leaves=8,
    )


@st.composite
def rows(draw: st.DrawFn, readable: Sequence[dict[str, Any]], keys: Sequence[str]) -> Any:
    """A readable row of which up to three places hold something else or are gone, or any row."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.dictionaries(st.sampled_from(keys), values(keys), max_size=5))
    row = copy.deepcopy(draw(st.sampled_from(readable)))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = row
        while isinstance(place, dict | list) and place:
            key = draw(
                st.sampled_from(list(place if isinstance(place, dict) else range(len(place))))
            )
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            if draw(st.integers(0, 3)):
                place[key] = draw(values(keys))
            else:
                del place[key]
            break
    return row
