"""A stream written down: the same as the whole away from seams, however it is cut."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright import api
from modelwright.data.codecs import fit_codec
from modelwright.data.hearing import questions
from modelwright.data.sounds import encode_wav, resampled
from modelwright.errors import ModelwrightError
from modelwright.models.conformer import Config, Conformer
from modelwright.objectives.ctc import Objective
from modelwright.pipeline.answering.predicting import Predicting
from modelwright.serving.listening import Listener
from modelwright.serving.predictor import Predictor
from modelwright.tasks.task import make_task
from modelwright.types import Example, Sound, Turn, text_turn

RATE = 8000
SOUND = np.random.default_rng(7).normal(0, 0.2, 9 * RATE).clip(-1, 1).astype(np.float32)


def codec(units: str = "characters", text: str = "a b cdefgh") -> Any:
    hum = Sound(SOUND[:RATE], RATE)
    example = Example((Turn("user", (hum,)), text_turn("assistant", text, learn=True)))
    return fit_codec("speech", [example], {"rate": RATE, "bands": 12, "units": units})


def near_sighted(heard: Any, **fields: Any) -> Conformer:
    """A model that hears a few frames around each: attention, which hears all, adds nothing."""
    torch.manual_seed(3)
    given: dict[str, Any] = {**Config.specimen, **Config.data_fields(heard), **fields}
    model = Config(**given).build().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
        model.output.bias.zero_()
        for block in model.blocks:
            out: Any = block.attention.out  # type: ignore[union-attr]
            out.weight.zero_()
            out.bias.zero_()
    return model


def whole(model: Conformer, heard: Any, samples: np.ndarray = SOUND) -> str:
    turns = [(Turn("user", (Sound(samples, RATE),)),)]
    return Predictor(model, heard, Objective(heard)).answer(turns)[0].text


def streamed(listener: Listener, sizes: list[int], samples: np.ndarray = SOUND) -> str:
    ends = np.minimum(np.cumsum([0, *sizes]), len(samples))
    parts = [samples[a:b] for a, b in pairwise([*ends, len(samples)])]
    return "".join([*(listener.feed(part) for part in parts), listener.finish()])


@pytest.mark.parametrize("stride", [2, 4])
def test_a_stream_is_what_the_whole_is_where_margins_hold_all_that_is_heard(stride: int) -> None:
    heard = codec()
    model = near_sighted(heard, stride=stride)
    meant = whole(model, heard)
    assert len(meant) > 10
    listener = Listener(model, heard, window=1.5, margin=0.4)
    assert streamed(listener, [RATE // 3] * 27) == meant
    assert streamed(listener, []) == meant  # at once, and again with the same listener
    without = Listener(model, heard, window=0.2, margin=0.0)
    assert streamed(without, []) != meant


def test_a_letter_is_not_said_again_behind_a_seam() -> None:
    """A letter that lasts over all seams is one letter."""
    heard = codec()
    torch.manual_seed(1)
    model = Config(**{**Config.specimen, **Config.data_fields(heard)}).build().eval()
    listener = Listener(model, heard, window=2.0, margin=0.5)
    model.output.weight.data.zero_()
    model.output.bias.data.zero_()
    model.output.bias.data[2] = 9.0  # one letter all along is one letter
    assert streamed(listener, [100] * 50) == heard.spelling.read([2])


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 3 * RATE), max_size=12))
def test_how_a_stream_is_cut_changes_nothing(sizes: list[int]) -> None:
    heard = codec()
    listener = Listener(near_sighted(heard), heard, window=1.0, margin=0.3)
    assert streamed(listener, sizes) == streamed(listener, [])
    assert len(listener._held) == 0


def test_words_are_divided_and_memory_is_a_window() -> None:
    heard = codec("words", "one two three four five")
    listener = Listener(near_sighted(heard), heard, window=1.0, margin=0.3)
    said = streamed(listener, [500] * 200)
    assert set(said.split(" ")) <= set(heard.spelling.tokens[1:])
    for _ in range(40):
        listener.feed(SOUND[:RATE])
        assert len(listener._held) <= RATE + RATE
    assert Listener(near_sighted(heard), heard).finish() == ""


def test_what_is_no_stream_is_one_line() -> None:
    heard = codec()
    model = near_sighted(heard)
    with pytest.raises(ModelwrightError, match="give a window longer than twice the margin"):
        Listener(model, heard, window=1.0, margin=0.5)
    with pytest.raises(ModelwrightError, match="ask this model with whole recordings"):
        Listener(torch.nn.Linear(2, 2), heard)
    listener = Listener(model, heard)
    for wrong in (np.zeros((4, 2)), np.array([np.nan, 0.0])):
        with pytest.raises(ModelwrightError, match="finite ones of one channel"):
            listener.feed(wrong)


def test_a_file_of_another_rate_is_transcribed_piece_by_piece(tmp_path: Path) -> None:
    source = tmp_path / "rows.py"
    source.write_text(
        "import numpy as np\n"
        "def rows():\n"
        "    rng = np.random.default_rng(0)\n"
        "    for i in range(12):\n"
        "        samples = rng.normal(0, 0.1, 4000).astype('f4')\n"
        "        yield {'id': str(i), 'samples': samples, 'rate': 8000, 'words': 'ab ba'}\n"
    )
    run = api.train(
        {
            "name": "ear",
            "data": {"source": str(source), "split": {"by": "row", "test": 0.2}},
            "codec": {"rate": RATE, "bands": 12},
            "model": {"family": "conformer", "depth": 1, "width": 8, "heads": 2, "kernel": 3},
            "train": {"task": "speech_recognition", "options": {"text": "words"}, "steps": 1,
                      "threads": 1},
        },
        out=tmp_path / "run",
    )  # fmt: skip
    model = api.load(run)
    double = resampled(SOUND[: 4 * RATE], RATE, 2 * RATE)
    (tmp_path / "a.wav").write_bytes(encode_wav(np.stack([double, double], axis=1), 2 * RATE))
    pieces = list(model.transcribe(tmp_path / "a.wav", window=2.0, margin=0.5))
    listener = model.listener(window=2.0, margin=0.5)
    assert "".join(pieces) == listener.feed(SOUND[: 4 * RATE]) + listener.finish()
    with pytest.raises(ModelwrightError, match=r"none\.wav: cannot be read"):
        list(model.transcribe(tmp_path / "none.wav"))
    (tmp_path / "b.wav").write_bytes(b"RIFF of nothing")
    with pytest.raises(ModelwrightError, match=r"b\.wav: .*give a whole recording"):
        list(model.transcribe(tmp_path / "b.wav"))


def test_a_long_recording_is_answered_piece_by_piece() -> None:
    """What a server tells of it on the way is the whole answer, and the pieces are all of it."""
    heard = codec()
    heard.longest = 2.0
    model = near_sighted(heard)
    turns = (Turn("user", (Sound(SOUND, RATE),)),)
    pieces = questions(turns, heard)
    samples = [heard.ear.heard(Example(piece)) for piece in pieces]
    assert len(pieces) == 5
    assert np.array_equal(np.concatenate(samples), heard.ear.heard(Example(turns)))
    seen: list[tuple[int, str]] = []
    answerer = Predicting(model, heard, Objective(heard), make_task("speech_recognition", {}))
    (answer,) = answerer.detailed([turns], seen=lambda n, turn: seen.append((n, turn.text)))
    assert [number for number, _ in seen] == list(range(5))
    assert "".join(text for _, text in seen) == answer.turn.text
    alone = [Predictor(model, heard, Objective(heard)).answer([piece])[0].text for piece in pieces]
    assert answer.turn.text == " ".join(alone)
    (short,) = answerer.detailed([pieces[0]], seen=lambda *_: None)
    assert short.turn.text == alone[0]
    assert answerer.detailed([turns])[0].turn.text == whole(model, heard)


def test_pieces_of_a_script_without_spaces_are_put_together_without_one() -> None:
    heard = codec(text="貓在這裡睡覺")
    heard.longest = 2.0
    model, objective = near_sighted(heard), Objective(heard)
    turns = (Turn("user", (Sound(SOUND, RATE),)),)
    answerer = Predicting(model, heard, objective, make_task("speech_recognition", {}))
    (answer,) = answerer.detailed([turns], seen=lambda *_: None)
    pieces = questions(turns, heard)
    alone = [Predictor(model, heard, objective).answer([piece])[0].text for piece in pieces]
    assert all(alone) and answer.turn.text == "".join(alone)
