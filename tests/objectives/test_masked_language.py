"""Masked language: what is chosen, how it is shown, and that neighbours do not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.codecs.text import Codec
from modelwright.errors import ModelwrightError
from modelwright.objectives.masked_language import Objective
from modelwright.types import Batch, Columns, Example, stack, take, text_turn

TEXT = "Every row of a data set becomes an example, and every example becomes some arrays. "
CODEC = Codec.fit([Example((text_turn("document", TEXT, learn=True),))], vocabulary=300)


def columns(count: int) -> Columns:
    turns = [text_turn("document", f"{i} {TEXT * (i % 3 + 1)}", learn=True) for i in range(count)]
    return stack([CODEC.encode(Example((t,))) for t in turns], CODEC.ragged)


def batch(objective: Objective, given: Columns, seed: int = 0) -> Batch:
    return objective.collate(given, torch.Generator().manual_seed(seed))


def test_a_share_is_chosen_and_shown_as_the_paper_says() -> None:
    given = columns(400)
    tokens = np.asarray(given["tokens"].values)  # type: ignore[union-attr]
    found = batch(Objective(CODEC), given)
    shown, wanted = found.inputs["tokens"].numpy(), found.targets["tokens"].numpy()
    chosen = wanted >= 0
    assert np.array_equal(wanted[chosen], tokens[chosen])
    assert np.array_equal(shown[~chosen], tokens[~chosen])
    assert not (tokens[chosen] == CODEC.end).any()
    assert found.count == chosen.sum()
    assert abs(chosen.mean() - 0.15) < 0.01
    masked = shown[chosen] == CODEC.vocabulary
    kept = shown[chosen] == tokens[chosen]
    assert abs(masked.mean() - 0.8) < 0.02
    assert abs(kept.mean() - 0.1) < 0.02
    assert found.bytes == CODEC.token_bytes[tokens[chosen]].sum()


def test_another_number_chooses_other_tokens() -> None:
    objective, given = Objective(CODEC), columns(3)
    one, same, other = (batch(objective, given, seed).targets["tokens"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=5), st.sampled_from([1.0, 3.0]))
def test_a_row_is_masked_alike_alone_and_beside_others(rows: list[int], span: float) -> None:
    objective, given = Objective(CODEC, span=span), columns(8)
    together = batch(objective, take(given, np.array(rows)))
    bounds = together.inputs["starts"]
    for i, row in enumerate(rows):
        alone = batch(objective, take(given, np.array([row])))
        part = slice(int(bounds[i]), int(bounds[i + 1]))
        assert torch.equal(together.inputs["tokens"][part], alone.inputs["tokens"])
        assert torch.equal(together.targets["tokens"][part], alone.targets["tokens"])


def test_spans_stand_together_and_share_one_fate() -> None:
    def runs(objective: Objective) -> float:
        chosen = (batch(objective, columns(60)).targets["tokens"] >= 0).numpy()
        return chosen.sum() / (np.diff(chosen.astype(int)) == 1).sum()

    assert runs(Objective(CODEC, span=4)) > 1.8 * runs(Objective(CODEC))
    assert (
        batch(Objective(CODEC, span=4), columns(60)).count
        == batch(Objective(CODEC), columns(60)).count
    )


def test_windows_are_cut_where_documents_end() -> None:
    tokens = np.array([[5, 6, CODEC.end, 7, 8], [9, 10, 11, 12, 13]], dtype=np.uint16)
    found = batch(Objective(CODEC), {"tokens": tokens, "learn": np.ones((2, 5), dtype=np.bool_)})
    assert found.inputs["starts"].tolist() == [0, 3, 4, 8]
    assert len(found.inputs["tokens"]) == 8


def test_a_row_of_nothing_but_control_costs_nothing() -> None:
    row = {"tokens": np.array([CODEC.end], np.uint16), "learn": np.array([True])}
    assert batch(Objective(CODEC), stack([row], CODEC.ragged)).count == 0


@pytest.mark.parametrize("options", [{"share": 0}, {"share": 1}, {"span": 0.5}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ModelwrightError, match=f"masked_language: {next(iter(options))} "):
        Objective(CODEC, **options)
