"""A stream cut over processes: what each computes of it is what one process computes.

The processes are calls one after another here, each given what the others hold; real ones are in
test_context.py.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, cast
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.kernels.attention import packed_attention
from modelwright.models import slices
from modelwright.models.attention import positions_in
from modelwright.models.slices import Slice, chunks_of
from modelwright.recipe import parse
from modelwright.training.parallel.context import check
from tests.trainings import Setting

LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=5)
SCALE = 0.4


def cut(tokens: Tensor, starts: Tensor, rank: int, size: int) -> tuple[Tensor, Slice]:
    return Slice.of(tokens, starts, rank, size, cast(Any, None))


def of_rank(whole: Tensor, rank: int, size: int) -> Tensor:
    """What a process holds of (N, ...)."""
    chunks = whole.view(2 * size, -1, *whole.shape[1:])
    return chunks[list(chunks_of(rank, size))].flatten(0, 1)


@given(lengths=LENGTHS, size=st.integers(1, 5))
def test_every_row_lies_once_and_knows_what_is_before_it(lengths: list[int], size: int) -> None:
    starts = torch.tensor([0, *accumulate(lengths)])
    tokens = torch.arange(100, 100 + sum(lengths))
    positions = positions_in(starts, len(tokens))
    before = tokens.roll(1).masked_fill(positions == 0, -1)
    seen: list[int] = []
    sizes = set()
    for rank in range(size):
        own, part = cut(tokens, starts, rank, size)
        kept = part.rows >= 0
        rows = part.rows[kept]
        seen += rows.tolist()
        sizes.add(len(own))
        assert torch.equal(own[kept], tokens[rows])
        assert torch.equal(part.positions[kept], positions[rows])
        assert torch.equal(part.before[kept], before[rows])
        covered = [row for p in part.pieces for row in range(p.first, p.last)]
        assert covered == list(range(len(own)))
        for p in part.pieces:  # from the document's first row to the piece's last
            assert p.end - p.start == part.positions[p.last - 1] + 1
    assert sorted(seen) == list(range(len(tokens)))
    assert len(sizes) == 1


@given(lengths=LENGTHS, size=st.integers(1, 4), kv_heads=st.sampled_from([1, 2]))
def test_attention_and_its_gradients_are_those_of_the_stream(
    lengths: list[int], size: int, kv_heads: int
) -> None:
    """Also where masks are cut: at most 64 elements of one, or 16 rows."""
    starts = torch.tensor([0, *accumulate(lengths)])
    rows, width = int(starts[-1]), 4
    generator = torch.Generator().manual_seed(rows)

    def drawn(heads: int) -> Tensor:
        return torch.randn(rows, heads, width, dtype=torch.float64, generator=generator)

    q, k, v = (drawn(heads).requires_grad_() for heads in (2, kv_heads, kv_heads))
    wanted, slope = packed_attention(q, k, v, starts, SCALE), drawn(2)
    slopes = torch.autograd.grad(wanted, (q, k, v), slope)
    total = -(-rows // (2 * size)) * 2 * size

    def filled(x: Tensor) -> Tensor:
        return F.pad(x.detach(), (0, 0, 0, 0, 0, total - rows))

    whole = torch.cat((filled(k), filled(v)), dim=-1)
    said = torch.zeros_like(whole)
    for rank in range(size):
        _, part = cut(torch.zeros(rows, dtype=torch.long), starts, rank, size)
        own = [of_rank(filled(x), rank, size).requires_grad_() for x in (q, k, v)]

        def summed(_: Slice, here: Tensor, rank: int = rank) -> Tensor:
            said.add_(here)
            return of_rank(here, rank, size)

        with (
            patch.object(slices, "MASK", 64),
            patch.object(Slice, "collected", lambda *_: whole),
            patch.object(Slice, "summed", summed),
        ):
            mixed = part.attention(*own, SCALE)
            mixed.backward(of_rank(filled(slope), rank, size))
        kept = part.rows >= 0
        torch.testing.assert_close(mixed[kept], wanted[part.rows[kept]])
        assert own[0].grad is not None
        # The sum over keys is in float32, that over a query's keys is not.
        torch.testing.assert_close(own[0].grad[kept], slopes[0][part.rows[kept]])
    torch.testing.assert_close(said[:rows, :, :width], slopes[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said[:rows, :, width:], slopes[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["documents", "docstrings"])
def test_what_is_learned_is_divided_and_nothing_lost(task: str) -> None:
    """Targets, their count and the bytes they spell; what fills a stream up learns nothing."""
    trainer = Setting(task=task).trainer()
    batch = trainer.objective.collate(trainer.examples(0)[0], torch.Generator())
    objective = cast(Any, trainer.objective)
    tokens, size = batch.inputs["tokens"].flatten(), 3
    parts = []
    for rank in range(size):
        _, part = cut(tokens, batch.inputs["starts"], rank, size)
        parts.append((part.rows, objective.at(batch, part.rows)))
    assert sum(learned.count for _, learned in parts) == batch.count > 0
    assert sum(learned.bytes for _, learned in parts) == batch.bytes > 0
    targets = batch.targets["tokens"].flatten()
    for rows, learned in parts:
        found = learned.targets["tokens"].flatten()
        assert torch.equal(found[rows >= 0], targets[rows[rows >= 0]])
        assert (found[rows < 0] == -100).all()


@pytest.mark.parametrize(
    ("task", "says"),
    [("vector_classification", "cannot be cut along its texts"), ("preferences", "next_token")],
)
def test_what_cannot_be_cut_is_refused(task: str, says: str) -> None:
    trainer = Setting(task=task).trainer()
    with pytest.raises(ModelwrightError, match=says):
        check(trainer.model, trainer.objective)


def test_an_adapted_decoder_may_be_cut_and_one_with_a_learned_prompt_not() -> None:
    from modelwright.models.prompts import put

    trainer = Setting(task="documents").trainer()
    check(trainer.model, trainer.objective)
    put(trainer.model, prompt=2, prefix=0)
    with pytest.raises(ModelwrightError, match="without learned prompts"):
        check(trainer.model, trainer.objective)


def test_a_recipe_has_one_cut() -> None:
    recipe = {"name": "a", "data": {"source": "x.jsonl"}, "train": {"task": "documents"}}
    assert parse({**recipe, "parallel": {"context": 2}}).parallel.context == 2
    with pytest.raises(ModelwrightError, match="tensor and context exclude each other"):
        parse({**recipe, "parallel": {"context": 2, "tensor": 2}})
