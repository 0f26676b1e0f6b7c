"""Tokens a second of a transcriber: Whisper-tiny, float32, one window of 30 seconds."""

from __future__ import annotations

import os
import statistics
from functools import partial

from benchmarks.run import Row
from benchmarks.serving.single import REPEATS, ran
from benchmarks.training.measure import Script, in_turns

BAR = 1.0


def rows(quick: bool) -> list[Row]:
    """Ours and CTranslate2's, in turns."""
    repeats = 1 if quick else int(os.environ.get(REPEATS, "5"))
    scripts: dict[str, Script] = {
        who: partial(ran, "whisper", who) for who in ("ours", "ctranslate2")
    }
    taken = in_turns(scripts, repeats)
    one, other = (
        statistics.median(float(result["rate"]) for result in taken[who]) for who in scripts
    )
    times = "one run" if repeats == 1 else f"median of {repeats}"
    question = f"Whisper-tiny decode, tokens/s: float32 against CTranslate2 float32, {times}"
    ratio = one / other
    return [Row(question, round(one, 1), round(other, 1), ratio, f">= {BAR}", ratio >= BAR)]
