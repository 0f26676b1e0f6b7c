"""Vectors, transcriptions, pictures and speech as the official client asks for them."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch

from modelwright.data.pictures import encode_png
from modelwright.data.sounds import decode, encode_wav
from modelwright.errors import ModelwrightError
from modelwright.models.bert import Config
from modelwright.objectives import make_objective
from modelwright.pipeline.answering import answerer
from modelwright.serving.engine import Engine
from modelwright.serving.guard import OPEN_PATHS
from modelwright.serving.limits import Limits
from modelwright.serving.passes import PassEngine
from modelwright.serving.server import build_app
from modelwright.types import Answer, Image, Sound, Text, Turn, text_turn
from tests.serving.parts import running, wait_for


def client(served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0)


class Fixed:
    """Answers by a rule: says how long a recording is, or makes a file."""

    at_once = 8

    def __init__(self, suffix: str = "", inputs: tuple[str, ...] = ("text",)) -> None:
        self.suffix, self.inputs = suffix, inputs
        self.asked: list[Any] = []

    def detailed(self, given, **params: Any) -> list[Answer]:
        self.asked.append(([turns[0].parts[0] for turns in given], params))
        return [self._one(turns[0].parts[0], i, params) for i, turns in enumerate(given)]

    def _one(self, part, number: int, params) -> Answer:
        if isinstance(part, Sound):
            return Answer(text_turn("assistant", f"{part.seconds:.2f} s"))
        pixels = np.full((2, 2, 3), (number + params.get("seed", 0)) % 256, np.uint8)
        return Answer(Turn("assistant", (Image(pixels),)))

    def content(self, answer: Turn) -> bytes:
        return encode_png(answer.parts[0].pixels) if self.suffix == ".png" else b"RIFFwav"

    def facts(self) -> dict[str, Any]:
        return {"inputs": list(self.inputs), **({"labels": ["anna"]} if self.suffix else {})}


def request(text: str) -> tuple[Turn, ...]:
    return (Turn("user", (Text(text),)),)


def sound() -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4000))
    return written.getvalue()


def test_recordings_are_written_down(served):
    with running(PassEngine(Fixed(inputs=("audio", "text")), request)) as heard, client(heard) as c:
        file = ("a.wav", sound(), "audio/wav")
        assert c.audio.transcriptions.create(model="tiny", file=file).text == "0.25 s"
        plain = c.audio.transcriptions.create(model="tiny", file=file, response_format="text")
        assert plain.strip() == "0.25 s"
        told = c.audio.transcriptions.create(
            model="tiny", file=file, response_format="verbose_json"
        )
        assert float(told.duration) == 0.25
        for wrong in ({"model": "x"}, {"response_format": "srt"}, {"file": ("a.wav", b"no sound")}):
            with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
                c.audio.transcriptions.create(**{"model": "tiny", "file": file, **wrong})
        missing = httpx.post(f"{heard.url}/v1/audio/transcriptions", files={"file": file})
        assert missing.json()["error"]["param"] == "model"
    with client(served) as c, pytest.raises(openai.NotFoundError):
        c.audio.transcriptions.create(model="tiny", file=file)  # this model writes text


class Hears(Fixed):
    """Tells what it has heard in two pieces, as ``pipeline.answering.predicting`` does."""

    def detailed(self, given, looks: int = 0, seen: Any = None, **params: Any) -> list[Answer]:
        found = super().detailed(given, **params)
        if seen is not None:
            assert looks == 0
            for number, piece in enumerate(("0.25", " s")):
                seen(number, text_turn("assistant", piece))
        return found


def test_a_recording_is_written_down_while_it_is_heard():
    with running(PassEngine(Hears(inputs=("audio",)), request)) as heard, client(heard) as c:
        file = ("a.wav", sound(), "audio/wav")
        events = list(c.audio.transcriptions.create(model="tiny", file=file, stream=True))
        assert [event.type for event in events] == [
            "transcript.text.delta", "transcript.text.delta", "transcript.text.done"
        ]  # fmt: skip
        assert [event.delta for event in events[:2]] == ["0.25", " s"]
        assert events[-1].text == "0.25 s"
        with pytest.raises(openai.BadRequestError):
            c.audio.transcriptions.create(
                model="tiny", file=("a.wav", b"no sound", "audio/wav"), stream=True
            )


class Speaks(Fixed):
    """Speaks two sentences, as ``serving.speech`` does, or all at once."""

    whole = Sound(np.linspace(-0.5, 0.5, 480, dtype=np.float32), 16_000)

    def detailed(self, given, looks: int = 0, seen: Any = None, **params: Any) -> list[Answer]:
        text = given[0][0].text
        if text == "none":
            raise ModelwrightError("inputs: nothing to speak")
        if seen is not None and text != "all at once":
            for number, part in enumerate((self.whole.samples[:200], self.whole.samples[200:])):
                seen(number, Turn("assistant", (Sound(part, self.whole.rate),)))
        return [Answer(Turn("assistant", (self.whole,)))]

    def content(self, answer: Turn) -> bytes:
        return encode_wav(answer.sound.samples, answer.sound.rate)


def test_a_text_is_heard_while_it_is_spoken():
    def events(said: openai.OpenAI, text: str) -> list[dict[str, Any]]:
        made = said.audio.speech.create(
            model="tiny", voice="alloy", input=text, response_format="wav", stream_format="sse"
        )
        return [
            json.loads(line[6:]) for line in made.text.splitlines() if line.startswith("data: ")
        ]

    with running(PassEngine(Speaks(".wav"), request)) as spoken, client(spoken) as c:
        for text, pieces in (("One. Two.", 2), ("all at once", 1)):
            *parts, last = events(c, text)
            assert [part["type"] for part in parts] == ["speech.audio.delta"] * pieces
            assert last["type"] == "speech.audio.done"
            assert last["usage"]["total_tokens"] == 0
            content = b"".join(base64.b64decode(part["audio"]) for part in parts)
            samples, rate = decode(content)
            assert rate == 16_000
            whole = c.audio.speech.create(model="tiny", voice="alloy", input=text)
            assert np.array_equal(samples, decode(whole.content)[0])
        (failed,) = events(c, "none")
        assert failed["type"] == "error"
        assert "nothing to speak" in failed["error"]["message"]
        with pytest.raises(openai.BadRequestError):
            c.audio.speech.create(
                model="tiny", voice="a", input="a", extra_body={"stream_format": "x"}
            )


def test_pictures_are_made_as_many_as_asked_for():
    policy = Fixed(".png")
    with running(PassEngine(policy, request)) as made, client(made) as c:
        found = c.images.generate(model="tiny", prompt="fox", n=3, extra_body={"seed": 5})
        contents = [base64.b64decode(picture.b64_json) for picture in found.data]
        assert contents == [encode_png(np.full((2, 2, 3), 5 + i, np.uint8)) for i in range(3)]
        assert policy.asked[0][1] == {"seed": 5}
        c.images.generate(model="tiny", prompt="fox")
        assert policy.asked[1][1]["seed"] != 5  # drawn anew where none is given
        with pytest.raises(openai.BadRequestError) as error:
            c.images.generate(model="tiny", prompt="fox", n=11)
        assert error.value.param == "n"
        with pytest.raises(openai.BadRequestError):
            c.images.generate(model="tiny", prompt="fox", response_format="url")


class Gradual(Fixed):
    """Draws in three steps, as ``serving.flow`` does."""

    def detailed(self, given, looks: int = 0, seen: Any = None, **params: Any) -> list[Answer]:
        for look in range(looks):
            seen(look, Turn("assistant", (Image(np.full((2, 2, 3), 200 + look, np.uint8)),)))
        if given[0][0].text == "none":
            raise ModelwrightError("inputs: no such class")
        return super().detailed(given, **params)


def test_a_picture_is_followed_while_it_is_drawn():
    with running(PassEngine(Gradual(".png"), request)) as made, client(made) as c:
        events = list(
            c.images.generate(
                model="tiny", prompt="fox", stream=True, partial_images=2, extra_body={"seed": 5}
            )
        )
        kinds = [event.type.removeprefix("image_generation.") for event in events]
        assert kinds == ["partial_image", "partial_image", "completed"]
        assert [event.partial_image_index for event in events[:2]] == [0, 1]
        shades = [np.full((2, 2, 3), shade, np.uint8) for shade in (200, 201, 5)]
        wanted = [encode_png(shade) for shade in shades]
        assert [base64.b64decode(event.b64_json) for event in events] == wanted
        assert events[-1].usage.total_tokens == 0
        alone = list(c.images.generate(model="tiny", prompt="fox", stream=True))
        assert [event.type for event in alone] == ["image_generation.completed"]
        for wrong, param in (
            ({"stream": True, "n": 2}, "n"), ({"partial_images": 2}, "partial_images"),
            ({"stream": True, "partial_images": 4}, "partial_images"),
        ):  # fmt: skip
            with pytest.raises(openai.BadRequestError) as error:
                c.images.generate(model="tiny", prompt="fox", **wrong)
            assert error.value.param == param
        with pytest.raises(openai.APIError, match="no such class"):
            list(c.images.generate(model="tiny", prompt="none", stream=True))


def test_speech_is_a_file_in_the_voice_that_is_known():
    policy = Fixed(".wav")
    with running(PassEngine(policy, request)) as made, client(made) as c:
        for voice, asked in (("anna", "anna: hello"), ("alloy", "hello")):
            spoken = c.audio.speech.create(
                model="tiny", input="hello", voice=voice, response_format="wav"
            )
            assert spoken.content == b"RIFFwav"
            assert spoken.response.headers["content-type"] == "audio/wav"
            assert policy.asked[-1][0] == [Text(asked)]
        with pytest.raises(openai.BadRequestError) as error:
            c.audio.speech.create(model="tiny", input="", voice="anna")
        assert error.value.param == "input"


def test_a_text_with_a_colon_is_spoken_in_the_voice_of_the_request():
    policy = Fixed(".wav")
    with running(PassEngine(policy, request)) as made, client(made) as c:
        for voice, text, asked in (
            ("alloy", "9:30 is early", "9:30 is early"),
            ("anna", "9:30 is early", "anna: 9:30 is early"),
            ({"id": "anna"}, "hello", "anna: hello"),
            ("alloy", "anna: hello", ": anna: hello"),  # which names no voice, and is read so
        ):
            c.audio.speech.create(model="tiny", input=text, voice=voice)
            assert policy.asked[-1][0] == [Text(asked)]
        httpx.post(f"{made.url}/v1/audio/speech", json={"model": "tiny", "input": "anna: hello"})
        assert policy.asked[-1][0] == [Text("anna: hello")]


def test_a_speed_is_passed_on_and_what_is_not_offered_is_named():
    policy = Fixed(".wav")
    with running(PassEngine(policy, request)) as made, client(made) as c:

        def speech(**more):
            return c.audio.speech.create(model="tiny", input="hello", voice="anna", **more)

        for speed in (0.25, 1, 4.0):
            speech(speed=speed, instructions="")
            assert policy.asked[-1][1] == {"speed": speed}
        speech()
        assert policy.asked[-1][1] == {}
        count = len(policy.asked)
        for wrong, code in (
            ({"speed": 0.2}, "invalid_value"),
            ({"speed": 4.1}, "invalid_value"),
            ({"instructions": "cheerfully"}, "unsupported_parameter"),
            ({"response_format": "mp3"}, "invalid_value"),
            ({"voice": {"id": 3}}, "invalid_value"),
        ):
            with pytest.raises(openai.BadRequestError) as error:
                c.audio.speech.create(**{"model": "tiny", "input": "hello", "voice": "a", **wrong})
            assert (error.value.param, error.value.code) == (next(iter(wrong)), code)
        assert len(policy.asked) == count


def test_vectors_of_a_decoder_are_its_mean_stream(served, model, codec):
    texts = ["The quick brown fox", "jumps"]
    with client(served) as c:
        found = c.embeddings.create(model="tiny", input=texts)
        floats = c.embeddings.create(model="tiny", input=texts, encoding_format="float")
        with pytest.raises(openai.BadRequestError) as error:
            c.embeddings.create(model="tiny", input="fox " * 200)
        assert error.value.code == "context_length_exceeded"
        for wrong in ([], "", ["a"] * 65):
            with pytest.raises(openai.BadRequestError):
                c.embeddings.create(model="tiny", input=wrong)
    assert found.usage.prompt_tokens == sum(len(codec.tokens(text)) for text in texts)
    for text, one, plain in zip(texts, found.data, floats.data, strict=True):
        with torch.inference_mode():
            mean = model.hidden(torch.tensor([codec.tokens(text)]))[0].mean(0)
        wanted = torch.nn.functional.normalize(mean, dim=0)
        torch.testing.assert_close(torch.tensor(one.embedding), wanted, atol=1e-4, rtol=1e-3)
        assert one.embedding == pytest.approx(plain.embedding, abs=1e-6)


def test_vectors_of_an_encoder_are_the_same_alone_and_beside_others(codec):
    from tests.variations import examples_of

    task, examples = examples_of("text_classification")
    from modelwright.data.codecs.labelled_text import Codec

    labelled = Codec.fit(examples, vocabulary=300)
    torch.manual_seed(0)
    made = Config(**{**Config.specimen, **Config.data_fields(labelled)}).build().eval()
    policy = answerer(made, labelled, make_objective(task.objective, labelled, {}), task)
    with running(policy.server()) as served, client(served) as c:
        both = c.embeddings.create(model="tiny", input=["one good text", "a longer bad text"])
        alone = c.embeddings.create(model="tiny", input="one good text")
        assert sum(v * v for v in alone.data[0].embedding) == pytest.approx(1, abs=1e-5)
        assert both.data[0].embedding == pytest.approx(alone.data[0].embedding, abs=1e-5)
        assert both.data[1].embedding != both.data[0].embedding


@pytest.mark.parametrize("kind", ["audio", ".png", ".wav"])
def test_every_route_of_whole_answers_needs_the_key(kind):
    policy = Fixed("" if kind == "audio" else kind, ("audio",) if kind == "audio" else ("text",))
    app = build_app(PassEngine(policy, request), model_name="tiny", api_key="secret")
    paths = {route.path.replace("{name:path}", "tiny") for route in app.routes}
    assert len(paths) == 12
    with running(PassEngine(policy, request), api_key="secret") as served:
        for path in paths - OPEN_PATHS:
            for method in ("GET", "POST"):
                assert httpx.request(method, served.url + path).status_code == 401


def test_the_document_names_what_is_there_and_its_schemas_are_sound(served, model, codec):
    import jsonschema

    made = httpx.get(f"{served.url}/openapi.json").json()
    routes = build_app(Engine(model, codec), model_name="tiny").routes
    assert set(made["paths"]) == {r.path.replace(":path", "") for r in routes}
    for schema in made["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    chat = made["paths"]["/v1/chat/completions"]["post"]
    reference = chat["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.rpartition("/")[2] in made["components"]["schemas"]
    assert "text/event-stream" in chat["responses"]["200"]["content"]


def test_vectors_are_cut_to_the_dimensions_asked_for(served):
    with client(served) as c:
        (whole,) = c.embeddings.create(model="tiny", input="quick", encoding_format="float").data
        (cut,) = c.embeddings.create(
            model="tiny", input="quick", encoding_format="float", dimensions=4
        ).data
        wanted = torch.nn.functional.normalize(torch.tensor(whole.embedding[:4]), dim=0)
        torch.testing.assert_close(torch.tensor(cut.embedding), wanted)
        with pytest.raises(openai.BadRequestError) as error:
            c.embeddings.create(model="tiny", input="quick", dimensions=4000)
        assert (error.value.param, error.value.code) == ("dimensions", "invalid_value")


def test_vectors_wait_in_a_queue_with_an_end(model, codec, monkeypatch):
    """S12, S16, S18, R12: refused when it is full, forgotten when left, paid for by their key."""
    engine, gate, begun = Engine(model, codec), threading.Event(), []
    embed = engine.embed

    def slow(texts):
        begun.append(list(texts))
        gate.wait(120)
        return embed(texts)

    monkeypatch.setattr(engine, "embed", slow)
    key = {"Authorization": "Bearer secret"}
    rates = Limits(tokens_a_minute=12, vectors_waiting=2)
    with (
        running(engine, api_key="secret", limits=rates) as served,
        httpx.Client(base_url=served.url, headers=key, timeout=60) as http,
        ThreadPoolExecutor(4) as pool,
    ):
        body = {"model": "tiny", "input": "The quick brown fox jumps"}
        first = pool.submit(http.post, "/v1/embeddings", json=body)
        wait_for(lambda: begun)
        left = httpx.Client(base_url=served.url, headers=key, timeout=0.3)
        for _ in range(2):  # who leaves while waiting is not computed
            with pytest.raises(httpx.ReadTimeout):
                left.post("/v1/embeddings", json={**body, "input": "never"})
        left.close()
        name = "modelwright_requests_cancelled_total 2"
        wait_for(lambda: name in http.get("/metrics").text)

        def patient() -> httpx.Response:
            """An answer; where a look at whether it is full took the place, asked for again."""
            while True:
                answer = http.post("/v1/embeddings", json=body)
                if answer.status_code != 429 or answer.json()["error"]["code"] != "queue_full":
                    return answer
                time.sleep(0.05)

        second, third = (pool.submit(patient) for _ in range(2))

        def full() -> bool:
            try:
                answer = http.post("/v1/embeddings", json=body, timeout=0.3)
            except httpx.ReadTimeout:  # it waited as well
                return False
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
            return True

        wait_for(full)
        gate.set()
        assert [one.result().status_code for one in (first, second, third)] == [200] * 3
        assert ["never"] not in begun
        refused = http.post("/v1/embeddings", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            429,
            "rate_limit_exceeded",
        )
