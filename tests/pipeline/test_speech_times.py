"""Times of words as a trained recogniser tells them, beside where the words were put."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import openai
import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.data.sounds import encode_wav
from modelwright.types import Sound, Turn
from tests.serving.parts import running

RATE = 8000
NEAR = 0.12  # seconds: three frames
SOURCE = '''
import numpy as np

TONES = {"low": 300, "mid": 900, "top": 2500}  # words, and how they sound, in hertz


def said(seed):
    """Samples at 8 kHz of some words between pauses, and (word, begin, end) of each."""
    rng = np.random.default_rng(seed)
    parts, spoken, at = [], [], 0
    for _ in range(int(rng.integers(2, 6))):
        pause, length = (round(8000 * rng.uniform(*of)) for of in ((0.1, 0.9), (0.2, 0.4)))
        word = str(rng.choice(list(TONES)))
        tone = 0.5 * np.sin(2 * np.pi * TONES[word] * np.arange(length) / 8000)
        parts += [np.zeros(pause), tone]
        spoken.append((word, (at + pause) / 8000, (at + pause + length) / 8000))
        at += pause + length
    sound = np.concatenate([*parts, np.zeros(3000)])
    return (sound + rng.normal(0, 0.003, len(sound))).astype("f4"), spoken


def rows():
    for i in range(160):
        samples, spoken = said(i)
        words = " ".join(word for word, _, _ in spoken)
        yield {"id": str(i), "samples": samples, "rate": 8000, "words": words}
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tones")
    source = folder / "tones.py"
    source.write_text(SOURCE)
    stage = {"steps": 120, "batch": 16, "threads": 1, "compile": False, "learning_rate": 0.01}
    api.train(
        {
            "name": "ear",
            "data": {"source": str(source), "split": {"by": "row", "test": 0.1}},
            "codec": {"rate": RATE, "bands": 20, "beams": 4, "letter_bonus": 0.1},
            "model": {"family": "conformer", "depth": 1, "width": 32, "heads": 2, "kernel": 7},
            "train": {"task": "speech_recognition", "options": {"text": "words"}, **stage},
        },
        out=folder / "run",
    )
    yield folder


@pytest.fixture(scope="module")
def tones(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tones", folder / "tones.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("search", [True, False])
def test_times_are_those_of_the_sounds(folder: Path, tones: ModuleType, search: bool) -> None:
    model = api.load(folder / "run")
    codec: Any = model.fitted.codec
    codec.search = codec.search if search else None
    right = 0
    for seed in range(1000, 1020):
        samples, spoken = tones.said(seed)
        told = model([Turn("user", (Sound(samples, RATE),))], timestamps=True)
        if str(told).split() != [word for word, _, _ in spoken]:
            continue
        right += 1
        for word, (_, begin, end) in zip(told.details["words"], spoken, strict=True):
            assert abs(word["start"] - begin) < NEAR and abs(word["end"] - end) < NEAR
    assert right >= 15


def spoken_slowly(tones: ModuleType) -> np.ndarray:
    """Two recordings with a second of silence between: two segments at least."""
    one, other = (tones.said(seed)[0] for seed in (1003, 1004))
    return np.concatenate((one, np.zeros(RATE, np.float32), other))


def test_a_command_shows_when_words_are_said(
    folder: Path, tones: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "said.wav"
    path.write_bytes(encode_wav(spoken_slowly(tones), RATE))
    asked = ["ask", str(folder / "run"), str(path)]
    assert main(asked) == 0
    text = capsys.readouterr().out.strip()
    assert main([*asked, "--timestamps"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[2] for line in lines] == text.split()
    times = [float(time) for line in lines for time in line[:2]]
    assert times == sorted(times) and times[-1] <= len(spoken_slowly(tones)) / RATE
    assert main([*asked, "--timestamps", "segments"]) == 0
    segments = [line.split(" ", 2) for line in capsys.readouterr().out.splitlines()]
    assert len(segments) >= 2
    assert " ".join(segment[2] for segment in segments) == text
    assert main([*asked, "--timestamps", "srt"]) == 0
    assert capsys.readouterr().out.count(" --> ") == len(segments)
    assert main([*asked[:2], "--timestamps", "vtt"]) == 2
    assert "--timestamps: is for the path of a recording" in capsys.readouterr().err


def test_a_server_tells_the_same(folder: Path, tones: ModuleType) -> None:
    model = api.load(folder / "run")
    content = encode_wav(spoken_slowly(tones), RATE)
    (folder / "asked.wav").write_bytes(content)
    mine = model(folder / "asked.wav", timestamps=True).details
    with running(model.answerer.server()) as served, openai.OpenAI(
        base_url=f"{served.url}/v1", api_key="unused", max_retries=0
    ) as client:  # fmt: skip
        told = client.audio.transcriptions.create(
            model="tiny",
            file=("asked.wav", content),
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
    assert told.words is not None and told.segments is not None
    assert [word.word for word in told.words] == [word["word"] for word in mine["words"]]
    starts = [one.start for one in (*told.words, *told.segments)]
    wanted = [one["start"] for one in (*mine["words"], *mine["segments"])]
    assert starts == pytest.approx(wanted, abs=1e-3)
