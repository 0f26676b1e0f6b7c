"""A voice and its vocoder from end to end on real recordings: trained, heard, measured, resumed."""

from __future__ import annotations

import base64
import html
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.data.pictures import decode as decode_picture
from modelwright.data.sounds import decode, encode_wav
from modelwright.errors import ModelwrightError
from modelwright.runs import Run
from tests.serving.parts import running

STAGE = {"batch": 4, "threads": 1, "compile": False, "precision": "float32"}
TINY = {"size": 256, "hop": 128, "bands": 20}
ASK = "the sea was near, and he was not"


def vocoder_recipe(folder: Path) -> dict[str, Any]:
    return {
        "name": "voc",
        "data": {"source": "kathleen", "path": str(folder), "limit": 30,
                 "split": {"by": "row", "validation": 0.1, "test": 0.1}},
        "codec": TINY,
        "model": {"family": "vocos", "width": 16, "depth": 1},
        "train": {"task": "vocoder", "options": {"iterations": 8}, "steps": 30,
                  "objective_options": {"crop": 16, "sizes": [128, 512]},
                  "learning_rate": 0.01, **STAGE},
    }  # fmt: skip


def speech_recipe(folder: Path, **options: Any) -> dict[str, Any]:
    made = vocoder_recipe(folder)
    return made | {
        "name": "voice",
        "ask": ASK,
        "model": {"family": "speech_flow", "width": 16, "text_depth": 1, "depth": 1},
        "train": {"task": "speech_synthesis", "options": {"steps": 2, **options}, "steps": 6,
                  "save_every": 3, "sample_every": 3, "ema": 0.9, **STAGE},
    }  # fmt: skip


@pytest.fixture(scope="module")
def vocoder(data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("made")
    return api.run(vocoder_recipe(data("kathleen")), out=folder / "voc")


@pytest.fixture(scope="module")
def voice(data: Callable[[str], Path], vocoder: Run) -> Run:
    made = speech_recipe(data("kathleen"), vocoder=str(vocoder.path))
    return api.run(made, out=vocoder.path.parent / "voice")


def measures(run: Run) -> dict[str, dict[str, float]]:
    found = json.loads((run.path / "evaluation.json").read_text())["measures"]
    return {m["name"]: {row["who"]: row["value"] for row in m["rows"]} for m in found}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_vocoder_is_measured_beside_griffin_lim(vocoder: Run) -> None:
    found = measures(vocoder)
    assert list(found) == ["test mel-cepstral distortion, dB", "test real-time factor"]
    distortion = found["test mel-cepstral distortion, dB"]
    assert list(distortion) == ["ours", "Griffin-Lim, 8 iterations"]
    assert 0 < distortion["Griffin-Lim, 8 iterations"] < distortion["ours"] < 30  # thirty steps
    # Answers that are only looked up would take a millionth.
    assert 1e-5 < found["test real-time factor"]["ours"] < 1


def test_a_vocoder_learns(vocoder: Run) -> None:
    kept = lines(vocoder.path / "metrics" / "train.jsonl")
    losses = [line["loss"] for line in kept if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]


def test_a_vocoder_is_asked_with_a_recording(
    vocoder: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hum = (np.sin(np.arange(16_000) / 20) / 3).astype(np.float32)
    (tmp_path / "hum.wav").write_bytes(encode_wav(hum, 16_000))
    out = tmp_path / "again.wav"
    asked = ["ask", str(vocoder.path), str(tmp_path / "hum.wav"), "--out", str(out)]
    assert main(asked) == 0
    assert capsys.readouterr().out.strip() == str(out)
    samples, rate = decode(out.read_bytes())
    assert (rate, samples.shape) == (16_000, (16_000, 1))
    assert main([*asked[:2], str(tmp_path / "none.wav"), *asked[3:]]) == 2
    assert "none.wav: cannot be read" in capsys.readouterr().err


def test_samples_are_heard_and_seen_while_it_learns(voice: Run) -> None:
    kept = lines(voice.path / "samples" / "train.jsonl")
    assert [line["step"] for line in kept] == [3, 3, 3, 6, 6, 6]
    assert kept[0]["prompt"] == ASK
    for line in kept:
        samples, rate = decode((voice.path / "samples" / line["sound"]).read_bytes())
        frames = len(samples) // TINY["hop"]
        picture, _ = decode_picture((voice.path / "samples" / line["image"]).read_bytes())
        assert rate == 16_000
        assert picture.shape == (3 * TINY["bands"], 2 * frames)
    assert len({(voice.path / "samples" / line["sound"]).read_bytes() for line in kept}) == 6
    assert (voice.path / "report.html").read_text().count('src="data:image/png;base64,') >= 6


def test_speech_is_measured_beside_recordings(voice: Run) -> None:
    found = measures(voice)
    assert list(found) == [
        "test mel-cepstral distortion of speech, dB",
        "test length beside the recording",
        "test real-time factor",
    ]
    distortion = found["test mel-cepstral distortion of speech, dB"]
    assert list(distortion) == ["ours", "mean spectrum, no flow", "recordings through the vocoder"]
    assert found["test length beside the recording"]["recordings through the vocoder"] < 0.01


def test_the_report_plays_speech_beside_its_recording(voice: Run) -> None:
    shown = json.loads((voice.path / "evaluation.json").read_text())["examples"]
    assert shown and all(list(one["sounds"]) == ["this model", "recording"] for one in shown)
    page = (voice.path / "report.html").read_text()
    for name in shown[0]["sounds"].values():
        content = (voice.path / "samples" / name).read_bytes()
        assert decode(content)[1] == 16_000
        assert base64.b64encode(content).decode() in page
    assert shown[0]["question"] in html.unescape(page)


def test_asking_speaks(voice: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, same, other = (tmp_path / f"{n}.wav" for n in ("one", "same", "other"))
    for out, seed in ((one, "1"), (same, "1"), (other, "2")):
        assert (
            main(["ask", str(voice.path), "He was here.", "--out", str(out), "--seed", seed]) == 0
        )
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()
    samples, rate = decode(one.read_bytes())
    assert rate == 16_000
    assert samples.any()
    capsys.readouterr()
    assert main(["ask", str(voice.path), "He was here.", "--out", str(tmp_path / "a.mp3")]) == 2
    assert "a.mp3: answers are written as WAV" in capsys.readouterr().err
    assert main(["ask", str(voice.path), "Привет", "--out", str(one)]) == 2
    assert "'п' is not in the train split" in capsys.readouterr().err
    assert main(["ask", str(voice.path), "  ", "--out", str(one)]) == 2
    assert "0 characters to speak" in capsys.readouterr().err


def test_a_resumed_training_is_the_training(voice: Run, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(voice.path, again)
    last = again / "checkpoints" / "train" / "step-00000006"
    before = {f.name: f.read_bytes() for f in last.glob("*.safetensors")}
    assert before
    spoken = (again / "samples" / "train-00000006-1.wav").read_bytes()
    shutil.rmtree(last)
    api.train(str(again))
    assert {f.name: f.read_bytes() for f in last.glob("*.safetensors")} == before
    assert (again / "samples" / "train-00000006-1.wav").read_bytes() == spoken


def test_a_server_speaks(voice: Run, vocoder: Run) -> None:
    model = api.load(voice)
    with running(model.answerer.server()) as served, httpx.Client(base_url=served.url) as http:
        body = {"model": "tiny", "input": "hello", "voice": "alloy", "seed": 0}
        spoken = http.post("/v1/audio/speech", json=body, timeout=60)
        assert spoken.status_code == 200, spoken.text
        assert spoken.headers["content-type"] == "audio/wav"
        assert spoken.content == model.make("hello").read_bytes()
        lengths = [
            len(http.post("/v1/audio/speech", json=body | {"speed": s}, timeout=60).content)
            for s in (0.25, 1.0, 4.0)
        ]
        assert lengths[0] > lengths[1] >= lengths[2]  # a frame a character is the shortest
        assert lengths[1] == len(spoken.content)
    with running(api.load(vocoder).answerer.server()) as served:
        paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
        assert "/predict" in paths and "/v1/audio/speech" not in paths


def test_another_vocoder_is_refused(
    data: Callable[[str], Path], voice: Run, tmp_path: Path
) -> None:
    made = speech_recipe(data("kathleen"), vocoder=str(voice.path))
    with pytest.raises(ModelwrightError, match=r"train\.options\.vocoder: .* reads other frames"):
        api.train(made, out=tmp_path / "run")
    made = speech_recipe(data("kathleen"), vocoder=str(tmp_path / "nothing"))
    with pytest.raises(ModelwrightError, match=r"train\.options\.vocoder: .*; or leave it out"):
        api.train(made, out=tmp_path / "run2")


def test_several_voices_speak_by_name(
    data: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = speech_recipe(data("fsdd"), text="label", voice="speaker", iterations=2)
    made["data"] |= {"source": "fsdd", "limit": 260, "split": {"by": "row", "test": 0.1}}
    made["codec"] = TINY | {"rate": 8000}
    made |= {"name": "digits", "ask": "1"}
    made["train"]["steps"] = 3
    with pytest.raises(ModelwrightError, match="ask: .*'7' is not in the train split"):
        api.train(made | {"ask": "7"}, out=tmp_path / "other")
    run = api.train(made, out=tmp_path / "digits")
    out = tmp_path / "one.wav"
    model = api.load(run)
    voices = model.fitted.codec.labels  # type: ignore[attr-defined]
    assert len(voices) > 1
    assert main(["ask", str(run.path), f"{voices[0]}: 1", "--out", str(out)]) == 0
    one = out.read_bytes()
    assert main(["ask", str(run.path), f"{voices[1]}: 1", "--out", str(out)]) == 0
    assert out.read_bytes() != one
    assert main(["ask", str(run.path), "nobody: 1", "--out", str(out)]) == 2  # no voice: a text
    assert "'nobody: 1': 'n' is not in the train split" in capsys.readouterr().err
    (turn,) = model.fitted.task.question("1: 1")
    assert turn.text == "1: 1"


def test_a_recogniser_judges_what_is_understood(
    data: Callable[[str], Path], vocoder: Run, tmp_path: Path
) -> None:
    pytest.importorskip("jiwer")
    listening = vocoder_recipe(data("kathleen")) | {
        "name": "ear",
        "codec": {"bands": 20},
        "model": {"family": "conformer", "depth": 1, "width": 16, "heads": 2, "kernel": 7},
        "train": {"task": "speech_recognition", "steps": 2, **STAGE},
    }
    ear = api.train(listening, out=tmp_path / "ear")
    made = speech_recipe(data("kathleen"), vocoder=str(vocoder.path))
    made["train"]["steps"] = 2
    voice = api.train(made, out=tmp_path / "voice")
    before = [p.stat().st_mtime_ns for p in (voice.path / "checkpoints").rglob("*")]
    assert main(["evaluate", str(voice.path), f"recogniser={ear.path}"]) == 0
    assert before == [p.stat().st_mtime_ns for p in (voice.path / "checkpoints").rglob("*")]
    found = json.loads((voice.path / "evaluation.json").read_text())
    assert ", of whose train part 0 are;" in found["measures"][-1]["note"]  # the same split
    rates = {m["name"]: [r["who"] for r in m["rows"]] for m in found["measures"]}
    assert list(rates)[-2:] == [
        "word error rate of a recogniser",
        "character error rate of a recogniser",
    ]
    assert rates["character error rate of a recogniser"] == [
        "ours",
        "mean spectrum, no flow",
        "recordings through the vocoder",
        "recordings",
    ]
    first = found["examples"][0]
    assert first["question"]
    assert " ".join(meant for meant, _ in first["compared"] if meant) == first["reference"]
    assert list(first["sounds"]) == ["this model", "recording"]
    assert set(found["examples"][0]["baselines"]) == set(rates[list(rates)[-1]]) - {"ours"}
