"""How loss falls with size and text, and what follows for a given amount of computing.

    L(N, D) = E + A / N^a + B / D^b                         (Hoffmann et al., arXiv:2203.15556)

N counts the parameters of the blocks' matrices, D the tokens trained on, L is in nats per token.
With k N FLOPs a token, C = k N D, the least loss is at

    N* = G (C / k)^(b / (a + b)),   D* = (C / k) / N*,   G = (a A / (b B))^(1 / (a + b)).

Two laws are kept. ``OURS`` is fitted to the sweep in ``benchmarks/scaling`` (the library's own
decoder and optimiser, small sizes); ``PUBLISHED`` is the corrected fit of the runs of Hoffmann et
al. from 44M to 16B parameters (Besiroglu et al., arXiv:2404.10102), for what is far beyond ours.
Tokens differ between vocabularies and so do their losses: what carries over to other text is how
to divide the computing, less so the loss itself.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOPS_PER_PARAMETER = 6.0  # forward and backward of a product, a token


@dataclass(frozen=True)
class Law:
    """The five numbers, what they were fitted to, and how well they foresee.

    ``error`` is the mean relative error of the loss of runs left out of the fit, one at a time;
    ``sizes`` and ``tokens`` are the (least, most) of the runs, beyond which it extrapolates.
    """

    entropy: float
    size_factor: float
    size_power: float
    token_factor: float
    token_power: float
    error: float
    sizes: tuple[float, float]
    tokens: tuple[float, float]
    source: str

    def loss(self, size: float, tokens: float) -> float:
        """Nats per token of ``size`` matrix parameters after ``tokens`` tokens."""
        by_size: float = self.size_factor / size**self.size_power
        by_tokens: float = self.token_factor / tokens**self.token_power
        return self.entropy + by_size + by_tokens

    def best(self, flops: float, per_parameter: float = FLOPS_PER_PARAMETER) -> tuple[float, float]:
        """(size, tokens) of least loss for ``flops`` = per_parameter * size * tokens."""
        a, b = self.size_power, self.token_power
        balance = (a * self.size_factor / (b * self.token_factor)) ** (1 / (a + b))
        size = balance * (flops / per_parameter) ** (b / (a + b))
        return size, flops / per_parameter / size

    def best_decoder(self, flops: float, vocabulary: int, context: int) -> tuple[float, float]:
        """The same for a decoder of usual proportions, its head and attention paid for.

        The closed form leaves these out; yet a head costs a small model more than its blocks.
        Sizes are tried from a thousand to a trillion, 50 for each tenfold.
        """
        sizes = (10 ** (3 + i / 50) for i in range(451))
        pairs = ((n, flops / flops_per_token(n, vocabulary, context)) for n in sizes)
        return min(pairs, key=lambda pair: self.loss(*pair))

    def best_size(self, tokens: float) -> float:
        """The size for which ``tokens`` is the best length: where dL/dN : dL/dD is that of C."""
        a, b = self.size_power, self.token_power
        ratio = a * self.size_factor / (b * self.token_factor)
        return float((ratio * tokens**b) ** (1 / a))

    def best_tokens(self, size: float) -> float:
        """The length for which ``size`` is the best size: the inverse of ``best_size``."""
        a, b = self.size_power, self.token_power
        ratio = a * self.size_factor / (b * self.token_factor)
        return float((size**a / ratio) ** (1 / b))

    def reach(self, size: float, tokens: float) -> float:
        """By how much (size, tokens) lies outside the runs fitted: 1 inside, 10 at ten times."""
        outside = [1.0]
        for value, (least, most) in ((size, self.sizes), (tokens, self.tokens)):
            outside += [least / value, value / most]
        return max(outside)


def flops_per_token(size: float, vocabulary: int, context: int) -> float:
    """FLOPs a token of a decoder of width 64 x depth with ``size`` = 12 depth width^2.

    6 for each parameter of the blocks and of the head, and 6 depth width context for causal
    attention (arXiv:2204.02311, appendix B, halved for the mask).
    """
    width: float = (64 * size / 12) ** (1 / 3)
    return FLOPS_PER_PARAMETER * (size + vocabulary * width + width / 64 * width * context)


# Eight short runs, so far, with the powers held; see docs/concepts/scaling.md.
OURS = Law(
    entropy=4.0844,
    size_factor=45.1789,
    size_power=0.3478,
    token_factor=80.1595,
    token_power=0.3658,
    error=0.0101,
    sizes=(135168, 2883584),
    tokens=(60416, 999424),
    source="benchmarks/scaling/results.json, 8 runs, powers of arXiv:2404.10102",
)

PUBLISHED = Law(
    entropy=1.8172,
    size_factor=482.01,
    size_power=0.3478,
    token_factor=2085.43,
    token_power=0.3658,
    error=0.005,  # of the fit itself: the paper gives no error of runs left out
    sizes=(44e6, 16e9),
    tokens=(2e8, 1e12),
    source="arXiv:2404.10102, a corrected fit to the runs of arXiv:2203.15556 (vocabulary 32000)",
)


def nearest(size: float, tokens: float) -> Law:
    """The law that extrapolates least to (size, tokens)."""
    return min((OURS, PUBLISHED), key=lambda law: law.reach(size, tokens))
