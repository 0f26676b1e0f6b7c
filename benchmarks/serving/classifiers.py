"""Texts a second of a classifier: BERT-base, 128 tokens, one text and 32 at once."""

from __future__ import annotations

import os
import statistics
from functools import partial

from benchmarks.run import Row
from benchmarks.serving.single import REPEATS, ran
from benchmarks.training.measure import Script, in_turns

# (ours, peer, bar)
BARS = (
    ("float32", "onnxruntime-float32", 1.2),
    ("int8", "onnxruntime-int8", 1.0),
    ("bfloat16", "transformers-bfloat16", 1.3),
    ("bfloat16", "compiled-bfloat16", 1.0),
)


def rows(quick: bool) -> list[Row]:
    """Every pair at both sizes, all in turns; 8 texts in place of 32 where it is quick."""
    repeats = 1 if quick else int(os.environ.get(REPEATS, "5"))
    times = "one run" if repeats == 1 else f"median of {repeats}"
    found = []
    for batch in (1, 8 if quick else 32):
        names = {f"ours-{ours}" for ours, _, _ in BARS} | {peer for _, peer, _ in BARS}
        scripts: dict[str, Script] = {
            name: partial(ran, "encoder", name, str(batch)) for name in sorted(names)
        }
        taken = in_turns(scripts, repeats)
        rates = {k: statistics.median(float(one["rate"]) for one in v) for k, v in taken.items()}
        for ours, peer, bar in BARS:
            one, other = rates[f"ours-{ours}"], rates[peer]
            question = f"BERT-base, batch {batch}, texts/s: {ours} against {peer}, {times}"
            ratio = one / other
            found.append(
                Row(question, round(one, 2), round(other, 2), ratio, f">= {bar}", ratio >= bar)
            )
    return found
