"""Wall time to a loss on the characters of tinyshakespeare, start-up and compilation included.

nanoGPT's split; the loss is the mean over the whole validation part. Every process compiles into
an empty folder. The time that evaluating takes is the judge's and is in nobody's figure: nanoGPT
is evaluated every few iterations with its clock stopped and stops at the first hit, ours is
evaluated once, at its end.
"""

from __future__ import annotations

import statistics

from benchmarks.run import Row
from benchmarks.training.measure import Result, in_turns, product_peak, script, spread

PEER_BAR = 0.25
ALLOWED, REFERENCE = 120.0, 800e9  # seconds to 1.50 on a machine of this bf16 product ceiling
SEEDS = (1, 2, 3)
README_STEPS, BEST_STEPS = 2000, 1300  # nanoGPT's iterations


def rows(quick: bool) -> list[Row]:
    """Three targets, three seeds; QUICK measures the first target with one seed."""
    found = against_peer(
        "1.885",
        "nanoGPT's run of its README on a CPU",
        ("readme", "--steps", README_STEPS),
        SEEDS[:1] if quick else SEEDS,
    )
    if quick:
        return found
    best = ("target", "--target", 1.60, "--compile", "--steps", BEST_STEPS)
    found += against_peer("1.60", "nanoGPT at its best settings", best, SEEDS)
    return [*found, alone("1.50")]


def against_peer(
    target: str, name: str, peer: tuple[object, ...], seeds: tuple[int, ...]
) -> list[Row]:
    """Wall time to a target over the seeds, against nanoGPT's."""
    ours: list[Result] = []
    theirs: list[Result] = []
    for seed in seeds:
        contenders = {
            "ours": script("ours", "target", "--target", target, "--seed", seed, cold=True),
            "nanoGPT": script("peers.nanogpt", *peer, "--seed", seed, cold=True),
        }
        results = in_turns(contenders, 1)
        ours += results["ours"]
        theirs += results["nanoGPT"]
    return [judged(target, name, ours, theirs)]


def judged(target: str, name: str, ours: list[Result], theirs: list[Result]) -> Row:
    """The row of mean wall times; a run of ours that misses the target fails it.

    A peer that misses it has used its whole budget, which is the least it would need.
    """
    mean, peer = (statistics.mean(r["wall_seconds"] for r in who) for who in (ours, theirs))
    return Row(
        question=f"seconds to a loss of {target} against {name}; {losses(ours, theirs)}",
        ours=spread([r["wall_seconds"] for r in ours]),
        peer=spread([r["wall_seconds"] for r in theirs]),
        ratio=mean / peer,
        bar=f"<= {PEER_BAR:g}",
        holds=mean <= PEER_BAR * peer and all(r["reached"] for r in ours),
    )


def alone(target: str) -> Row:
    """Wall time to what nanoGPT does not reach, against a time scaled to this machine."""
    peaks = [product_peak(False)]
    runs = [script("ours", "target", "--target", target, "--seed", s, cold=True)() for s in SEEDS]
    peaks.append(product_peak(False))
    allowed = ALLOWED * REFERENCE / statistics.mean(peaks)
    mean = statistics.mean(r["wall_seconds"] for r in runs)
    limit = f"{ALLOWED:g} s allowed at {REFERENCE / 1e9:g} GFLOP/s"
    return Row(
        question=f"seconds to a loss of {target}, {limit}; {losses(runs)}",
        ours=spread([r["wall_seconds"] for r in runs]),
        peer=allowed,
        ratio=mean / allowed,
        bar="<= 1",
        holds=mean <= allowed and all(r["reached"] for r in runs),
    )


def losses(*who: list[Result]) -> str:
    """The losses reached, ours first."""
    names = ("ours ended at", "nanoGPT at")
    shown = (" ".join(f"{r['loss']:.4f}" for r in results) for results in who)
    return ", ".join(f"{name} {found}" for name, found in zip(names, shown, strict=False))
