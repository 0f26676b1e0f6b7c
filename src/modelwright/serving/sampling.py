"""From logits to the next token: greedy, temperature, top-k, nucleus, min-p."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.serving.constraint import Grammar


@dataclass(frozen=True)
class SamplingParams:
    """How one request wants its tokens drawn.

    ``max_tokens``: the most tokens to generate, clipped to what fits in the context.
    ``temperature``: the divisor of the logits; 0 takes the likeliest token every time.
    ``top_k``: draw from the k likeliest tokens only (0: all).
    ``top_p``: draw from the fewest likeliest tokens that hold this probability
    (arXiv:1904.09751), after ``top_k``.
    ``min_p``: of these, only tokens at least this times as likely as the likeliest
    (arXiv:2407.01082).
    ``frequency_penalty``, ``presence_penalty``: taken off the logit of a token for every time,
    and once, that the answer has it already; ``repetition_penalty`` divides a positive and
    multiplies a negative logit of what prompt or answer have (arXiv:1909.05858). ``logit_bias``:
    (token, what is added to its logit).
    ``seed``: the start of the request's own random numbers; None draws one.
    ``stop``: texts that end the answer and are not part of it; ``stop_token_ids``: tokens that do.
    ``min_tokens``: before so many nothing of these, nor the model itself, ends the answer.
    ``ignore_eos``: the model itself never ends it.
    ``logprobs``: tell the log-probability of every token, and as many of the likeliest beside it;
    None tells nothing. They are the model's own, at temperature 1 and before all penalties.
    ``echo``: tell those of the prompt too; only then ``max_tokens`` may be 0.
    ``grammar``: what the answer must match; see ``constraint``.
    ``beams``: how many unfinished answers are kept at every step; 1 takes token by token.
    ``length_penalty``: of answers found with beams the one of the highest
    log p(answer) / length^length_penalty is given; below 1 favours short ones.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    echo: bool = False
    grammar: Grammar | None = None
    beams: int = 1
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        checks = {
            "max_tokens": (self.max_tokens >= (0 if self.echo else 1), "at least 1"),
            "temperature": (0 <= self.temperature <= 100, "between 0 and 100"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "0 (all) or more"),
            "min_p": (0 <= self.min_p <= 1, "between 0 and 1"),
            "frequency_penalty": (-2 <= self.frequency_penalty <= 2, "between -2 and 2"),
            "presence_penalty": (-2 <= self.presence_penalty <= 2, "between -2 and 2"),
            "repetition_penalty": (0 < self.repetition_penalty <= 10, "above 0 and at most 10"),
            "logprobs": (self.logprobs is None or 0 <= self.logprobs <= 20, "between 0 and 20"),
            "seed": (self.seed is None or -(1 << 63) <= self.seed < 1 << 63, "a 64-bit integer"),
            "stop": (all(self.stop), "made of non-empty texts"),
            "min_tokens": (self.min_tokens >= 0, "0 or more"),
            "beams": (1 <= self.beams <= 64, "between 1 and 64"),
            "length_penalty": (0 <= self.length_penalty <= 10, "between 0 and 10"),
        }
        for name, (held, wanted) in checks.items():
            if not held:
                raise ModelwrightError(f"{name}: {getattr(self, name)!r} is not {wanted}")
        scored = self.logprobs is not None
        if self.beams > 1 and (
            self.temperature > 0 or self.steered or scored or self.stop_token_ids
        ):
            raise ModelwrightError(
                "beams: the likeliest answers are looked for, none is drawn; leave out temperature,"
                " penalties, logit_bias, logprobs, grammar, stop_token_ids, min_tokens, ignore_eos"
            )
        if self.lasting and self.grammar is not None:
            name = "ignore_eos" if self.ignore_eos else "min_tokens"
            raise ModelwrightError(
                f"{name}: an answer of a form ends where that does; leave it out"
            )

    @property
    def lasting(self) -> bool:
        """Whether the answer may not end where the model would end it."""
        return bool(self.min_tokens or self.ignore_eos)

    @property
    def steered(self) -> bool:
        """Whether logits are changed before a token is taken; see ``steering``."""
        return bool(
            self.frequency_penalty
            or self.presence_penalty
            or self.repetition_penalty != 1
            or self.logit_bias
            or self.grammar
            or self.lasting
        )

    def generator(self) -> torch.Generator:
        """The request's own source of randomness; the global one is never touched (law 12)."""
        seed = secrets.randbits(63) if self.seed is None else self.seed
        return torch.Generator().manual_seed(seed)


def check_finite(logits: Tensor) -> None:
    """Refuse logits that no sound model gives.

    Raises:
        ModelwrightError: logits are not finite, so the weights are broken.
    """
    # A sum is one pass over them and finite only if all are; if it is not, it may be too large.
    if not math.isfinite(float(logits.sum())) and not bool(torch.isfinite(logits).all()):
        raise ModelwrightError(
            "the model's logits are not finite numbers; its weights are broken: "
            "use an earlier checkpoint"
        )


def sample(
    logits: Tensor, params: Sequence[SamplingParams], generators: Sequence[torch.Generator]
) -> list[int]:
    """One token for every row of logits (B, V); -inf forbids a token.

    A row's token depends on its own logits, params and generator alone: it draws one uniform
    number u and takes the first token, from the likeliest down, whose cumulative probability
    exceeds u (inversion of the distribution function). So a request gives the same tokens
    alone and in a full batch (law 5).
    """
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    drawn = [i for i, p in enumerate(params) if p.temperature > 0]
    if drawn:
        chosen = _draw(
            logits[drawn].double(), [params[i] for i in drawn], [generators[i] for i in drawn]
        )
        for i, token in zip(drawn, chosen, strict=True):
            tokens[i] = token
    return tokens


def _draw(
    logits: Tensor, params: Sequence[SamplingParams], generators: Sequence[torch.Generator]
) -> list[int]:
    """Draw from softmax(logits / temperature), cut to top-k, min-p, top-p; logits float64."""

    def column(values: Sequence[float]) -> Tensor:
        return logits.new_tensor(values)[:, None]

    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    # The largest logit is taken off first: a tiny temperature must not overflow.
    scaled = (ordered - ordered[:, :1]) / column([p.temperature for p in params])
    rank = torch.arange(logits.shape[-1], device=logits.device)
    most = column([p.top_k or logits.shape[-1] for p in params])
    probability = torch.where(rank < most, scaled, -torch.inf).softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability  # the mass of all likelier tokens
    within = before < column([p.top_p for p in params])
    within &= probability >= column([p.min_p for p in params]) * probability[:, :1]
    kept = torch.where(within, probability, 0.0)
    cumulative = kept.cumsum(dim=-1)
    uniform = column([torch.rand((), generator=g, dtype=torch.float64).item() for g in generators])
    # Counting the tokens at or below u finds the first above it; the last kept token bounds it,
    # should rounding leave the total a hair below u.
    place = (cumulative <= uniform * cumulative[:, -1:]).sum(dim=-1)
    place = torch.minimum(place, (kept > 0).sum(dim=-1) - 1)
    chosen: list[int] = order.gather(1, place[:, None])[:, 0].tolist()
    return chosen
