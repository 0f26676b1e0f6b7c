"""An independent classifier that judges made pictures: trained on real ones, then frozen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from modelwright import runtime
from modelwright.models.fast_cnn import Config
from modelwright.objectives import make_objective
from modelwright.training import signals
from modelwright.training.examples import Shuffled, once
from modelwright.training.optimizers import build_optimizers
from modelwright.training.train import Trainer
from modelwright.types import Array, Codec, Columns, rows_in

SEEN = 120_000  # pictures that the classifier sees while it learns
PASSES = 30  # over few pictures at most
BATCH = 128
WIDTHS = (24, 48, 96)
RATE = 0.003


@dataclass
class Judge:
    """A frozen classifier. Its features are the largest value of each of its last planes."""

    model: nn.Module
    codec: Codec

    def read(self, pictures: Array) -> tuple[Array, Array]:
        """Class numbers (N,) and features (N, width) of pictures uint8 (N, *shape)."""
        columns = {"features": pictures, "label": np.full(len(pictures), -1)}
        device = next(self.model.parameters()).device
        kept: list[Tensor] = []

        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            kept.append(inputs[0].float().cpu())

        hook = self.model.get_submodule("head").register_forward_pre_hook(keep)
        try:
            with torch.inference_mode():
                parts = [
                    self.model(self.codec.tensors(part)["features"].to(device)).argmax(dim=1)
                    for part in once(columns, BATCH)
                ]
        finally:
            hook.remove()
        return torch.cat(parts).cpu().numpy(), torch.cat(kept).numpy()


def trained_judge(codec: Codec, train: Columns, seed: int) -> Judge:
    """A convolutional network trained on the real pictures of ``train`` and their labels."""
    torch.manual_seed(runtime.derived_seed(seed, "judge"))
    fields = Config.data_fields(codec)
    model = Config(**fields, widths=_widths(fields["image"])).build()
    device = runtime.device()
    model.to(device)
    rows = rows_in(train)
    optimizers = build_optimizers(
        model,
        "adamw",
        learning_rate=RATE,
        matrix_learning_rate=RATE,
        momentum=0.9,
        weight_decay=0.01,
        precision=torch.float32,
    )
    trainer = Trainer(
        model=model,
        objective=make_objective("classification", codec, {}),
        examples=Shuffled(train, BATCH, seed=runtime.derived_seed(seed, "judge", "rows")),
        optimizers=optimizers,
        steps=max(1, min(SEEN, PASSES * rows) // min(BATCH, rows)),
        seed=runtime.derived_seed(seed, "judge", "steps"),
        schedule="linear",
        warmup=0.1,
        device=device,
    )
    model.train()
    for step in range(trainer.steps):
        trainer.step(step)
        signals.check()
    model.eval().requires_grad_(requires_grad=False)
    return Judge(model, codec)


def _widths(image: tuple[int, int]) -> tuple[int, ...]:
    """As many blocks as the sides can be halved."""
    blocks = len(WIDTHS) - 1
    while blocks and any(side % 2**blocks for side in image):
        blocks -= 1
    return WIDTHS[: blocks + 1]
