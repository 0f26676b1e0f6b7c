"""Pictures a second of training ResNet-18 on CIFAR-10, and the accuracy after as many epochs."""

from __future__ import annotations

from benchmarks.run import Row
from benchmarks.training import data
from benchmarks.training.measure import Result, Script, at_least, in_turns, median, rate
from benchmarks.vision.scripts import script

BAR = 1.5  # times the fastest of the others
TOLERANCE = 0.02  # of accuracy on 5,000 pictures: a few epochs of three seeds differ by as much
OURS = {
    "ours, bfloat16": ("--precision", "bfloat16"),
    "ours, float32, compiled": ("--precision", "float32", "--compile"),
}


def contenders(quick: bool, seed: int) -> dict[str, Script]:
    """Ours and the three others, each in float32 and as people make it faster."""
    common = ("--count", 1280, "--epochs", 1) if quick else ("--count", 10_000, "--epochs", 3)
    common = (*common, "--seed", seed)
    return {
        **{n: script("ours", "resnet18", *chosen, *common) for n, chosen in OURS.items()},
        "PyTorch loop, DataLoader": script("peers.loader_loop", *common),
        "the same, bfloat16, channels last": script("peers.loader_loop", "--fast", *common),
        "Keras fit": script("peers.keras_fit", *common),
        "Keras fit, bfloat16": script("peers.keras_fit", "--precision", "bfloat16", *common),
    }


def rows(quick: bool) -> list[Row]:
    """Ours at its best against each of the others, and the accuracy of all."""
    data.folder("cifar10")  # asked first: an absent data set is the user's matter
    results: dict[str, list[Result]] = {}
    for seed in (1,) if quick else (1, 2, 3):
        for name, found in in_turns(contenders(quick, seed), 1).items():
            results.setdefault(name, []).extend(found)
    best = max(OURS, key=lambda name: rate(results[name]))
    peers = [name for name in results if name not in OURS]
    compared = [
        at_least(
            f"ResNet-18 on CIFAR-10: pictures/s against {peer}",
            rate(results[best]),
            rate(results[peer]),
            BAR,
        )
        for peer in peers
    ]
    accuracy = median(results[best], "accuracy")
    peer = max(median(results[name], "accuracy") for name in peers)
    return [
        *compared,
        Row(
            question="ResNet-18 on CIFAR-10: accuracy after as many epochs against the best",
            ours=accuracy,
            peer=peer,
            ratio=accuracy / peer,
            bar=f"no more than {TOLERANCE:g} below",
            holds=accuracy >= peer - TOLERANCE,
        ),
    ]
