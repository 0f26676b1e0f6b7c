"""Fit the law to the sweep, leave each run out once, and draw it.

    python -m benchmarks.scaling.fit             prints the law and writes law.svg
    python -m benchmarks.scaling.fit FILE        prints the law of other runs, such as longer.json

The method of Hoffmann et al. (arXiv:2203.15556, section 3.3): the Huber loss (delta 1e-3) of the
difference of log losses, minimised by L-BFGS from many starts, over (log A, log B, log E, a, b).
Fewer than ten runs cannot tell five numbers apart: then the powers are held at the published ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import huber, logsumexp

from modelwright.training.scaling import PUBLISHED, Law

HERE = Path(__file__).parent
DELTA = 1e-3
STARTS = ((0.0, 4.0, 8.0), (0.0, 4.0, 8.0), (-0.5, 0.5, 1.0), (0.2, 0.6), (0.2, 0.6))
# Few runs leave the entropy of the text nearly free; no English text is spelled in less than
# half a bit or more than two bits a byte by any model, at 3.9 bytes a token of the sweep.
ENTROPY = (math.log(0.5 * 3.9 * math.log(2)), math.log(2.0 * 3.9 * math.log(2)))
POWERS = (0.05, 1.5)
ENOUGH = 10  # runs for five numbers

Run = dict[str, Any]


def fitted(runs: Sequence[Run], starts: Sequence[Any] | None = None) -> np.ndarray:
    """(log A, log B, log E, a, b) of least Huber loss."""
    size = np.log([r["matrix_parameters"] for r in runs])
    tokens = np.log([r["tokens"] for r in runs])
    loss = np.log([r["loss"] for r in runs])

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        log_a, log_b, log_e, a, b = x
        terms = np.stack([log_a - a * size, log_b - b * tokens, np.full_like(size, log_e)])
        total = logsumexp(terms, axis=0)
        share = np.exp(terms - total)
        miss = total - loss
        slope = np.clip(miss, -DELTA, DELTA)  # the derivative of Huber's loss
        gradient = [slope @ share[0], slope @ share[1], slope @ share[2]]
        gradient += [-(slope * size) @ share[0], -(slope * tokens) @ share[1]]
        return float(huber(DELTA, miss).sum()) * 1e6, np.array(gradient) * 1e6

    powers = [POWERS, POWERS]
    if len(runs) < ENOUGH:
        powers = [(p, p) for p in (PUBLISHED.size_power, PUBLISHED.token_power)]
    bounds = [(-5, 25), (-5, 25), ENTROPY, *powers]
    found = [
        minimize(objective, np.array(x), jac=True, method="L-BFGS-B", bounds=bounds)
        for x in (starts if starts is not None else itertools.product(*STARTS))
    ]
    best: np.ndarray = min(found, key=lambda f: f.fun).x
    return best


def law_of(runs: Sequence[Run]) -> Law:
    """The law of some runs with its leave-one-out error."""
    x = fitted(runs)
    sizes = [r["matrix_parameters"] for r in runs]
    tokens = [r["tokens"] for r in runs]

    def made(x: np.ndarray, error: float = 0.0) -> Law:
        return Law(
            entropy=round(math.exp(x[2]), 4),
            size_factor=round(math.exp(x[0]), 4),
            size_power=round(float(x[3]), 4),
            token_factor=round(math.exp(x[1]), 4),
            token_power=round(float(x[4]), 4),
            error=round(error, 4),
            sizes=(min(sizes), max(sizes)),
            tokens=(min(tokens), max(tokens)),
            source=f"benchmarks/scaling/results.json, {len(runs)} runs"
            + (", powers of arXiv:2404.10102" if len(runs) < ENOUGH else ""),
        )

    misses = []
    for i, left in enumerate(runs):
        others = [*runs[:i], *runs[i + 1 :]]
        near = [x, *itertools.product((2.0, 6.0), (2.0, 6.0), (0.5,), (0.3,), (0.3,))]
        law = made(fitted(others, near))
        misses.append(abs(law.loss(left["matrix_parameters"], left["tokens"]) / left["loss"] - 1))
    return made(x, float(np.mean(misses)))


def picture(law: Law, runs: Sequence[Run]) -> str:
    """Loss over tokens, a line a size, the runs as dots: an SVG."""
    width, height, left, bottom = 640, 400, 60, 50
    x0, x1 = (math.log10(t) for t in (law.tokens[0] / 1.3, law.tokens[1] * 1.3))
    losses = [r["loss"] for r in runs]
    y0, y1 = min(losses) - 0.15, max(losses) + 0.15

    def at(tokens: float, loss: float) -> tuple[float, float]:
        x = left + (math.log10(tokens) - x0) / (x1 - x0) * (width - left - 130)
        return round(x, 1), round(20 + (y1 - loss) / (y1 - y0) * (height - bottom - 20), 1)

    colours = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#c47f17", "#444444")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    sizes = sorted({r["matrix_parameters"] for r in runs})
    for size, colour in zip(sizes, itertools.cycle(colours), strict=False):
        lengths = [10 ** (x0 + (x1 - x0) * i / 60) for i in range(61)]
        line = [at(tokens, law.loss(size, tokens)) for tokens in lengths]
        points = " ".join(f"{x},{y}" for x, y in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        x, y = line[-1]
        parts.append(f'<text x="{x + 5}" y="{y + 4}" fill="{colour}">{size / 1e6:.2f}M</text>')
        for run in (r for r in runs if r["matrix_parameters"] == size):
            x, y = at(run["tokens"], run["loss"])
            parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>')
    for tokens in sorted({r["tokens"] for r in runs}):
        x, y = at(tokens, y0)
        text = f"{tokens / 1e6:.2g}M"
        parts.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle">{text}</text>')
    for tick in np.arange(math.ceil(y0 * 4) / 4, y1, 0.25):
        x, y = at(10**x0, tick)
        parts.append(f'<text x="{x - 6}" y="{y + 4}" text-anchor="end">{tick:.2f}</text>')
        parts.append(f'<line x1="{x}" x2="{width - 130}" y1="{y}" y2="{y}" stroke="#dddddd"/>')
    said = "tokens trained on; validation loss in nats per token; mean error of a run left out: "
    parts.append(f'<text x="{left}" y="{height - 12}">{said}{law.error:.1%}</text></svg>')
    return "\n".join(parts) + "\n"


def main() -> None:
    """Print the law, its error and where it leads; write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="?", help="what a sweep wrote with --out")
    given = parser.parse_args().runs
    runs = json.loads((given or HERE / "results.json").read_text())["runs"]
    law = law_of(runs)
    print(law)
    for run in runs:
        said = law.loss(run["matrix_parameters"], run["tokens"])
        print(f"{run['matrix_parameters']:>9} {run['tokens']:>9} {run['loss']:.4f} law {said:.4f}")
    for flops in (1e12, 1e13, 1e14, 1e15):
        size, tokens = law.best(flops)
        print(f"{flops:.0e} FLOPs: N = {size:.3g}, D = {tokens:.3g}, D / N = {tokens / size:.3g}")
    if given is None:
        (HERE / "law.svg").write_text(picture(law, runs))


if __name__ == "__main__":
    main()
