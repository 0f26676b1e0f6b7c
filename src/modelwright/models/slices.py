"""One packed stream cut over several processes: each holds some of its rows (context parallelism).

The rows of a stream are divided into 2 S chunks for S processes; process r holds chunks r and
2 S - 1 - r, so that rows with few and with many rows before them fall to everybody alike. Norms,
products and losses know one row at a time. Attention alone sees others: there every process
collects the keys and values of all rows and lets its own queries look at them,

    o_i = sum_j softmax_j(scale * q_i . k_j) v_j,   j <= i in the document of i,

for its own i. What a key earns from the queries of all processes is summed on the way back:

    dk_j = sum over processes of (dk_j of the queries there), the same for v.

The collected keys and values are not kept for the backward pass but collected again, and the
attention is computed again from them: what a process holds of a layer is its own rows, whatever
the length of the stream. The price is a second exchange and a second forward pass of attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

MASK = 1 << 22  # elements of a mask: how many queries look at once where the keys are many


class Piece(NamedTuple):
    """Rows of one document that lie here in a run: own rows ``first`` .. ``last`` - 1.

    They see the stream's rows ``start`` (the document's first) .. ``end`` - 1 (the last of them).
    """

    first: int
    last: int
    start: int
    end: int


def chunks_of(rank: int, size: int) -> tuple[int, int]:
    """The two chunks, of 2 ``size``, of a process."""
    return rank, 2 * size - 1 - rank


def pieces_of(bounds: list[int], rank: int, size: int) -> list[Piece]:
    """What lies with a process of a stream of the documents ``bounds``, a multiple of 2 ``size``.

    A piece has rows of one document and of one chunk; documents without rows have none.
    """
    width = bounds[-1] // (2 * size)
    found = []
    for number, chunk in enumerate(chunks_of(rank, size)):
        begin, end, here = chunk * width, (chunk + 1) * width, number * width - chunk * width
        for i, start in enumerate(bounds[:-1]):
            a, b = max(start, begin), min(bounds[i + 1], end)
            if a < b:
                found.append(Piece(a + here, b + here, start, b))
    return found


@dataclass(frozen=True, eq=False)
class Slice:
    """The rows of a packed stream that one of ``size`` processes holds.

    It takes the place of the documents' bounds ``starts``. ``rows`` (n,) are the numbers of its
    rows in the stream, -1 for what fills it up; ``positions`` (n,) their positions in their
    documents; ``before`` (n,) the tokens before them, -1 at the beginning of a document.
    """

    rows: Tensor
    positions: Tensor
    before: Tensor
    pieces: list[Piece]
    size: int
    group: ProcessGroup

    @classmethod
    def of(
        cls, tokens: Tensor, starts: Tensor, rank: int, size: int, group: ProcessGroup
    ) -> tuple[Tensor, Slice]:
        """The tokens (n,) that process ``rank`` of ``size`` gets of a stream, and their slice.

        Args:
            tokens: (N,) the stream. It is filled up to a multiple of 2 ``size`` with tokens 0,
                each a document of its own.
            starts: (documents + 1,) the bounds of its documents.
            rank: of this process in ``group``.
            size: processes of ``group``.
            group: whose processes hold the stream together.
        """
        count = len(tokens)
        width = -(-count // (2 * size))
        total = 2 * size * width
        bounds = [*starts.tolist(), *range(count + 1, total + 1)]
        filled = F.pad(tokens, (0, total - count))
        numbers = torch.arange(total, device=tokens.device)
        own = numbers.view(2 * size, width)[list(chunks_of(rank, size))].flatten()
        ends = torch.tensor(bounds, device=tokens.device)
        positions = own - ends[torch.searchsorted(ends, own, right=True) - 1]
        before = filled[own - 1].masked_fill(positions == 0, -1)
        rows = own.masked_fill(own >= count, -1)
        pieces = pieces_of(bounds, rank, size)
        return filled[own], cls(rows, positions, before, pieces, size, group)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def attention(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Causal attention of the rows here over the whole stream; collective.

        Args:
            q: (n, heads, d) queries of the rows here.
            k: (n, kv_heads, d).
            v: (n, kv_heads, d).
            scale: factor of the products.

        Returns:
            (n, heads, d).
        """
        kind = q.device.type
        if torch.is_autocast_enabled(kind):
            narrow = torch.get_autocast_dtype(kind)
            q, k, v = q.to(narrow), k.to(narrow), v.to(narrow)
        with torch.autocast(kind, enabled=False):
            own = torch.cat((k, v), dim=-1)
            mixed: Tensor = _SlicedAttention.apply(q, own, self, scale)  # type: ignore[no-untyped-call]
        return mixed

    def collected(self, own: Tensor) -> Tensor:
        """What all processes hold, (N, ...) in the order of the stream, of ``own`` (n, ...)."""
        import torch.distributed as dist  # noqa: PLC0415 - one process does without

        every = own.new_empty(self.size * len(own), *own.shape[1:])
        dist.all_gather(list(every.chunk(self.size)), own.contiguous(), group=self.group)
        held = self._held()
        return _turned(every, sorted(range(len(held)), key=held.__getitem__))

    def summed(self, whole: Tensor) -> Tensor:
        """The rows here (n, ...) of the sum of all processes' tensors ``whole`` (N, ...)."""
        import torch.distributed as dist  # noqa: PLC0415

        turned = _turned(whole, self._held())
        own = whole.new_empty(len(whole) // self.size, *whole.shape[1:])
        dist.reduce_scatter(own, list(turned.chunk(self.size)), group=self.group)
        return own

    def _held(self) -> list[int]:
        """The numbers of the chunks of process 0, of process 1, ..."""
        return [chunk for rank in range(self.size) for chunk in chunks_of(rank, self.size)]

    def blocks(self) -> list[Piece]:
        """The pieces, cut so that no mask of queries by keys is larger than ``MASK``."""
        found = []
        for piece in self.pieces:
            first, last, start, end = piece
            step = last - first
            if step < end - start:  # not from the document's beginning: needs a mask
                step = max(16, MASK // (end - start))
            for at in range(first, last, step):
                to = min(at + step, last)
                found.append(Piece(at, to, start, end - (last - to)))
        return found


class _SlicedAttention(torch.autograd.Function):
    """Of queries (n, heads, d) and joined keys and values (n, kv_heads, 2 d)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, own: Tensor, part: Slice, scale: float) -> Tensor:
        ctx.save_for_backward(q, own)
        ctx.part, ctx.scale = part, scale
        whole = part.collected(own)
        mixed = torch.empty_like(q)
        for first, last, start, end in part.blocks():
            mixed[first:last] = _attend(q[first:last], whole[start:end], scale)
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, own = ctx.saved_tensors
        whole = ctx.part.collected(own)
        for_q = torch.empty_like(q)
        # Many queries add to a key: in float32, whatever the products are in.
        for_whole = torch.zeros(whole.shape, dtype=torch.float32, device=whole.device)
        for first, last, start, end in ctx.part.blocks():
            asking = q[first:last].detach().requires_grad_()
            known = whole[start:end].detach().requires_grad_()
            with torch.enable_grad():
                mixed = _attend(asking, known, ctx.scale)
            slopes = torch.autograd.grad(mixed, (asking, known), grad[first:last])
            for_q[first:last] = slopes[0]
            for_whole[start:end] += slopes[1]
        return for_q, ctx.part.summed(for_whole).to(own.dtype), None, None


def _attend(q: Tensor, known: Tensor, scale: float) -> Tensor:
    """The last rows q (m, heads, d) of a document look at its ``known`` (s, kv_heads, 2 d)."""
    k, v = known.chunk(2, dim=-1)
    late = len(k) - len(q)
    seen = None
    if late:
        seen = torch.ones(len(q), len(k), dtype=torch.bool, device=q.device).tril(late)
    q, k, v = (x[None].transpose(1, 2) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=seen,
        is_causal=seen is None,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return mixed[0].transpose(0, 1)


def _turned(rows: Tensor, order: list[int]) -> Tensor:
    """The chunks of rows (N, ...) in another order."""
    index = torch.tensor(order, device=rows.device)
    return rows.view(len(order), -1, *rows.shape[1:]).index_select(0, index).flatten(0, 1)
