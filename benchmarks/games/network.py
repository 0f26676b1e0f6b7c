"""The network that both sides ask: of the recipe connect-four-selfplay, always the same weights."""

from __future__ import annotations

import argparse

import torch

from modelwright.data.codecs.boards import Codec
from modelwright.models.board import BoardNet, Config

WIDTH, DEPTH, NORM = 32, 3, "batch"


def network(codec: Codec) -> BoardNet:
    """The network in evaluation; its statistics of batches are those of random positions."""
    torch.manual_seed(1)
    fields = {**Config.data_fields(codec), "width": WIDTH, "depth": DEPTH, "norm": NORM}
    model = Config(**fields).build()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randint(2, (256, *codec.shape)).float())
    return model.eval()


def options(description: str | None) -> argparse.Namespace:
    """What a contender is told on its command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--games", type=int, required=True)
    parser.add_argument("--simulations", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    found = parser.parse_args()
    torch.set_num_threads(found.threads)
    return found
