"""A random model, a real tokenizer, and a real server in front of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelwright.data.codecs.text import Codec
from modelwright.models.decoder import Decoder
from modelwright.serving.engine import Engine
from modelwright.types import Example, text_turn
from tests.serving.parts import Served, mute, random_decoder, running

TEXT = (
    "The quick brown fox jumps over the lazy dog. Naïve café, 你好世界, 🦊🦊.\n"
    "def join(path, *paths): return path + '/' + '/'.join(paths)\n"
)


@pytest.fixture(scope="session")
def codec() -> Codec:
    example = Example((text_turn("document", TEXT * 3, learn=True),))
    return Codec.fit([example], vocabulary=300)


@pytest.fixture(scope="session")
def model(codec) -> Decoder:
    """Never ends by itself: the special tokens are out of its reach."""
    model = random_decoder(codec)
    mute(model, codec)
    return model


@pytest.fixture(scope="session")
def served(model, codec) -> Iterator[Served]:
    with running(Engine(model, codec)) as served:
        yield served
