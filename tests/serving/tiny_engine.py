"""A program of the tests: a random model's engine, or a small policy, as a server starts one.

Arguments: a file that says what it is (``{"kind": "text", "max_batch": 4}``), and the two pipes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

from modelwright.data.codecs.text import Codec
from modelwright.errors import MachineError, ModelwrightError
from modelwright.serving.engine import Engine
from modelwright.serving.engine_program import descriptors, run
from modelwright.serving.passes import PassEngine
from modelwright.types import Answer, Example, Image, Text, Turn, text_turn
from tests.serving.conftest import TEXT
from tests.serving.parts import Gated, mute, random_decoder


def text(**given):
    torch.set_num_threads(1)
    codec = Codec.fit([Example((text_turn("document", TEXT * 3, learn=True),))], vocabulary=300)
    model = random_decoder(codec)
    mute(model, codec)
    if pause := given.pop("pause", 0):
        hidden = model.hidden

        def slow(*a, **k):
            time.sleep(pause)
            return hidden(*a, **k)

        model.hidden = slow
    return Engine(model, codec, **given)


class Echo:
    """Answers with the question; "die" ends the process, a picture is answered by its mean."""

    suffix, at_once = "", 4

    def detailed(self, given, **params):
        if any(turns[0].text == "die" for turns in given):
            os._exit(7)
        return [self.one(turns[0], params) for turns in given]

    def one(self, turn, params):
        part = turn.parts[0]
        said = f"{part.pixels.mean():.1f}" if isinstance(part, Image) else part.text
        return Answer(Turn("assistant", (Text(said),)), {"seed": params.get("seed"), "sure": 0.5})

    def facts(self):
        return {"inputs": ["text", "image"]}


class Draws:
    """Answers with a picture of the question's length, in as many looks as are wanted."""

    suffix, at_once = ".png", 4

    def detailed(self, given, looks=0, seen=None, **params):
        if given[0][0].text == "bad":
            raise ModelwrightError("inputs: no such class")
        for look in range(looks):
            seen(look, self.turn(look))
        return [Answer(self.turn(len(turns[0].text)), {}) for turns in given]

    def turn(self, shade):
        return Turn("assistant", (Image(np.full((2, 2), shade, np.uint8)),))

    def content(self, answer):
        return bytes(answer.parts[0].pixels.flatten())

    def facts(self):
        return {"inputs": ["text"]}


def made():
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    kind = given.pop("kind")
    if kind == "text":
        return text(**given), {"double": lambda number: 2 * number}
    if kind == "echo":
        return PassEngine(Echo(), lambda typed: (text_turn("user", typed.strip()),)), {}
    if kind == "draws":
        return PassEngine(Draws(), lambda typed: (text_turn("user", typed.strip()),)), {}
    if kind == "gated":
        policy = Gated(Path(given["folder"]))
        return PassEngine(policy, lambda typed: (text_turn("user", typed),), max_waiting=3), {}
    raise MachineError("no such engine; name another")


sys.exit(run(made, *descriptors(sys.argv[2])))
