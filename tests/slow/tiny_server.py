"""A program of the slow tests: a random model served on a free port."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from modelwright.data.codecs.text import Codec
from modelwright.serving.engine import Engine
from modelwright.serving.server import serve
from modelwright.types import Example, text_turn
from tests.serving.parts import mute, random_decoder

codec = Codec.fit([Example((text_turn("document", "The quick brown fox. " * 9),))], vocabulary=270)
model = random_decoder(codec)
mute(model, codec)
serve(Engine(model, codec, prefix_bytes=1 << 20), "tiny", port=0)
