"""Train decoders of several sizes on several lengths of text, each to the end of its schedule.

    python -m benchmarks.scaling.sweep --minutes 40 --workers 2 --dearest 7e12

Every pair (size, tokens) is a run of its own whose rate falls to zero at its end: the losses
along one long run are those of an unfinished schedule (arXiv:2203.15556, section 3). Pairs that
``results.json`` holds already are kept, so the sweep may be done in parts. What the runs have in
common: the library's defaults (Muon, warm-up-stable-decay), a byte-level BPE of 4096 tokens,
windows of 256 tokens, one seed, English novels with whole authors held out for validation.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import tarfile
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelwright import runtime
from modelwright.data.codecs import text
from modelwright.errors import MachineError
from modelwright.models import decoder
from modelwright.objectives import next_token
from modelwright.training import budget
from modelwright.training.examples import Windows, windows_once
from modelwright.training.optimizers import build_optimizers
from modelwright.training.train import Observer, Record, Trainer, compute
from modelwright.types import Columns, Example, Ragged, text_turn

RESULTS = Path(__file__).with_name("results.json")
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
HELD_OUT = ("Conrad", "Gaskell", "Schreiner", "Wcollins")  # authors nothing is trained on
VOCABULARY, CONTEXT, SEED = 4096, 256, 1
FITTED_ON = 6_000_000  # characters of the train part that the merges are fitted on
VALIDATION_WINDOWS = 384
# (depth, width, heads, kv_heads), all below or at the smallest sizes the dial itself chooses
SHAPES = (
    (3, 64, 2, 1),
    (3, 96, 3, 3),
    (3, 128, 2, 1),
    (3, 192, 3, 3),
    (4, 256, 4, 2),
    (5, 320, 5, 5),
)
TOKENS = tuple(250_000 * 2**i for i in range(6))


class _Silent(Observer):
    """Keeps the loss of the last steps, writes nothing."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_step(self, record: Record, *, last: bool) -> None:  # noqa: ARG002
        """Keep the loss."""
        self.losses.append(record.loss)


def config(shape: tuple[int, int, int, int]) -> decoder.Config:
    """The decoder of a shape, all else the library's defaults."""
    depth, width, heads, kv_heads = shape
    return decoder.Config(
        vocabulary=VOCABULARY,
        depth=depth,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        context=CONTEXT,
    )


def batch_windows(tokens: int) -> int:
    """Windows a step: 4096 tokens at a million in all, doubled for every fourfold length."""
    return max(4, int(16 * 2.0 ** round(math.log(tokens / 1_000_000, 4) + 1e-9)))


def prepare(folder: Path) -> None:
    """Write train.npy, validation.npy (uint16) and tokenizer.json: the novels as tokens.

    Raises:
        MachineError: the data set is not on this machine.
    """
    source = Path(os.environ.get("MODELWRIGHT_DATA") or BESIDE).resolve() / "english_novels"
    archive = source / "novels.tar.xz"
    if not archive.is_file():
        raise MachineError(f"{archive}: no such file; name the data folder by MODELWRIGHT_DATA")
    parts: dict[str, list[str]] = {"train": [], "validation": []}
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            stream = tar.extractfile(member)
            if stream is None:
                continue
            held = Path(member.name).name.startswith(HELD_OUT)
            novel = stream.read().decode("utf-8", errors="replace")
            parts["validation" if held else "train"].append(novel)
    # Authors mixed, so that a part is like the whole.
    np.random.default_rng(SEED).shuffle(parts["train"])
    each = FITTED_ON // len(parts["train"])
    sample = [Example((text_turn("document", novel[:each]),)) for novel in parts["train"]]
    codec = text.Codec.fit(sample, vocabulary=VOCABULARY)
    (folder / "tokenizer.json").write_bytes(codec.save()["tokenizer.json"])
    for name, novels in parts.items():
        tokens = [codec.layout((text_turn("document", novel),))[0] for novel in novels]
        np.save(folder / f"{name}.npy", np.concatenate([np.array(t, np.uint16) for t in tokens]))


def _columns(path: Path) -> Columns:
    tokens = np.load(path, allow_pickle=False)
    return {"tokens": Ragged.of([tokens]), "learn": Ragged.of([np.ones(len(tokens), np.bool_)])}


def train(folder: Path, shape: tuple[int, int, int, int], tokens: int) -> dict[str, Any]:
    """One run on one thread: what it was and how it ended."""
    torch.set_num_threads(1)
    codec = text.Codec.load({"tokenizer.json": (folder / "tokenizer.json").read_bytes()})
    model_config = config(shape)
    torch.manual_seed(SEED)
    model = model_config.build()
    batch = batch_windows(tokens)
    steps = max(1, round(tokens / (batch * CONTEXT)))
    precision = torch.bfloat16
    trainer = Trainer(
        model=model,
        objective=next_token.Objective(codec),
        examples=Windows(_columns(folder / "train.npy"), batch, CONTEXT, seed=SEED),
        optimizers=build_optimizers(
            model,
            "muon",
            learning_rate=budget.RATES["muon"],
            matrix_learning_rate=0.02,
            momentum=0.95,
            weight_decay=0.0,
            precision=precision,
        ),
        steps=steps,
        seed=SEED,
        schedule=budget.SCHEDULE[0],
        warmup=budget.WARMUP[0],
        decay=budget.DECAY[0],
        precision=precision,
    )
    seen = _Silent()
    began = time.process_time()  # other programs may share the cores
    trainer.run(0, seen)
    seconds = time.process_time() - began
    loss, bits = _validated(trainer, folder)
    done = steps * batch * CONTEXT
    return {
        "depth": shape[0],
        "width": shape[1],
        "heads": shape[2],
        "kv_heads": shape[3],
        "matrix_parameters": model_config.matrix_parameters(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": done,
        "tokens_per_step": batch * CONTEXT,
        "steps": steps,
        "flops": model_config.flops_per_item() * done,
        "train_loss": round(float(np.mean(seen.losses[-max(1, steps // 20) :])), 4),
        "loss": round(loss, 4),
        "bits_per_byte": round(bits, 4),
        "cpu_seconds": round(seconds, 1),
    }


def _validated(trainer: Trainer, folder: Path) -> tuple[float, float]:
    """Nats per token and bits per byte over windows spread evenly through the held-out novels."""
    windows = list(windows_once(_columns(folder / "validation.npy"), 32, CONTEXT))
    every = max(1, len(windows) * 32 // VALIDATION_WINDOWS)
    generator = torch.Generator().manual_seed(0)
    total, items, spelled = 0.0, 0, 0
    trainer.model.eval()
    with torch.no_grad(), compute(trainer.precision, trainer.device):
        for columns in windows[::every]:
            batch = trainer.objective.collate(columns, generator)
            total += float(trainer.objective.loss(trainer.model, batch))
            items, spelled = items + batch.count, spelled + batch.bytes
    return total / items, total / spelled / math.log(2)


def plan(done: list[dict[str, Any]], dearest: float) -> list[tuple[tuple[int, int, int, int], int]]:
    """The pairs still to run, at most ``dearest`` FLOPs each, the most informative first.

    A law of five numbers wants the corners of the grid and its middle before its filling: every
    second size and length first.
    """
    kept = {(r["depth"], r["width"], round(math.log2(r["tokens"] / TOKENS[0]))) for r in done}
    pairs = []
    for i, shape in enumerate(SHAPES):
        for j, tokens in enumerate(TOKENS):
            flops = config(shape).flops_per_item() * tokens
            if flops <= dearest and (shape[0], shape[1], j) not in kept:
                pairs.append(((i % 2) + (j % 2), flops, shape, tokens))
    return [(shape, tokens) for *_, shape, tokens in sorted(pairs)]


def main() -> None:
    """Run what is missing within the minutes given, and write the table after every run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=40.0, help="start no run after this")
    parser.add_argument("--workers", type=int, default=2, help="runs at once, a thread each")
    parser.add_argument("--dearest", type=float, default=1.6e13, help="FLOPs of the dearest run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, help="a folder that keeps the tokens between sweeps")
    options = parser.parse_args()
    done = json.loads(options.out.read_text())["runs"] if options.out.exists() else []
    ends = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = options.cache or Path(name)
        if not (folder / "validation.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            prepare(folder)
        waiting = plan(done, options.dearest)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
            running: set[Future[dict[str, Any]]] = set()
            while waiting or running:
                while waiting and len(running) < options.workers and time.monotonic() < ends:
                    running.add(pool.submit(train, folder, *waiting.pop(0)))
                if not running:
                    break
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    done.append(future.result())
                    print(json.dumps(done[-1]), flush=True)
                    write(options.out, done)


def write(path: Path, runs: list[dict[str, Any]]) -> None:
    """The table of runs, a line each, with what they have in common."""
    ordered = sorted(runs, key=lambda r: (r["matrix_parameters"], r["tokens"]))
    common = {
        "data": "english_novels, authors held out: " + ", ".join(HELD_OUT),
        "vocabulary": VOCABULARY,
        "context": CONTEXT,
        "seed": SEED,
        "optimizer": "muon 0.02, adamw " + f"{budget.RATES['muon']:g}",
        "schedule": f"{budget.SCHEDULE[0]}, warmup {budget.WARMUP[0]:g}, decay {budget.DECAY[0]:g}",
        "precision": "bfloat16",
        "cpu": runtime.cpu_name(),
        "torch": torch.__version__,
    }
    lines = ",\n  ".join(json.dumps(run) for run in ordered)
    path.write_text(f'{{"common": {json.dumps(common, indent=1)},\n "runs": [\n  {lines}\n]}}\n')


if __name__ == "__main__":
    main()
