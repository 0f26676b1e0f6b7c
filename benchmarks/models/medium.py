"""GPT-2's medium shape, 355M, on a machine of 24 GiB: read, one training step, some text.

A folder in the hub's layout is written from random weights; another process, which is the one that
is measured, reads it, takes one step of AdamW in bfloat16 and then writes greedily, with the cache.
"ours" is the peak that is forecast for steps after the first, "peer" that of the whole process,
which takes one step alone: before the heap has grown to what the forecast counts.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.run import Row
from modelwright.errors import MachineError

LIMIT = 24.0  # GiB
ROWS, CONTEXT, TOKENS = 2, 512, 16
SIZES = {False: "gpt2-medium", True: "distilgpt2"}


def rows(quick: bool) -> list[Row]:
    """One row: forecast over measured, and whether it is what the machine has."""
    with tempfile.TemporaryDirectory() as folder:
        _child("write", SIZES[quick], folder)
        found = _child("use", SIZES[quick], folder)
    return [answered(SIZES[quick], found)]


def answered(size: str, found: dict[str, Any]) -> Row:
    """The row of what the process said."""
    said, real = (found[k] / 2**30 for k in ("forecast", "peak"))
    sound = math.isfinite(found["loss"]) and found["tokens"] == TOKENS
    return Row(
        f"{size} read, a step of {ROWS} x {CONTEXT} in bfloat16, {TOKENS} tokens: peak;"
        f" {found['parameters'] / 1e6:.0f}M, loss {found['loss']:.2f}, "
        f"a step of {found['step_seconds']:.1f} s",
        f"{said:.2f} GiB",
        f"{real:.2f} GiB",
        said / real,
        f"measured under {LIMIT:.0f} GiB",
        sound and real < LIMIT,
    )


def _child(*words: str) -> dict[str, Any]:
    """What a process of its own says in its last line.

    Raises:
        MachineError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.models.medium", *words],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = "".join(done.stderr.strip().splitlines()[-1:])
        raise MachineError(f"bench: the 355M shape failed ({done.returncode}): {last}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_folder(size: str, folder: Path) -> dict[str, Any]:
    """Random weights in the hub's layout."""
    import torch  # noqa: PLC0415 - only the child needs all this

    from modelwright.hub.families import family_of  # noqa: PLC0415
    from modelwright.hub.writing import write  # noqa: PLC0415
    from modelwright.models.model import config_class, of_named_size  # noqa: PLC0415

    cls = config_class("gpt2")
    config = cls(**of_named_size(cls, {"size": size}))
    torch.manual_seed(0)
    write(folder, config.build(), config, family_of("gpt2", "bench"))
    return {}


def use(folder: Path) -> dict[str, Any]:
    """Read the folder, train a step, write some tokens; then what was forecast of the step."""
    import dataclasses  # noqa: PLC0415
    import time  # noqa: PLC0415

    import torch  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415
    from modelwright.hub.files import find  # noqa: PLC0415
    from modelwright.hub.loading import load  # noqa: PLC0415
    from modelwright.pipeline.memory import Forecast, Step  # noqa: PLC0415
    from modelwright.training.optimizers import build_optimizers  # noqa: PLC0415

    loaded = load(find(str(folder)), dtype=torch.float32)
    model: Any = loaded.model.train()
    torch.manual_seed(0)
    tokens = torch.randint(50_257, (ROWS, CONTEXT + 1))
    optimizers = build_optimizers(
        model,
        "adamw",
        learning_rate=1e-4,
        matrix_learning_rate=1e-3,
        momentum=0.9,
        weight_decay=0.0,
        precision=torch.bfloat16,
    )
    began = time.perf_counter()
    starts = torch.arange(0, ROWS * CONTEXT + 1, CONTEXT)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.hidden(tokens[:, :-1], starts=starts).flatten(0, -2)
        count = len(hidden)
        loss = model.negative_log_likelihood(hidden, tokens[:, 1:].flatten()) / count
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizers.step()
    taken, value = time.perf_counter() - began, float(loss.detach())
    del loss, hidden
    written = _greedy(model.eval(), tokens[:1, :8])
    peak = runtime.peak_memory_bytes()  # before the forecast, which is made in this process too
    said = Forecast(dataclasses.replace(loaded.config, context=CONTEXT)).memory(
        Step(ROWS, optimizer="adamw", precision="bfloat16")
    )
    return {
        "forecast": said.total if said else 0.0,
        "peak": peak,
        "loss": value,
        "tokens": len(written),
        "step_seconds": taken,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _greedy(model: Any, prompt: Any) -> list[int]:
    import torch  # noqa: PLC0415

    cache = model.new_cache(1, prompt.shape[1] + TOKENS)
    found: list[int] = []
    with torch.no_grad():
        for _ in range(TOKENS):
            prompt = model.head(model.hidden(prompt, cache)[:, -1]).argmax(-1, keepdim=True)
            found.append(int(prompt))
    return found


if __name__ == "__main__":
    what, named, where = sys.argv[1:]
    done = write_folder(named, Path(where)) if what == "write" else use(Path(where))
    print(json.dumps(done))
