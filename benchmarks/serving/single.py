"""One stream: prefill and decode at equal bits, alternating, beside the memory's bandwidth."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from functools import partial

import torch

from benchmarks.run import Row
from benchmarks.serving.weights import PEERS, SHAPES, prepare
from benchmarks.training.measure import QUIET, Result, Script, in_turns, parsed
from modelwright import runtime
from modelwright.kernels.quantized import BITS

# What modelwright asks of PyTorch before it loads it, for whoever uses PyTorch here.
HUGE = {"THP_MEM_ALLOC_ENABLE": "1"}
REPEATS = "MODELWRIGHT_BENCH_REPEATS"
# (what, our weights, peer, its weights, bar)
BARS = (
    ("decode", "int4", "llama.cpp", "int4", 1.0),
    ("decode", "int8", "llama.cpp", "int8", 1.0),
    ("decode", "bfloat16", "llama.cpp", "bfloat16", 1.0),
    ("decode", "int4", "transformers", "bfloat16", 5.0),
    ("decode", "bfloat16", "transformers", "bfloat16", 2.0),
    ("prefill", "int4", "llama.cpp", "int4", 1.8),
    ("prefill", "int4", "llama.cpp", "bfloat16", 1.1),
)


def rows(quick: bool) -> list[Row]:
    """The larger shape is what the bars are of; the smaller one is run when it is quick."""
    shape = "125M" if quick else "1.1B"
    prepare(shape)
    repeats = 1 if quick else int(os.environ.get(REPEATS, "5"))
    scripts: dict[str, Script] = {}
    for _, ours, peer, theirs, _ in BARS:
        for who, kind in (("ours", ours), (peer, theirs)):
            scripts[f"{who} {kind}"] = partial(measured, who, shape, kind)
    taken = in_turns(scripts, repeats)
    found = []
    times = "one run" if repeats == 1 else f"median of {repeats}"
    for what, ours, peer, theirs, bar in BARS:
        one, other = (_median(taken[who], what) for who in (f"ours {ours}", f"{peer} {theirs}"))
        named = PEERS[theirs] if peer == "llama.cpp" else theirs
        question = f"{shape} {what}, tokens/s: {ours} against {peer} {named}, {times}"
        ratio = one / other
        found.append(
            Row(question, round(one, 1), round(other, 1), ratio, f">= {bar}", ratio >= bar)
        )
    rate = bandwidth()
    for kind in PEERS:
        size = _bytes_a_token(shape, kind)
        speed = _median(taken[f"ours {kind}"], "decode")
        question = f"{shape} decode {kind}: GB/s of weights read, beside what the memory gives"
        ratio = size * speed / 1e9 / rate
        goal = "goal >= 0.75"
        holds = ratio >= 0.75
        found.append(
            Row(question, round(size * speed / 1e9, 1), round(rate, 1), ratio, goal, holds)
        )
    return found


def _median(results: list[Result], what: str) -> float:
    return statistics.median(float(result[what]) for result in results)


def measured(*arguments: str) -> Result:
    """What ``contender.py`` printed."""
    return ran("contender", *arguments)


def ran(module: str, *arguments: str) -> Result:
    """What a module beside this one printed, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.serving.{module}", *arguments]
    environment = {**os.environ, **QUIET, **HUGE}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=1800
    )
    return parsed(" ".join(arguments), done)


def _bytes_a_token(shape: str, kind: str) -> float:
    config = SHAPES[shape]
    matrices = config.matrix_parameters() + config.vocabulary * config.width
    return matrices * BITS[kind] / 8


def bandwidth() -> float:
    """GB/s at which all threads read a gigabyte, the best of ten."""
    torch.set_num_threads(runtime.cores())
    numbers = torch.ones(1 << 28)
    numbers.sum()
    times = []
    for _ in range(10):
        began = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - began)
    return numbers.nbytes / min(times) / 1e9
