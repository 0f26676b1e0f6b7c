"""Answers in one pass where the server expects an engine: limits, failures, no files."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import httpx
import jsonschema
import pytest
import torch

from modelwright.data.codecs.vectors import Codec
from modelwright.errors import ModelwrightError
from modelwright.models.mlp import Config
from modelwright.objectives import make_objective
from modelwright.pipeline.answering.predicting import Predicting
from modelwright.serving.asking import facts, schema
from modelwright.serving.batch import Event, Request
from modelwright.serving.engine import EngineStoppedError, QueueFullError
from modelwright.serving.passes import PassEngine
from modelwright.tasks.task import make_task, names
from modelwright.types import Answer, Turn
from tests.serving.parts import running, wait_for
from tests.variations import examples_of

QUESTION = str([[0, 1, 2, 3]] * 3)


class Slow(Predicting):
    """A policy that waits until it is told, or fails."""

    gate: threading.Event | None = None
    failure: Exception | None = None
    passes: list[int]

    def detailed(self, given: Sequence[Sequence[Turn]], **params) -> list[Answer]:
        if self.gate is not None:
            assert self.gate.wait(60)
        if self.failure is not None:
            raise self.failure
        found = super().detailed(given, **params)
        self.passes.append(len(given))
        return found


@pytest.fixture
def predictor() -> Slow:
    task, examples = examples_of("vector_classification")
    codec = Codec.fit(examples)
    torch.manual_seed(0)
    model = Config(**Config.data_fields(codec)).build().eval()
    policy = Slow(model, codec, make_objective(task.objective, codec, {}), task)
    policy.passes = []
    return policy


@pytest.fixture
def engine(predictor: Slow) -> PassEngine:
    engine = predictor.server(max_waiting=3)
    assert isinstance(engine, PassEngine)
    return engine


def chat(url: str) -> httpx.Response:
    body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


def test_more_than_may_wait_are_refused_and_the_others_answered_together(
    engine: PassEngine, predictor: Slow
) -> None:
    predictor.gate = threading.Event()
    heard: list[Event] = []
    engine.start()
    request = Request(list(QUESTION.encode()))
    engine.submit(request, heard.append)
    wait_for(lambda: engine.running == 1)
    left = engine.submit(request, heard.append)
    engine.submit(request, heard.append)
    with pytest.raises(QueueFullError, match="3 requests wait"):
        engine.submit(request)
    assert left.cancel()  # its client has gone
    predictor.gate.set()
    wait_for(lambda: len(heard) == 4)
    assert [type(event).__name__ for event in heard] == ["str", "Completion"] * 2
    assert predictor.passes == [1, 1]
    engine.stop()
    with pytest.raises(EngineStoppedError):
        engine.submit(request)


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers are one but for the rounding of larger products."""
    chances = one.details["probabilities"], other.details["probabilities"]
    return one.turn == other.turn and chances[0] == pytest.approx(chances[1])


def test_what_waits_is_answered_in_one_pass_and_a_bad_question_is_its_own_fault(
    engine: PassEngine, predictor: Slow
) -> None:
    engine.max_waiting = 20
    predictor.gate = threading.Event()
    engine.start()
    good = predictor.task.request(QUESTION)
    bad = predictor.task.request("[1, 2]")
    first = engine.ask([good])
    wait_for(lambda: engine.running == 1)
    futures = [engine.ask([good] * (i + 1)) for i in range(4)]
    wrong = engine.ask([bad])
    predictor.gate.set()
    found = [future.result(60) for future in futures]
    assert [len(answers) for answers in found] == [1, 2, 3, 4]
    alone = first.result(60)[0]
    assert all(same(answer, alone) for answers in found for answer in answers)
    with pytest.raises(ModelwrightError):
        wrong.result(60)
    assert predictor.passes == [1, 1, 2, 3, 4]  # eleven together failed, so each was asked alone
    predictor.passes.clear()
    predictor.gate.clear()
    busy = engine.ask([good])
    wait_for(lambda: engine.running == 1)
    rest = [engine.ask([good]) for _ in range(5)]
    predictor.gate.set()
    assert all(same(future.result(60)[0], alone) for future in (busy, *rest))
    assert predictor.passes == [1, 5]
    engine.stop()


def test_a_prediction_has_the_shape_that_its_schema_promises(
    engine: PassEngine, predictor: Slow
) -> None:
    with running(engine) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        numbers = [[0, 1, 2, 3]] * 3
        body = {"model": "tiny", "inputs": [{"numbers": numbers}, QUESTION, {"text": QUESTION}]}
        found = http.post("/predict", json=body).json()
        assert (found["object"], found["model"]) == ("prediction", "tiny")
        assert [answer["index"] for answer in found["data"]] == [0, 1, 2]
        first, *others = found["data"]
        assert all({**answer, "index": 0} == first for answer in others)
        chances = first["probabilities"]
        assert sum(chances.values()) == pytest.approx(1)
        assert first["parts"] == [{"type": "label", "name": first["said"]}]
        assert max(chances, key=chances.get) == first["said"]
        described = http.get("/openapi.json").json()
        offered = described["paths"]["/predict"]["post"]["requestBody"]["content"]
        assert set(offered) == {"application/json", "multipart/form-data"}
        jsonschema.validate(body, offered["application/json"]["schema"])
        card = http.get("/v1/models").json()["data"][0]["predicts"]
        assert set(card["labels"]) == set(chances)
        form = http.post("/predict", files={"text": (None, QUESTION)})
        assert form.json()["data"][0]["probabilities"] == pytest.approx(chances)
        wrong, unknown = "invalid_value", "unknown_parameter"
        for name, value, code in (
            ("seed", "\u00b2", wrong), ("seed", "-1", wrong), ("sed", "1", unknown),
        ):  # fmt: skip
            odd = http.post("/predict", files={"text": (None, QUESTION), name: (None, value)})
            error = odd.json()["error"]
            assert (odd.status_code, error["param"], error["code"]) == (400, name, code)
        assert "did you mean 'seed'?" in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "inputs"), ({"inputs": []}, "inputs"), ({"inputs": ["[1"]}, "inputs[0]"),
     ({"inputs": [{"text": "a", "image": "b"}]}, "inputs[0]"), ({"inputs": [{}]}, "inputs[0]"),
     ({"inputs": [{"image": "*"}]}, "inputs[0]"), ({"inputs": "a", "model": "other"}, "model"),
     ({"inputs": [{"image": "http://127.0.0.1/a.png"}]}, "inputs[0]"),
     ({"inputs": ["[1]"] * 65}, "inputs"), ({"inputs": [3]}, "inputs[0]"),
     ({"inputs": ["[1]"], "seed": -1}, "seed"), ({"inputs": [{"numbers": [[1, 2]]}]}, "inputs")],
    ids=str,
)  # fmt: skip
def test_a_wrong_prediction_is_refused_and_named(
    engine: PassEngine, body: dict[str, object], param: str
) -> None:
    with running(engine) as served:
        refused = httpx.post(f"{served.url}/predict", json=body, timeout=60)
        error = refused.json()["error"]
        assert refused.status_code == (404 if param == "model" else 400)
        assert error["param"] == param and "\n" not in error["message"]


@pytest.mark.parametrize("name", names())
def test_every_task_says_what_it_reads(name: str) -> None:
    task = make_task(name, {})
    known = facts(task, object())
    assert known["inputs"] and set(known["inputs"]) <= {"text", "numbers", "image", "audio"}
    made = schema(known)
    jsonschema.Draft202012Validator.check_schema(made)
    jsonschema.validate({"inputs": ["anything"]}, made)


def test_a_failure_is_told_and_does_not_end_the_server(engine: PassEngine, predictor: Slow) -> None:
    with running(engine) as served:
        predictor.failure = RuntimeError("secret")
        broken = chat(served.url)
        assert broken.status_code == 500
        assert "secret" not in broken.text
        predictor.failure = None
        assert chat(served.url).status_code == 200


def test_no_file_is_read_for_a_question_over_the_network(tmp_path: Path) -> None:
    task = make_task("image_classification", {})
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    assert task.question(str(picture))
    with pytest.raises(ModelwrightError, match="a picture is meant"):
        task.request(str(picture))
    assert task.request("[[0, 255]]")
