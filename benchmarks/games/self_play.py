"""Positions a second of Connect Four played by a network against itself, on one thread."""

from __future__ import annotations

import statistics

from benchmarks.run import Row
from benchmarks.training.measure import Result, at_least, in_turns, script

BAR, REPEATS, SIMULATIONS, THREADS = 3.0, 5, (32, 100), 1
OURS, THEIRS = 256, 6  # games of one measurement: each as many as take some seconds


def rows(quick: bool) -> list[Row]:
    """Two budgets of search; QUICK measures the first once."""
    found = []
    for simulations in SIMULATIONS[:1] if quick else SIMULATIONS:
        told = ("--simulations", simulations, "--threads", THREADS)
        contenders = {
            who: script(module, "--games", games, *told, package="benchmarks.games")
            for who, module, games in (
                ("ours", "ours", OURS),
                ("OpenSpiel", "peers.openspiel", THEIRS),
            )
        }
        results = in_turns(contenders, 1 if quick else REPEATS)
        ours, theirs = (speed(results[who]) for who in ("ours", "OpenSpiel"))
        question = (
            f"positions a second of self-play, Connect Four, {simulations} simulations a move,"
            f" {THREADS} thread; medians of {len(results['ours'])}, OpenSpiel's AlphaZero with"
            " PyTorch as the peer"
        )
        found.append(at_least(question, ours, theirs, BAR))
    return found


def speed(results: list[Result]) -> float:
    """The median of positions a second."""
    return statistics.median(r["positions"] / r["seconds"] for r in results)
