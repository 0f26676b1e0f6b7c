"""Law 10: at every stage, rows in = rows out + rows dropped with a reason."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.clean import CleanRules, clean_rows
from modelwright.data.dedup import drop_duplicates
from modelwright.data.split import split_rows
from modelwright.data.waterfall import Dropped, Waterfall, row_bytes
from modelwright.errors import ModelwrightError

RULES = CleanRules(min_chars=3)
PHRASES = st.sampled_from(
    ["one two three four five six", "七言绝句", "\x00\r\n", "x = [1, 2]", "\ud800", "a\tb  ", ""]
)
TEXTS = st.one_of(
    st.text(st.characters(), max_size=30),
    st.lists(PHRASES, max_size=6).map("\n".join),
)


@st.composite
def corpora(draw: st.DrawFn) -> list[dict]:
    texts = draw(st.lists(TEXTS, max_size=25))
    groups = draw(st.lists(st.sampled_from("abcdefgh"), min_size=len(texts), max_size=len(texts)))
    parts = st.sampled_from(["train", "train", "test", "dev"])
    return [
        {"id": str(i), "text": text, "group": group, "split": draw(parts)}
        for i, (text, group) in enumerate(zip(texts, groups, strict=True))
    ]


@given(corpora(), st.sampled_from(["group", "given", "id"]), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_every_row_is_kept_or_accounted_for(rows, by, seed):
    waterfall = Waterfall()
    cleaned, dirty = clean_rows(rows, RULES)
    waterfall.add("clean", rows, cleaned, dirty)
    unique, copies = drop_duplicates(cleaned)
    waterfall.add("deduplicate", cleaned, unique, copies)
    try:
        splits, leaks = split_rows(unique, by=by, seed=seed)
    except ModelwrightError:  # too few groups to split: nothing is written, nothing is lost
        pass
    else:
        left = [row for part in splits.values() for row in part]
        waterfall.add("split", unique, left, leaks)
        everything = Counter(row["id"] for row in left)
        everything.update(d.id for d in [*dirty, *copies, *leaks])
        assert everything == Counter(row["id"] for row in rows)
    size = sum(map(row_bytes, rows))
    for step in waterfall.to_json():
        assert step["rows_in"] == step["rows_out"] + sum(step["dropped"].values())
        assert set(step["examples"]) == set(step["dropped"])
        assert step["bytes_in"] == size
        size = step["bytes_out"]


@given(corpora().filter(bool), st.sampled_from(["lose", "double", "invent", "silent", "both"]))
@settings(max_examples=100, deadline=None)
def test_a_step_that_breaks_the_law_cannot_be_recorded(rows, fault):
    kept, dropped = clean_rows(rows, RULES)
    victim = rows[0]["id"]
    if fault == "lose":
        kept = [row for row in kept if row["id"] != victim]
        dropped = [d for d in dropped if d.id != victim]
    elif fault == "double":
        kept = [*kept, rows[0]]
    elif fault == "invent":
        kept = [*kept, {**rows[0], "id": "new"}]
    elif fault == "silent":
        kept = [row for row in kept if row["id"] != victim]
        dropped = [*(d for d in dropped if d.id != victim), Dropped(victim, "", 0)]
    else:
        kept, dropped = rows, [Dropped(victim, "too short", 0)]
    with pytest.raises(ModelwrightError, match="step 'clean'"):
        Waterfall().add("clean", rows, kept, dropped)
