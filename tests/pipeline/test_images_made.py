"""Digits of noise from end to end: trained, resumed, measured, shown, asked."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.data.pictures import decode
from modelwright.runs import Run
from tests.serving.parts import running

STAGE = {"steps": 6, "batch": 8, "threads": 1, "compile": False, "precision": "float32"}
CLASSES = "a row each of " + ", ".join(map(str, range(10)))


def recipe(**parts: Any) -> dict[str, Any]:
    options = {"steps": 2, "sampler": "euler", "guidance": 2.0, "samples": 40}
    return {
        "name": "digits",
        "data": {"source": "digits", "limit": 600, "split": {"by": "row", "test": 0.2}},
        "model": {"family": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1,
                  "attention": [1], "heads": 2},
        "train": {"task": "image_generation", "options": options, "ema": 0.9, "save_every": 3,
                  "sample_every": 3, **STAGE},
        **parts,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return api.run(recipe(), out=tmp_path_factory.mktemp("made") / "run")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_grids_are_drawn_while_it_learns(run: Run) -> None:
    kept = lines(run.path / "samples" / "train.jsonl")
    assert [(line["step"], line["prompt"]) for line in kept] == [(3, CLASSES), (6, CLASSES)]
    grids = [decode((run.path / "samples" / line["image"]).read_bytes())[0] for line in kept]
    assert grids[0].shape == (10 * 10 + 2, 8 * 10 + 2)  # ten classes, eight of each, 8 x 8 and gap
    assert not np.array_equal(*grids)


def test_it_is_measured_beside_real_images_and_trivial_ones(run: Run) -> None:
    found = {
        m["name"]: m for m in json.loads((run.path / "evaluation.json").read_text())["measures"]
    }
    assert list(found) == [
        "images recognised as their class",
        "Fréchet distance to train images",
        "diversity within a class",
        "distance to the nearest train image",
    ]
    of = {name: {row["who"]: row["value"] for row in m["rows"]} for name, m in found.items()}
    assert all(
        list(rows) == ["ours", "real test images", "class mean and noise"] for rows in of.values()
    )
    recognised = of["images recognised as their class"]
    assert recognised["real test images"] > 0.8 > recognised["ours"]  # six steps learn nothing
    distance = of["Fréchet distance to train images"]
    assert distance["real test images"] < min(distance["ours"], distance["class mean and noise"])
    note = found["images recognised as their class"]["note"]
    assert "2 steps of euler, the model asked 4 times" in note
    assert "real test images;" in note
    nearest = lines(run.path / "samples" / "evaluate.jsonl")
    assert [line["image"] for line in nearest] == ["nearest.png"]


def test_the_page_shows_the_grids(run: Run) -> None:
    page = (run.path / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3
    assert CLASSES in page
    assert "Not run yet: no sample" not in page


def test_a_resumed_training_is_the_training(run: Run, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(run.path, again)
    last = again / "checkpoints" / "train" / "step-00000006"
    before = {f.name: f.read_bytes() for f in last.glob("*.safetensors")}
    grid = (again / "samples" / "train-00000006.png").read_bytes()
    assert before
    shutil.rmtree(last)
    api.train(str(again))
    assert {f.name: f.read_bytes() for f in last.glob("*.safetensors")} == before
    assert (again / "samples" / "train-00000006.png").read_bytes() == grid
    assert [line["step"] for line in lines(again / "samples" / "train.jsonl")] == [3, 6]


def test_asking_writes_a_picture_and_says_where(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", str(run.path), "7"]) == 0
    said = Path(capsys.readouterr().out.strip())
    assert said.name == "ask-7-0.png"
    assert said.parent.resolve() == (run.path / "samples").resolve()
    assert decode(said.read_bytes())[0].shape == (8, 8)
    out = tmp_path / "new" / "seven.png"
    assert main(["ask", str(run.path), "7", "--out", str(out), "--seed", "3"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_bytes() != said.read_bytes()
    assert main(["ask", str(run.path), "7", "--out", str(tmp_path / "seven.jpg")]) == 2
    assert "seven.jpg: answers are written as PNG" in capsys.readouterr().err
    assert main(["ask", str(run.path), "--out", str(out)]) == 2
    assert "--out: is for one question" in capsys.readouterr().err
    assert main(["ask", str(run.path), "eleven"]) == 2
    assert "label 'eleven' is not in the train split" in capsys.readouterr().err


def test_python_and_the_server_draw_the_same_picture(run: Run) -> None:
    model = api.load(run)
    assert model.suffix == ".png"
    drawn = Path(model("3"))
    assert drawn.name == "ask-3-0.png"
    with running(model.answerer.server()) as served, httpx.Client(base_url=served.url) as http:
        body = {"prompt": "3", "n": 2, "seed": 0, "response_format": "b64_json"}
        made = http.post("/v1/images/generations", json=body, timeout=60).json()["data"]
        assert base64.b64decode(made[0]["b64_json"]) == drawn.read_bytes()
        assert made[1] != made[0]
        found = http.post("/predict", json={"inputs": ["3"], "seed": 0}, timeout=60).json()
        assert found["data"][0]["file"] == {"type": "image/png", "b64": made[0]["b64_json"]}
        card = http.get("/v1/models").json()["data"][0]["predicts"]
        assert (card["makes"], "3" in card["labels"]) == ("image/png", True)
        assert card["size"] == "8x8"
        right = http.post("/v1/images/generations", json=body | {"size": "8x8"}, timeout=60)
        assert right.json()["data"] == made
        large = http.post("/v1/images/generations", json=body | {"size": "1024x1024"}, timeout=60)
        assert (large.status_code, large.json()["error"]["param"]) == (400, "size")
        assert "draws pictures of 8x8" in large.json()["error"]["message"]
        several = http.post("/v1/images/generations", json=body | {"stream": True}, timeout=60)
        assert several.status_code == 400 and several.json()["error"]["param"] == "n"
        one = {**body, "n": 1, "stream": True, "partial_images": 2}
        streamed = http.post("/v1/images/generations", json=one, timeout=60).text
        events = [json.loads(s[6:]) for s in streamed.splitlines() if s.startswith("data: ")]
        assert [event["type"].rpartition(".")[2] for event in events] == [
            "partial_image", "partial_image", "completed"
        ]  # fmt: skip
        contents = [base64.b64decode(event["b64_json"]) for event in events]
        assert contents[-1] == drawn.read_bytes()  # whoever watches, it is the same picture
        assert all(decode(content)[0].shape == (8, 8) for content in contents)
        unknown = http.post("/v1/images/generations", json={"prompt": "eleven"}, timeout=60)
        assert unknown.status_code == 400
        assert unknown.json()["error"]["code"] == "invalid_question"
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "3"}]}
        assert http.post("/v1/chat/completions", json=asked).status_code == 400


def test_without_classes_it_is_measured_by_its_neighbours(tmp_path: Path) -> None:
    made = recipe()
    made["train"]["options"] |= {"label": ""}
    made["train"]["steps"] = 3
    found = api.evaluate(api.train(made, out=tmp_path / "plain"))
    assert [m["name"] for m in found["measures"]] == ["distance to the nearest train image"]
    (line,) = lines(tmp_path / "plain" / "samples" / "train.jsonl")
    assert line["prompt"] == "without a class"
    assert Path(api.load(tmp_path / "plain")("")).name == "ask-any-0.png"
