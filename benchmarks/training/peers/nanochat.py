"""nanochat's model and optimiser in the loop of its base_train.py, on a CPU.

The window pattern is "L", as its training script advises where FlashAttention 3 is missing. Its
optimiser (Muon for matrices, AdamW for the rest) is a part of it and stays.
"""

from __future__ import annotations

import argparse
import gc
import sys

from benchmarks.training import data
from benchmarks.training.clock import Clock
from benchmarks.training.peers.checkouts import checkout
from benchmarks.training.shapes import SHAPES


def main() -> None:
    """Measure ordinary steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="S", choices=SHAPES)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    shape, clock = SHAPES[arguments.shape], Clock()
    sys.path.insert(0, str(checkout("nanochat")))
    import torch  # noqa: PLC0415 - within the measured start-up
    from nanochat.gpt import GPT, GPTConfig  # noqa: PLC0415

    torch.manual_seed(arguments.seed)
    with torch.device("meta"):
        model = GPT(
            GPTConfig(
                sequence_len=shape.context,
                vocab_size=shape.vocabulary,
                n_layer=shape.depth,
                n_head=shape.heads,
                n_kv_head=shape.heads,
                n_embd=shape.width,
                window_pattern="L",
            )
        )
    model.to_empty(device="cpu")
    model.init_weights()
    compiled = torch.compile(model, dynamic=False)
    optimizer = compiled.setup_optimizer()
    tokens = torch.from_numpy(data.stream(shape.vocabulary, 500_000, arguments.seed))
    reach = torch.arange(shape.context + 1)
    clock.stamp()
    for step in range(arguments.warmup + arguments.steps):
        starts = torch.randint(len(tokens) - shape.context, (shape.batch, 1))
        rows = tokens[starts + reach]
        loss = compiled(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
        loss.backward()
        optimizer.step()
        compiled.zero_grad(set_to_none=True)
        clock.stamp(loss.item())
        if step == 0:  # as its loop does
            gc.collect()
            gc.freeze()
            gc.disable()
    clock.report(arguments.warmup, shape.tokens)


if __name__ == "__main__":
    main()
