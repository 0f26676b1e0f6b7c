"""Answers in one pass where the server expects an engine: limits, failures, no files."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
import torch

from modelwright.data.codecs.vectors import Codec
from modelwright.errors import ModelwrightError
from modelwright.models.mlp import Config
from modelwright.objectives import make_objective
from modelwright.serving.batch import Event, Request
from modelwright.serving.engine import EngineStoppedError, QueueFullError
from modelwright.serving.predictor import Predictor, PredictorEngine
from modelwright.tasks.task import make_task
from modelwright.types import Turn
from tests.serving.parts import running
from tests.variations import examples_of

QUESTION = str([[0, 1, 2, 3]] * 3)


class Slow(Predictor):
    """A predictor that waits until it is told, or fails."""

    gate: threading.Event | None = None
    failure: Exception | None = None

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        if self.gate is not None:
            assert self.gate.wait(60)
        if self.failure is not None:
            raise self.failure
        return super().answer(given)


@pytest.fixture
def predictor() -> Slow:
    task, examples = examples_of("vector_classification")
    codec = Codec.fit(examples)
    torch.manual_seed(0)
    model = Config(**Config.data_fields(codec)).build().eval()
    return Slow(model, codec, make_objective(task.objective, codec, {}))


@pytest.fixture
def engine(predictor: Slow) -> PredictorEngine:
    question = make_task("vector_classification", {}).request
    return PredictorEngine(predictor, question, max_waiting=2)


def chat(url: str) -> httpx.Response:
    body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


def test_more_than_may_wait_are_refused_and_the_others_answered(
    engine: PredictorEngine, predictor: Slow
) -> None:
    predictor.gate = threading.Event()
    heard: list[Event] = []
    engine.start()
    request = Request(list(QUESTION.encode()))
    sent = [engine.submit(request, heard.append) for _ in range(2)]
    with pytest.raises(QueueFullError, match="2 requests wait"):
        engine.submit(request)
    predictor.gate.set()
    for future in sent:
        future.result(60)
    assert [type(event).__name__ for event in heard] == ["str", "Completion"] * 2
    engine.stop()
    with pytest.raises(EngineStoppedError):
        engine.submit(request)


def test_a_failure_is_told_and_does_not_end_the_server(
    engine: PredictorEngine, predictor: Slow
) -> None:
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
