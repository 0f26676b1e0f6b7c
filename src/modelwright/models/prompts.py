"""Learned vectors that every text begins with, over a frozen model: prompt and prefix tuning.

Prompt tuning (arXiv:2104.08691) learns n rows of the embedding's width, which stand before a text
as if they were its first words. Prefix tuning (arXiv:2101.00190) learns the keys and the values of
n such positions in every layer, as they are after norm and rotation; its reparametrisation is left
out.

Both are tokens here, numbered from the vocabulary's end on: ``virtual``. Where whole documents are
read, the model puts them before each by itself and leaves their rows out of what it gives. Where a
cache is continued, they are part of the prompt, so that the engine treats them as any tokens.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.attention import Grid
from modelwright.models.causal import LanguageModel

if TYPE_CHECKING:
    from modelwright.models.attention import Cache

EMBEDDING, KEYS, VALUES = "virtual_embedding", "virtual_keys", "virtual_values"
PARTS = (EMBEDDING, KEYS, VALUES)  # names of the new parameters, in their layer


class Slots:
    """What the layers of one model are told of the tokens that are read now."""

    def __init__(self, first: int) -> None:
        self.first = first  # number of the first virtual token
        self.tokens = torch.empty(0, dtype=torch.long)

    def where(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Which rows of this shape are virtual, and the number of the virtual token there."""
        tokens = self.tokens.view(shape)
        return tokens >= self.first, (tokens - self.first).clamp(min=0)


class Clamped(nn.Embedding):
    """A table in which virtual tokens have the rows of the last ones, or learned rows."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Rows (..., width) of the numbers (...)."""
        rows = super().forward(tokens.clamp(max=self.num_embeddings - 1))
        learned = self._parameters.get(EMBEDDING)
        if learned is None:
            return rows
        virtual, number = tokens >= self.num_embeddings, tokens - self.num_embeddings
        given = learned[number.clamp(min=0)].to(rows.dtype)
        return torch.where(virtual[..., None], given, rows)


def put(model: nn.Module, *, prompt: int, prefix: int) -> None:
    """Put ``prompt`` or ``prefix`` virtual tokens before every text of a language model, in place.

    They begin as tokens drawn from torch's global generator: as their rows, or as the keys and
    values that the model makes of them. All other parameters are frozen.

    Raises:
        ModelwrightError: the model is none that predicts the next token, or its context is short.
    """
    count, held = prompt or prefix, cast(Any, model)
    table = getattr(model, "embedding", None)
    if not isinstance(model, LanguageModel) or type(table) is not nn.Embedding:
        raise ModelwrightError(
            f"tune.adapter: a {type(model).__name__} has no place for learned prompts, models that "
            "predict the next token have; take low-rank adapters: rank"
        )
    if 2 * count > model.config.context:
        raise ModelwrightError(
            f"tune.adapter: {count} virtual tokens leave too little of a context of "
            f"{model.config.context}; take fewer"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    drawn = torch.randint(table.num_embeddings, (1, count), device=table.weight.device)
    if prefix:
        _put_prefix(model, drawn, Slots(table.num_embeddings))
    else:
        rows = table.weight.detach()[drawn[0]].clone()
        table.register_parameter(EMBEDDING, nn.Parameter(rows))
    tables: list[Any] = [table, *getattr(model, "value_embeddings", {}).values()]
    for one in tables:
        one.__class__ = Clamped
    held.slots = held.blocks[0].attention.slots if prefix else Slots(table.num_embeddings)
    held.virtual = tuple(range(table.num_embeddings, table.num_embeddings + count))
    held.__class__ = _prompted(type(model))


def _put_prefix(model: LanguageModel, drawn: Tensor, slots: Slots) -> None:
    """Let the attention of every block have keys and values of its own, begun with real ones."""
    attentions: list[Any] = [cast(Any, block).attention for block in model.blocks]
    for attention in attentions:
        attention.slots, attention.seen = slots, None
        kind: Any = type(attention)
        attention.__class__ = _prefixed(kind)
    slots.tokens = drawn
    if not drawn.is_meta:
        with torch.no_grad():
            model.hidden(drawn)
    for attention in attentions:
        width = attention.head_width
        empty = drawn.new_zeros(drawn.shape[1], attention.kv_heads, width, dtype=torch.float32)
        keys, values = attention.seen or (empty, empty)
        attention.register_parameter(KEYS, nn.Parameter(keys.clone()))
        attention.register_parameter(VALUES, nn.Parameter(values.clone()))
        del attention.seen


def remove(model: nn.Module) -> None:
    """Take virtual tokens out again; a model without any stays as it is."""
    if not hasattr(model, "virtual"):
        return
    held = cast(Any, model)
    held.__class__ = type(model).__mro__[1]
    for module in list(model.modules()):
        if isinstance(module, Clamped):
            module._parameters.pop(EMBEDDING, None)
            cast(Any, module).__class__ = nn.Embedding
        if KEYS in module._parameters:
            module._parameters.pop(KEYS)
            module._parameters.pop(VALUES)
            del module.slots
            module.__class__ = type(module).__mro__[1]
    del held.virtual, held.slots


@functools.cache
def _prompted(kind: Any) -> Any:
    """A language model's class that puts virtual tokens before documents that it reads whole."""

    def hidden(
        self: Any,
        tokens: Tensor,
        cache: Cache | None = None,
        counts: Tensor | None = None,
        starts: Tensor | Grid | None = None,
    ) -> Tensor:
        if cache is not None:
            self.slots.tokens = tokens
            continued: Tensor = kind.hidden(self, tokens, cache, counts)
            return continued
        if isinstance(starts, Grid):
            raise ModelwrightError(
                "export: a graph cannot hold learned prompts; export with --to peft"
            )
        b, t = tokens.shape
        if starts is None:
            starts = torch.arange(0, b * t + 1, t, device=tokens.device)
        longer, bounds, kept = _inserted(tokens.flatten(), starts, self.virtual)
        self.slots.tokens = longer[None]
        rows: Tensor = kind.hidden(self, longer[None], starts=bounds)[0]
        return rows[kept].view(b, t, -1)

    return type(f"Prompted{kind.__name__}", (kind,), {"hidden": hidden, "sliceable": False})


def _inserted(
    tokens: Tensor, starts: Tensor, virtual: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Packed tokens (N,) with the virtual ones before every document.

    Returns:
        The tokens, the documents' bounds among them, and where the N stand now.
    """
    count, documents = len(virtual), len(starts) - 1
    number = torch.arange(documents, device=tokens.device)
    kept = torch.arange(len(tokens), device=tokens.device)
    kept = kept + count * (1 + torch.repeat_interleave(number, starts.diff()))
    longer = tokens.new_empty(len(tokens) + count * documents)
    longer[kept] = tokens
    bounds = starts + count * torch.arange(documents + 1, device=tokens.device)
    ahead = bounds[:-1, None] + torch.arange(count, device=tokens.device)
    longer[ahead] = torch.tensor(virtual, device=tokens.device)
    return longer, bounds, kept


@functools.cache
def _prefixed(kind: Any) -> Any:
    """An attention's class with learned keys and values at virtual tokens."""
    name = "projected" if hasattr(kind, "projected") else "_projected"

    def projected(self: Any, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = getattr(kind, name)(self, *given)
        if KEYS not in self._parameters:  # the first time: of tokens that were drawn
            self.seen = tuple(y.detach().float().view(-1, *y.shape[-2:]) for y in (k, v))
            return q, k, v
        virtual, number = self.slots.where(k.shape[:-2])
        at = virtual[..., None, None]
        k = torch.where(at, self.virtual_keys[number].to(k.dtype), k)
        return q, k, torch.where(at, self.virtual_values[number].to(v.dtype), v)

    return type(f"Prefixed{kind.__name__}", (kind,), {name: projected})
