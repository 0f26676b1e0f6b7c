"""The shapes of the comparison, the same for ours and every peer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A decoder and its batch: ``batch`` rows of ``context`` tokens a step."""

    depth: int
    width: int
    heads: int
    vocabulary: int
    context: int
    batch: int

    @property
    def tokens(self) -> int:
        """Tokens of one step."""
        return self.batch * self.context

    @property
    def product_parameters(self) -> int:
        """Parameters that every token is multiplied with: 12 width^2 a block, and the head."""
        return 12 * self.depth * self.width**2 + self.vocabulary * self.width

    @property
    def flops_per_token(self) -> float:
        """Model FLOPs of forward and backward, 6 N + 12 L d T (arXiv:2204.02311, appendix B)."""
        return 6.0 * self.product_parameters + 12.0 * self.depth * self.width * self.context


SHAPES = {
    "tiny": Shape(depth=2, width=64, heads=2, vocabulary=65, context=32, batch=4),  # for tests
    "S": Shape(depth=4, width=256, heads=4, vocabulary=65, context=256, batch=32),
    "L": Shape(depth=8, width=512, heads=8, vocabulary=8192, context=512, batch=8),
}

# Fine-tuning: 22.8M parameters, of which 16.4M are the embedding and the untied head.
TUNED = Shape(depth=8, width=256, heads=4, vocabulary=32_000, context=1024, batch=8)
TUNED_HIDDEN = 704  # of the gated feed-forward block: 8/3 of the width, rounded up to 64
CLASSIFIER = Shape(depth=4, width=256, heads=4, vocabulary=30_522, context=512, batch=16)
CLASSIFIER_DROPOUT = 0.1
MNIST_WIDTHS = (784, 128, 64, 10)
MNIST_BATCH = 64
MNIST_RATE, MNIST_MOMENTUM = 0.05, 0.9
