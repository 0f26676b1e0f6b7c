"""nanoGPT's own train.py, whole: its model, its batches, its optimiser, its loop.

Its text is read from the checkout and a few lines are exchanged on the way, each of which must
be there exactly once. They take the clock, give the vocabulary without a pickled file, leave out
the evaluation that does not belong to training, and lift its neglect of ``--dtype`` on a CPU.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.training import data
from benchmarks.training.clock import Clock, emit
from benchmarks.training.peers.checkouts import checkout
from benchmarks.training.shapes import SHAPES, Shape
from modelwright.errors import MachineError

CHANGES = {
    "ctx = nullcontext() if device_type == 'cpu' else torch.amp.autocast(": (
        "ctx = nullcontext() if dtype == 'float32' else torch.amp.autocast("
    ),
    "meta_vocab_size = None\n": "meta_vocab_size = VOCABULARY\n",
    "torch.manual_seed(1337 + seed_offset)": "torch.manual_seed(SEED)",
    "if iter_num % eval_interval == 0 and master_process:": "if False:",
    "t0 = time.time()\nlocal_iter_num = 0": "BEFORE()\nt0 = time.time()\nlocal_iter_num = 0",
    "    iter_num += 1\n": "    iter_num += 1\n    AFTER(iter_num, loss, model, ctx)\n",
}

# The run on a CPU that its README documents, and the best settings found for it here.
README = Shape(depth=4, width=128, heads=4, vocabulary=65, context=64, batch=12)
BEST = Shape(depth=4, width=256, heads=4, vocabulary=65, context=128, batch=32)
EVALUATE_EVERY = 25  # the judge's evaluations, with the clock stopped
EVALUATE_FROM = 400  # at 1.64M tokens of about 4M that it needs


class Reached(Exception):
    """The loss is low enough; nothing more is to be trained."""


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "readme", "target"))
    parser.add_argument("--shape", default="S", choices=SHAPES)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", type=float, default=1.60)
    arguments = parser.parse_args()
    {"speed": speed, "readme": readme, "target": to_target}[arguments.what](arguments)


def speed(arguments: argparse.Namespace) -> None:
    """Seconds of ordinary steps."""
    shape, clock = SHAPES[arguments.shape], Clock()
    tokens = data.stream(shape.vocabulary, 500_000, arguments.seed)

    def after(number: int, loss: Any, model: Any, ctx: Any) -> None:  # noqa: ARG001
        clock.stamp(loss.item())

    settings = {
        "max_iters": arguments.warmup + arguments.steps - 1,  # it makes one more
        "dtype": arguments.precision,
        "compile": arguments.compile,
        "learning_rate": 1e-3,
    }
    train(shape, settings, tokens=tokens, seed=arguments.seed, clock=clock, after=after)
    clock.report(arguments.warmup, shape.tokens)


def readme(arguments: argparse.Namespace) -> None:
    """Wall time of the documented run, and the loss it ends with."""
    ended: dict[str, float] = {}

    def after(number: int, loss: Any, model: Any, ctx: Any) -> None:
        clock.losses.append(loss.item())
        if number == steps:
            ended["wall"] = clock.now()
            ended["loss"] = validate(model, ctx, README)

    clock, steps = Clock(), arguments.steps
    settings = {
        "max_iters": steps - 1,
        "lr_decay_iters": steps,
        "dtype": "float32",
        "compile": False,
        "learning_rate": 1e-3,
        "min_lr": 1e-4,
        "beta2": 0.99,
    }
    train(README, settings, seed=arguments.seed, clock=clock, after=after)
    emit(wall_seconds=ended["wall"], loss=ended["loss"], steps=steps, reached=True)


def to_target(arguments: argparse.Namespace) -> None:
    """Wall time until the loss of the whole validation part is at the target."""
    ended: dict[str, float] = {}

    def after(number: int, loss: Any, model: Any, ctx: Any) -> None:  # noqa: ARG001
        ended["wall"], ended["steps"] = clock.now(), number
        last = number == arguments.steps
        if last or (number >= EVALUATE_FROM and number % EVALUATE_EVERY == 0):
            with clock.paused():
                ended["loss"] = validate(model, ctx, BEST)
            if ended["loss"] <= arguments.target:
                raise Reached

    clock = Clock()
    settings = {
        "max_iters": arguments.steps - 1,
        "lr_decay_iters": arguments.steps,
        "dtype": arguments.precision,
        "compile": arguments.compile,
        "learning_rate": 2e-3,
        "min_lr": 2e-4,
        "beta2": 0.99,
    }
    train(BEST, settings, seed=arguments.seed, clock=clock, after=after)
    reached = ended["loss"] <= arguments.target
    emit(wall_seconds=ended["wall"], loss=ended["loss"], steps=ended["steps"], reached=reached)


def train(
    shape: Shape,
    settings: dict[str, Any],
    *,
    tokens: data.Tokens | None = None,
    seed: int,
    clock: Clock,
    after: Any,
) -> None:
    """Run its train.py on ``tokens`` (left out: tinyshakespeare) with its own command line."""
    home = checkout("nanoGPT")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        training = data.shakespeare()[0] if tokens is None else tokens
        training.astype("uint16").tofile(folder / "train.bin")
        line = {
            "dataset": name,
            "out_dir": name,
            "device": "cpu",
            "gradient_accumulation_steps": 1,
            "batch_size": shape.batch,
            "block_size": shape.context,
            "n_layer": shape.depth,
            "n_head": shape.heads,
            "n_embd": shape.width,
            "dropout": 0.0,
            "warmup_iters": 100,
            **settings,
        }
        (folder / "train.py").write_text(changed((home / "train.py").read_text(encoding="utf-8")))
        sys.argv = ["train.py", *(f"--{key}={value}" for key, value in line.items())]
        sys.path.insert(0, str(home))
        os.chdir(home)  # it reads configurator.py from where it stands
        hooks = {
            "VOCABULARY": shape.vocabulary,
            "SEED": seed,
            "BEFORE": clock.stamp,
            "AFTER": after,
        }
        try:
            runpy.run_path(str(folder / "train.py"), init_globals=hooks)
        except Reached:
            return


def changed(source: str) -> str:
    """Its train.py with the lines of ``CHANGES`` exchanged."""
    for old, new in CHANGES.items():
        if source.count(old) != 1:
            raise MachineError(f"nanoGPT: train.py has {source.count(old)} times {old!r}, not once")
        source = source.replace(old, new)
    return source


def validate(model: Any, ctx: Any, shape: Shape) -> float:
    """Mean loss over every character of the validation part, in windows of its context."""
    import torch  # noqa: PLC0415 - train.py imports it within the measured start-up

    tokens = torch.from_numpy(data.shakespeare()[1])
    bare = getattr(model, "_orig_mod", model)  # not compiled: evaluating has shapes of its own
    bare.eval()
    total = 0.0
    with torch.no_grad(), ctx:
        for start in range(0, len(tokens) - 1, 64 * shape.context):
            part = tokens[start : start + 64 * shape.context + 1]
            whole = (len(part) - 1) // shape.context * shape.context
            x, y = part[:-1][:whole], part[1:][:whole]
            if whole:
                width = (-1, shape.context)
                total += float(bare(x.view(width), y.view(width))[1]) * whole
            if whole < len(part) - 1:
                rest = (part[whole:-1][None], part[whole + 1 :][None])
                total += float(bare(*rest)[1]) * rest[0].numel()
    bare.train()
    return total / (len(tokens) - 1)


if __name__ == "__main__":
    main()
