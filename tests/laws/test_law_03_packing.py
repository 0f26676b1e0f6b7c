"""Law 3: packed = unpacked. Documents never see each other, in rows and in windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.kernels import attention
from modelwright.models.decoder import Config, Decoder
from modelwright.objectives.next_token import Objective
from modelwright.types import Columns, Ragged

END, VOCABULARY = 0, 40


class Letters:
    """As much of a text codec as the objective asks for: every token spells one byte."""

    ragged = ("tokens", "learn")
    end = END
    token_bytes = np.ones(VOCABULARY, dtype=np.int64)


OBJECTIVE = Objective(Letters())  # type: ignore[arg-type]
documents = st.lists(
    st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=5
)


def decoder(dtype: torch.dtype = torch.float64) -> Decoder:
    torch.manual_seed(0)
    fields = {"depth": 2, "width": 32, "heads": 2, "kv_heads": 1, "context": 64}
    extras = {"value_embeddings": True, "shortcuts": True, "bigrams": 8}
    model = Config(vocabulary=VOCABULARY, **fields, **extras).build()
    with torch.no_grad():  # off the start, where projections of zero hide what is seen
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.to(dtype)


def rows(texts: list[list[int]]) -> Columns:
    values = [np.array(t, dtype=np.uint16) for t in texts]
    learn = [np.array([i % 3 != 1 for i in range(len(t))]) for t in texts]
    return {"tokens": Ragged.of(values), "learn": Ragged.of(learn)}


def loss_and_gradients(model: Decoder, columns: Columns) -> tuple[float, list[torch.Tensor], int]:
    batch = OBJECTIVE.collate(columns, torch.Generator())
    model.zero_grad()
    loss = OBJECTIVE.loss(model, batch)
    loss.backward()
    return (
        loss.item(),
        [p.grad.clone() for p in model.parameters() if p.grad is not None],
        batch.count,
    )


@settings(deadline=None, max_examples=25)
@given(texts=documents)
def test_rows_together_are_rows_alone(texts: list[list[int]]) -> None:
    model, texts = decoder(), [[*t, END] for t in texts]
    loss, gradients, count = loss_and_gradients(model, rows(texts))
    alone = [loss_and_gradients(model, rows([t])) for t in texts]
    assert count == sum(c for _, _, c in alone)
    assert loss == pytest.approx(sum(part for part, _, _ in alone), rel=1e-6, abs=1e-6)
    for i, gradient in enumerate(gradients):
        torch.testing.assert_close(gradient, sum(g[i] for _, g, _ in alone), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(texts=documents, width=st.integers(3, 12))
def test_windows_of_joined_documents_are_the_documents(texts: list[list[int]], width: int) -> None:
    """A window is cut where documents end; each piece is predicted from itself alone."""
    stream = np.array([n for t in texts for n in (*t, END)])
    whole = (len(stream) - 1) // width
    if not whole:
        return
    cut = np.arange(whole)[:, None] * width + np.arange(width + 1)
    columns = {"tokens": stream[cut], "learn": np.ones(cut.shape, dtype=np.bool_)}
    model = decoder()
    loss, gradients, count = loss_and_gradients(model, columns)
    assert count == whole * width
    pieces: list[list[int]] = []
    for window in stream[cut].tolist():
        piece = [window[0]]
        for token in window[1:]:
            piece.append(token)
            if token == END:
                pieces.append(piece)
                piece = [END]  # what ends one document begins the next
        if len(piece) > 1:
            pieces.append(piece)
    values = [np.array(p, dtype=np.uint16) for p in pieces]
    learn = [np.ones(len(p), dtype=np.bool_) for p in pieces]
    alone = loss_and_gradients(model, {"tokens": Ragged.of(values), "learn": Ragged.of(learn)})
    assert loss == pytest.approx(alone[0], rel=1e-6)
    for a, b in zip(gradients, alone[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_document_changes_not_one_bit(dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and not attention.available():
        pytest.skip("no AVX-512 BF16 or no C++ compiler here")
    model = decoder(torch.float32)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, VOCABULARY, (1, 30), generator=generator)
    starts = torch.tensor([0, 11, 30])
    other = tokens.clone()
    other[:, :11] = tokens[:, :11].flip(1) % (VOCABULARY - 1) + 1
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32), torch.no_grad():
        a = model.hidden(tokens, starts=starts)
        b = model.hidden(other, starts=starts)
    assert not torch.equal(a[:, :11], b[:, :11])
    assert torch.equal(a[:, 11:], b[:, 11:])
