"""The road from the command to ``forward``: each room is entered once, and from above."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook

from modelwright.cli import main
from tests.programs import write_corpus

ROAD = ("cli", "api", "pipeline", "training", "objectives", "models")
HEIGHT = {room: -i for i, room in enumerate([*ROAD[:4], "serving", *ROAD[4:]])}


def rooms() -> list[str]:
    """The rooms of the calls that led here, from the command on; neighbours of one room are one."""
    frame, names = sys._getframe(1), []
    while frame is not None:
        names.append(str(frame.f_globals.get("__name__")))
        frame = frame.f_back  # type: ignore[assignment]
    entered = [n.split(".")[1] for n in reversed(names) if n.startswith("modelwright.")]
    return [room for i, room in enumerate(entered) if i == 0 or room != entered[i - 1]]


def test_every_forward_of_a_training_takes_the_same_road(tmp_path: Path) -> None:
    roads = set()

    def entered(module: Any, arguments: Any) -> None:
        if type(module).__module__.startswith("modelwright.models."):
            roads.add(tuple(rooms()))

    write_corpus(tmp_path)
    source = f"data.source={tmp_path / 'corpus.jsonl'}"
    handle = register_module_forward_pre_hook(entered)
    try:
        more = ("train.steps=2", "train.validate_every=1", "train.sample_every=1")
        line = ["train", str(tmp_path / "tiny.yaml"), source, *more, "--out", str(tmp_path / "run")]
        assert main(line) == 0
    finally:
        handle.remove()
    up = [(a, b) for road in roads for a, b in pairwise(road) if HEIGHT[b] > HEIGHT[a]]
    assert set(up) == {("training", "pipeline")}  # to the observer that it was handed, no more
    assert {road for road in roads if road.count("pipeline") == 1} == {ROAD}
