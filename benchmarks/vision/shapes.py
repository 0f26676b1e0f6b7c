"""What ResNet-18 is trained with, the same for ours and every peer."""

from __future__ import annotations

BATCH = 128
RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4  # the rate falls along a cosine to zero
DEPTHS, WIDTHS = (2, 2, 2, 2), (64, 128, 256, 512)
