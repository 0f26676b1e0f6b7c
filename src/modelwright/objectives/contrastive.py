"""Vectors of texts, near where texts belong together: InfoNCE (arXiv:1807.03748).

With z the vector of a text, of length 1, the row of query q and answer a costs

    loss = - log( exp(z_q.z_a / t) / sum over c in C of exp(z_q.z_c / t) ),   C = {a} and others

and, if ``symmetric``, half of that and half of the same with the parts changed: the answer looks
for its query among the queries. The others are the texts that the row names itself and the answers
of the other rows of its step (arXiv:1705.00652), without those that are the same text as its
answer, and those that answer the same query.

A loss that looks at the batch would change with every cut of it. So each row is given the texts of
the others of its step before the step is cut (``beside``), and brings them along: accumulation, a
micro-batch halved for want of memory, and several processes change nothing. A micro-batch reads
every text once, whoever brings it; uncut, that is each text of the step once, as elsewhere. Cut
into n, the queries are read once and the others up to n times: cut only where memory asks for it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modelwright.data.codecs import texts
from modelwright.data.codecs.texts import ANSWER, QUERY
from modelwright.types import Array, Batch, Columns, Ragged, ragged_column, rows_in

needs = "any_length"  # of the codec


class Objective:
    """InfoNCE over the rows of a step; rows without an answer (questions) cost and count nothing.

    ``temperature`` is t; ``pooling`` makes a vector of a text's stream: the mean, or the "first"
    token's, as BERT's; ``others`` is how many other rows of its step a row is told apart from.
    """

    packs = True
    draws = False
    embeds = True

    def __init__(
        self,
        codec: texts.Codec,
        *,
        temperature: Annotated[float, Field(gt=0)] = 0.05,
        symmetric: bool = True,
        pooling: Literal["mean", "first"] = "mean",
        others: Annotated[int, Field(ge=0)] = 255,
    ) -> None:
        self.codec, self.temperature, self.symmetric = codec, temperature, symmetric
        self.pooling, self.others = pooling, others

    def beside(self, columns: Columns) -> Columns:
        """The rows of a step, each with the others that it is told apart from."""
        return texts.beside(columns, self.others)

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Inputs ``tokens`` (N,) and ``starts`` of the different texts; what is counted is rows.

        Targets are the numbers of texts, ``query`` and ``answer`` (B,), -1 for no answer, and which
        texts each of them is told apart from: ``answers`` and ``queries`` (B, texts), bool.
        """
        pool = _Pool(columns)
        answered = pool.answer >= 0
        answers, queries = pool.others()
        return Batch(
            {"tokens": torch.from_numpy(pool.tokens), "starts": torch.from_numpy(pool.starts)},
            {
                "query": torch.from_numpy(pool.query),
                "answer": torch.from_numpy(pool.answer),
                "answers": torch.from_numpy(answers),
                "queries": torch.from_numpy(queries),
            },
            count=int(answered.sum()),
            computed=len(pool.tokens),
        )

    def vectors(self, model: nn.Module, batch: Batch) -> Tensor:
        """A vector of length 1 for every text of a batch, (texts, width), float32."""
        module: Any = model
        starts = batch.inputs["starts"]
        stream: Tensor = module.hidden(batch.inputs["tokens"], starts)
        if self.pooling == "first":
            return F.normalize(stream[starts[:-1]].float(), dim=1)
        means = torch.segment_reduce(stream.float(), "mean", lengths=starts.diff())
        return F.normalize(means, dim=1)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The vectors of the queries, (B, width)."""
        return self.vectors(model, batch)[batch.targets["query"]]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """InfoNCE summed over the rows that have an answer, in nats."""
        vectors, targets = self.vectors(model, batch), batch.targets
        loss = self._cost(vectors, targets["query"], targets["answer"], targets["answers"])
        if not self.symmetric:
            return loss
        known = targets["answer"] >= 0
        back = targets["query"].where(known, -1)
        other = self._cost(vectors, targets["answer"].clamp(min=0), back, targets["queries"])
        return (loss + other) / 2

    def _cost(self, vectors: Tensor, asked: Tensor, meant: Tensor, others: Tensor) -> Tensor:
        """Cross-entropy of ``meant`` among itself and ``others``, for the texts ``asked``."""
        logits = vectors[asked] @ vectors.T / self.temperature
        itself = torch.arange(len(vectors), device=meant.device) == meant[:, None]
        # A row without an answer has no candidate: its logits are left as they are, and not read.
        kept = others | itself | (meant < 0)[:, None]
        logits = logits.masked_fill(~kept, -torch.inf)
        return F.cross_entropy(logits, meant, reduction="sum", ignore_index=-1)


class _Pool:
    """The different texts of some rows and of what they bring along, each once.

    ``tokens`` (N,) and ``starts`` are those of the texts, ``query`` and ``answer`` (B,) the numbers
    of each row's own.
    """

    def __init__(self, columns: Columns) -> None:
        self.rows = rows_in(columns)
        lengths = ragged_column(columns, "lengths")
        kinds, row = texts.kinds_of(columns), _row_of(lengths)
        brought = "ids" in columns  # otherwise rows by themselves: none is beside another
        ids = np.arange(len(kinds))
        values = [np.asarray(ragged_column(columns, "tokens").values)]
        sizes = [np.asarray(lengths.values)]
        if brought:
            more = ragged_column(columns, "beside_ids")
            ids = np.concatenate([ragged_column(columns, "ids").values, more.values])
            kinds = np.concatenate([kinds, ragged_column(columns, "beside_kinds").values])
            row = np.concatenate([row, _row_of(more)])
            values.append(np.asarray(ragged_column(columns, "beside").values))
            sizes.append(np.asarray(ragged_column(columns, "beside_lengths").values))
        _, first, self.number = np.unique(ids, return_index=True, return_inverse=True)
        self.kinds, self.row = kinds, row
        length = np.concatenate(sizes).astype(np.int64)
        begin = np.cumsum(length) - length
        self.texts = len(first)
        self.starts = np.concatenate([[0], np.cumsum(length[first])]).astype(np.int64)
        at = np.arange(self.starts[-1]) - np.repeat(self.starts[:-1], length[first])
        chosen = np.repeat(begin[first], length[first]) + at
        self.tokens = np.concatenate(values)[chosen].astype(np.int64)
        heads = np.asarray(lengths.offsets[:-1])
        self.query = self.number[heads]
        self.answer = np.full(self.rows, -1, dtype=np.int64)
        answered = np.asarray(columns["answered"])
        self.answer[answered] = self.number[heads[answered] + 1]

    def others(self) -> tuple[Array, Array]:
        """What each query is told apart from, and each answer: (B, texts) bool, twice."""
        answers = np.zeros((self.rows, self.texts), dtype=np.bool_)
        queries, asking = np.zeros_like(answers), self.kinds == QUERY
        answers[self.row[~asking], self.number[~asking]] = True
        queries[self.row[asking], self.number[asking]] = True
        at = np.arange(self.rows)
        # Which query each text that is an answer belongs to: the query stands before it.
        is_answer = np.flatnonzero(self.kinds == ANSWER)
        asks, said, owner = self.number[is_answer - 1], self.number[is_answer], self.row[is_answer]
        same_query = asks == self.query[owner]
        answers[owner[same_query], said[same_query]] = False
        same_answer = said == self.answer[owner]
        queries[owner[same_answer], asks[same_answer]] = False
        for table, own in ((answers, self.query), (queries, self.answer)):
            known = own >= 0
            table[at[known], own[known]] = False
        answers[at[self.answer >= 0], self.answer[self.answer >= 0]] = False
        queries[at, self.query] = False
        return answers, queries


def _row_of(column: Ragged) -> Array:
    """The row of every value of a ragged column."""
    return np.repeat(np.arange(len(column)), column.lengths)
