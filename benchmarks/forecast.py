"""Do the forecasts of memory and time hold? GPT-2 shapes of 124M and 355M, AdamW, on this machine.

Each shape trains 20 steps (quick: 3, of the smaller alone) in a process of its own, which first
measures the machine for five seconds. "ours" is the forecast, "peer" what was measured.

It wants the machine for itself: steps and probe are timed by the clock. (Processor seconds over
threads, which once stood here, say nothing of a product that not all threads work on.)
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.run import Row
from modelwright.errors import MachineError

# Depth, width, heads, rows a micro-batch, precision.
SHAPES = {
    "124M float32, 1 x 1024": (12, 768, 12, 1, "float32"),
    "124M bfloat16, 4 x 1024": (12, 768, 12, 4, "bfloat16"),
    "355M float32, 1 x 1024": (24, 1024, 16, 1, "float32"),
    "355M bfloat16, 2 x 1024": (24, 1024, 16, 2, "bfloat16"),
}
VOCABULARY, CONTEXT, STEPS = 50_257, 1024, 20


def questions(quick: bool) -> list[Row]:
    """Forecast over measurement, memory within 15 % and time within 25 %."""
    rows = []
    for name, shape in list(SHAPES.items())[: 1 if quick else None]:
        found = measured(shape, 3 if quick else STEPS)
        for what, unit, bar in (("peak memory", "GiB", 0.15), ("time of a step", "s", 0.25)):
            forecast, real = found[what]
            ratio = forecast / real
            rows.append(
                Row(
                    f"{what}, {name}",
                    f"{forecast:.2f} {unit}",
                    f"{real:.2f} {unit}",
                    ratio,
                    f"within {bar:.0%}",
                    abs(ratio - 1) <= bar,
                )
            )
    return rows


def measured(shape: tuple[int, int, int, int, str], steps: int) -> dict[str, list[float]]:
    """(forecast, measured) by what, from a process of its own.

    Raises:
        MachineError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.forecast", *map(str, shape), str(steps)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise MachineError(f"bench: the training failed ({done.returncode}): {''.join(last)}")
    result: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Train one shape here and print what was forecast and what was measured."""
    import numpy as np  # noqa: PLC0415 - only the child needs all this
    import torch  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415
    from modelwright.models.decoder import Config  # noqa: PLC0415
    from modelwright.objectives import next_token  # noqa: PLC0415
    from modelwright.pipeline.memory import Forecast, Step  # noqa: PLC0415
    from modelwright.training import forecast  # noqa: PLC0415
    from modelwright.training.examples import Windows  # noqa: PLC0415
    from modelwright.training.optimizers import build_optimizers  # noqa: PLC0415
    from modelwright.training.train import Trainer  # noqa: PLC0415
    from modelwright.types import Ragged  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    for name in ("depth", "width", "heads", "rows"):
        parser.add_argument(name, type=int)
    parser.add_argument("precision", choices=runtime.PRECISIONS)
    parser.add_argument("steps", type=int)
    options = parser.parse_args()
    torch.set_num_threads(runtime.cores())
    config = Config(
        vocabulary=VOCABULARY,
        depth=options.depth,
        width=options.width,
        heads=options.heads,
        kv_heads=options.heads,
        context=CONTEXT,
        tied=True,
    )
    work = forecast.Work(config, options.rows, 1, "adamw", options.precision)
    precision = runtime.PRECISIONS[options.precision]
    rates = forecast.probe(options.precision)
    torch.manual_seed(0)
    model = config.build()
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 200_000).astype(np.uint16)
    columns = {"tokens": Ragged.of([tokens]), "learn": Ragged.of([np.ones(len(tokens), np.bool_)])}
    trainer = Trainer(
        model=model,
        objective=next_token.Objective(_Numbers(VOCABULARY)),  # type: ignore[arg-type]
        examples=Windows(columns, options.rows, CONTEXT, seed=1),
        optimizers=build_optimizers(
            model,
            "adamw",
            learning_rate=1e-4,
            matrix_learning_rate=0.02,
            momentum=0.95,
            weight_decay=0.0,
            precision=precision,
        ),
        steps=options.steps,
        seed=1,
        precision=precision,
    )
    model.train()
    taken: list[float] = []
    for step in range(options.steps):
        began = time.perf_counter()
        trainer.step(step)
        taken.append(time.perf_counter() - began)
    peak = runtime.peak_memory_bytes()  # before the forecast, which is made in this process too
    step = Step(options.rows, optimizer="adamw", precision=options.precision)
    said = Forecast(config).memory(step)
    assert said is not None
    after = forecast.probe(options.precision)
    seconds = [forecast.step_seconds(work, r).total for r in (rates, after)]
    result = {
        "peak memory": (said.total / 2**30, peak / 2**30),
        "time of a step": (statistics.mean(seconds), statistics.median(taken[1:])),
    }
    print(forecast.step_seconds(work, after), after, taken, file=sys.stderr)
    print(json.dumps(result))


class _Numbers:
    """A codec for data that are numbers already: a vocabulary and no text."""

    def __init__(self, vocabulary: int) -> None:
        import numpy as np  # noqa: PLC0415

        self.vocabulary, self.end = vocabulary, 0
        self.token_bytes = np.ones(vocabulary, dtype=np.int64)

    def tensors(self, columns: Any) -> dict[str, Any]:
        """Windows as tensors."""
        import numpy as np  # noqa: PLC0415
        import torch  # noqa: PLC0415

        return {
            "tokens": torch.from_numpy(np.asarray(columns["tokens"], dtype=np.int64)),
            "learn": torch.from_numpy(np.asarray(columns["learn"], dtype=np.bool_)),
        }


if __name__ == "__main__":
    main()
