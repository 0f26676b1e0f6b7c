"""Mixtures of experts: decoders whose feed-forward block sends every token to a few of many.

For a token x, a router r and experts f_e (arXiv:2401.04088, Mixtral):

    p = softmax(r x),   S = the k largest of p,   y = sum_{e in S} p_e f_e(x)

with the p of S divided by their sum where ``normalised``. Qwen's mixtures add an expert that all
tokens go through, times sigmoid(s x) (arXiv:2407.10671). Everything else is ``models/llama.py``.

Left alone, routers send everything to a few experts. ``balance`` times

    E sum_e (share of the k N choices that fell on e, times k) * (mean of p_e over the tokens)

over the tokens and experts of all layers is added to the mean loss in training
(arXiv:2101.03961, equations 4 to 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models import llama
from modelwright.models.llama import FeedForward, Llama

Routed = tuple[Tensor, Tensor]  # choices and summed probabilities, (experts,) each, float32


@dataclass(frozen=True)
class Config(llama.Config):
    """Shape of a mixture: the fields of ``models.llama`` and those of the experts.

    Attributes:
        experts: of a layer.
        chosen: experts that a token goes through.
        expert_hidden: width of an expert; 0: as ``hidden``, which is that of dense layers.
        shared_hidden: width of the expert that all tokens go through; 0: there is none.
        normalised: whether the probabilities of the chosen add up to 1.
        dense_layers: numbers of the layers without experts.
        balance: weight of the loss that spreads tokens over the experts; 0: none.
    """

    family: ClassVar[str] = "mixture"
    compiles: ClassVar[bool] = True
    # Every expert is chosen, so that the gradient reaches all of them whatever the tokens are.
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "depth": 2,
        "width": 16,
        "heads": 4,
        "kv_heads": 2,
        "context": 512,
        "experts": 3,
        "chosen": 3,
        "shared_hidden": 24,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "mixtral-8x7b": {
            "depth": 32,
            "width": 4096,
            "heads": 32,
            "kv_heads": 8,
            "hidden": 14336,
            "context": 32768,
            "vocabulary": 32000,
            "rope_base": 1e6,
            "eps": 1e-5,
            "experts": 8,
            "chosen": 2,
        },
        "qwen1.5-moe-a2.7b": {
            "depth": 24,
            "width": 2048,
            "heads": 16,
            "kv_heads": 16,
            "hidden": 5632,
            "context": 8192,
            "vocabulary": 151936,
            "rope_base": 1e6,
            "qkv_bias": True,
            "experts": 60,
            "chosen": 4,
            "expert_hidden": 1408,
            "shared_hidden": 5632,
            "normalised": False,
        },
        "qwen3-30b-a3b": {
            "depth": 48,
            "width": 2048,
            "heads": 32,
            "kv_heads": 4,
            "head_width": 128,
            "hidden": 6144,
            "context": 40960,
            "vocabulary": 151936,
            "rope_base": 1e6,
            "qk_norm": True,
            "experts": 128,
            "chosen": 8,
            "expert_hidden": 768,
        },
    }
    experts: PositiveInt = 8
    chosen: PositiveInt = 2
    expert_hidden: NonNegativeInt = 0
    shared_hidden: NonNegativeInt = 0
    normalised: bool = True
    dense_layers: tuple[NonNegativeInt, ...] = ()
    balance: NonNegativeFloat = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chosen > self.experts:
            raise ModelwrightError(
                f"model.chosen: {self.chosen} of model.experts = {self.experts} cannot be chosen"
            )
        if self.head != "causal":
            raise ModelwrightError(
                "model.head: a mixture predicts the next token; for labels take a llama or encoder"
            )

    @property
    def expert_width(self) -> int:
        """The width of an expert, with the default filled in."""
        return self.expert_hidden or self.hidden_width

    def build(self) -> Mixture:
        """The module with fresh parameters."""
        return Mixture(self)

    def matrix_parameters(self) -> int:
        """Parameters in the blocks' matrices that one token goes through."""
        dense = len({i for i in self.dense_layers if i < self.depth})
        wide = self.chosen * self.expert_width + self.shared_hidden
        router = self.experts + bool(self.shared_hidden)
        mixed = self.width * (3 * wide + router)
        of_dense = 3 * self.width * self.hidden_width
        attention = self.depth * self.attention_parameters()
        return attention + dense * of_dense + (self.depth - dense) * mixed


class Experts(nn.Module):
    """The router and its experts; see the module."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.chosen, self.normalised = c.chosen, c.normalised
        self.router = nn.Linear(c.width, c.experts, bias=False)
        self.experts = nn.ModuleList(
            FeedForward(c.width, c.expert_width, c.activation) for _ in range(c.experts)
        )
        self.shared = (
            FeedForward(c.width, c.shared_hidden, c.activation) if c.shared_hidden else None
        )
        self.shared_gate = nn.Linear(c.width, 1, bias=False) if c.shared_hidden else None

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., width) to the same shape."""
        return self.routed(x)[0]

    def routed(self, x: Tensor) -> tuple[Tensor, Routed]:
        """The same, and how often every expert was chosen and how probable it was."""
        rows = x.reshape(-1, x.shape[-1])
        probabilities = self.router(rows).float().softmax(dim=-1)
        weights, chosen = probabilities.topk(self.chosen, dim=-1)
        if self.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        if torch.compiler.is_exporting():
            counts = F.one_hot(chosen, len(self.experts)).sum((0, 1))
            mixed = self._by_all(rows, chosen, weights)
        else:
            counts = torch.bincount(chosen.flatten(), minlength=len(self.experts))
            mixed = self._mixed(rows, chosen, weights, counts.tolist())
        if self.shared is not None and self.shared_gate is not None:
            mixed = mixed + torch.sigmoid(self.shared_gate(rows)) * self.shared(rows)
        return mixed.view(x.shape), (counts.float(), probabilities.sum(dim=0))

    def _by_all(self, rows: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """The same as ``_mixed`` where sizes cannot depend on values: every expert reads all."""
        shares = rows.new_zeros(rows.shape[0], len(self.experts))
        shares = shares.scatter(1, chosen, weights.to(rows.dtype))
        made = torch.stack([expert(rows) for expert in self.experts], dim=1)
        return (made * shares[..., None]).sum(dim=1)

    def _mixed(self, rows: Tensor, chosen: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
        """What the experts make of the rows (N, width) that chose them (N, k), added up.

        The choices are put in the order of the experts, so that each expert reads its rows as
        one piece, and back in the order of the rows, so that no two additions meet in one place.
        """
        order = chosen.flatten().argsort(stable=True)
        pieces = torch.split(rows[order // self.chosen], counts)
        # An expert without rows takes part in training: its gradient is zero, but there.
        made = [
            expert(piece)
            for expert, piece in zip(self.experts, pieces, strict=True)
            if len(piece) or torch.is_grad_enabled()
        ]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        parts = torch.cat(made)[back].view(*chosen.shape, -1)
        return (parts * weights.to(parts.dtype)[..., None]).sum(dim=1)


class Block(llama.Block):
    """A block of ``models.llama`` with experts, except in dense layers."""

    def __init__(self, config: llama.Config, number: int) -> None:
        super().__init__(config, number)
        c = cast(Config, config)
        if number not in c.dense_layers:
            self.feed_forward = Experts(c)

    def forward(
        self, x: Tensor, rotary: Any, starts: Tensor, reaching: bool
    ) -> tuple[Tensor, Routed | None]:
        """The stream (N, width), and how the tokens were spread over the experts."""
        mixed = self.attention(self.attention_norm(x), rotary, starts, reaching)
        x = x + self.attention_after(mixed)
        normed = self.feed_norm(x)
        if isinstance(self.feed_forward, Experts):
            fed, routed = self.feed_forward.routed(normed)
            return x + self.feed_after(fed), routed
        return x + self.feed_after(self.feed_forward(normed)), None


class Mixture(Llama):
    """Tokens (B, T) to logits (B, T, vocabulary)."""

    block = Block

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._routed: list[Routed] = []  # of the batch read last, by layer

    def regions(self) -> list[nn.Module]:
        """The parts of the blocks without experts, whose sizes change with every batch."""
        blocks = [cast(Block, block) for block in self.blocks]
        return [*(b.attention for b in blocks), *(b.feed_norm for b in blocks), self.norm]

    def hidden(
        self,
        tokens: Tensor,
        cache: Any = None,
        counts: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """The stream after the last norm, (B, T, width); see ``CausalLM.forward``."""
        self._routed = []
        return super().hidden(tokens, cache, counts, starts)

    def run(self, block: nn.Module, *given: Any) -> Tensor:
        """The stream behind a block; how it spread the tokens is kept."""
        x, routed = cast(Any, super().run(block, *given))
        if routed is not None:
            self._routed.append(routed)
        mapped: Tensor = x
        return mapped

    def imbalance(self) -> Tensor:
        """The loss that ``balance`` weighs, of the batch read last; k where all are even."""
        counts = torch.stack([c for c, _ in self._routed]).sum(dim=0)
        sums = torch.stack([p for _, p in self._routed]).sum(dim=0)
        rows = counts.sum() / self.config.chosen
        found: Tensor = self.config.experts * (counts / rows * sums / rows).sum()
        return found

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum over rows of -log p(target), in nats; in training with the loss that balances.

        The latter counts for every target as the mean over the batch, as if it were part of each.
        """
        loss = super().negative_log_likelihood(hidden, targets)
        if self.training and self.config.balance and self._routed and torch.is_grad_enabled():
            loss = loss + self.config.balance * len(targets) * self.imbalance()
            self._routed = []  # its graph is not to outlive the step
        return loss
