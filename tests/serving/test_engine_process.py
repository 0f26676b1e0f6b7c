"""An engine in a process of its own: the same answers, and no signal to it fools a client."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.errors import MachineError
from modelwright.serving.engine import ContextLengthError, Engine, EngineStoppedError, Request
from modelwright.serving.engine_process import RemoteEngine, RemotePasses, remote
from modelwright.serving.limits import Limits
from modelwright.serving.openai import ApiError
from modelwright.serving.row import Completion, Score, Scored
from modelwright.serving.sampling import SamplingParams
from modelwright.serving.wire import FrameError, pack, unpack
from modelwright.types import Answer, Box, Image, Label, Number, Sound, Span, Turn, text_turn
from tests.serving.parts import running, wait_for

CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 4}
PROGRAM = str(Path(__file__).with_name("tiny_engine.py"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts the engine of a description in a process of its own."""
    begun = []

    def started(settings=None, **described):
        file = tmp_path_factory.mktemp("engine") / "engine.json"
        file.write_text(json.dumps(described))
        engine = remote([sys.executable, PROGRAM, str(file)], **(settings or {}))
        begun.append(engine)
        return engine

    yield started
    for engine in begun:
        engine.stop()


@pytest.fixture(scope="module")
def text(start) -> RemoteEngine:
    return start(kind="text")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def listened(engine, request) -> list:
    events = []
    engine.submit(request, events.append)
    wait_for(lambda: events and not isinstance(events[-1], str | Scored))
    return events


# What crosses ------------------------------------------------------------------------------------

PARTS = st.one_of(
    st.builds(Label, st.text()),
    st.builds(Number, st.floats(allow_nan=False)),
    st.builds(Span, st.integers(0, 9), st.integers(0, 9), st.text()),
    st.builds(Box, st.text(), *[st.floats(0, 9)] * 4),
)
MESSAGES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary(),
              st.floats(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(alphabet="abc", max_size=3), inner, max_size=3),
        st.builds(Turn, st.text(), st.lists(PARTS, max_size=3).map(tuple)),
    ),
    max_leaves=9,
)  # fmt: skip


def crossed(message):
    frame = pack(message)
    length = int.from_bytes(frame[:4], "little")
    return unpack(frame[8 : 8 + length], frame[8 + length :])


@given(MESSAGES)
def test_a_message_arrives_as_it_was_sent(message):
    assert crossed(message) == message


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64"])
def test_pixels_and_samples_arrive_to_the_bit(dtype):
    pixels = np.random.default_rng(0).integers(0, 200, (3, 5, 2)).astype(dtype)
    image = crossed([Image(pixels, original=(9, 9))])[0]
    assert image.pixels.dtype == pixels.dtype and (image.pixels == pixels).all()
    assert image.original == (9, 9)
    sound = Sound(np.linspace(-1, 1, 99, dtype=np.float32), 16000)
    assert (crossed(sound).samples == sound.samples).all()


def test_requests_answers_and_errors_arrive():
    params = SamplingParams(max_tokens=3, stop=("a",), logit_bias=((1, 2.0),), seed=4)
    request = Request([1, 2], params, "anna")
    assert crossed(request) == request
    done = Completion([1], "a", "stop", 2, 0.5, (Score(b"\xff", -1.0, ((b"b", -2.0),)),))
    assert crossed(done) == done
    answer = Answer(text_turn("assistant", "x"), {"probabilities": {"a": 0.5}})
    assert crossed(answer) == answer
    error = crossed(ContextLengthError("too long; shorten it"))
    assert type(error) is ContextLengthError and str(error) == "too long; shorten it"
    assert isinstance(crossed(ValueError("of a library")), RuntimeError)


@pytest.mark.parametrize(
    "text",
    [b"{", b'{"$kind":["Path",{}]}', b'{"$kind":["Text",{"no":1}]}', b'{"$array":[0,8,"O",[1]]}',
     b'{"$array":[0,8,"<f4",[9]]}', b'{"$error":[1]}', b"\xff"],
)  # fmt: skip
def test_what_is_no_message_is_refused_and_makes_nothing(text):
    with pytest.raises(FrameError):
        unpack(text, b"\0" * 8)


@pytest.mark.parametrize("key", ["$bytes", "$tuple", "$kind", "$array", "$error", "$dict", "$"])
def test_a_label_that_looks_like_a_mark_is_a_label(key):
    details = {"probabilities": {key: 0.5}}
    assert crossed({"details": details, key: [{key: None}]}) == {
        "details": details, key: [{key: None}]
    }  # fmt: skip


def test_an_object_of_another_class_does_not_cross():
    with pytest.raises(TypeError, match="Path does not cross"):
        pack({"a": Path("b")})


# The same answers --------------------------------------------------------------------------------


def test_it_answers_as_an_engine_in_this_process(text, model, codec):
    own = Engine(model, codec)
    prompt = own.prompt([text_turn("user", "The quick fox")])
    assert text.prompt([text_turn("user", "The quick fox")]) == prompt
    request = Request(prompt, SamplingParams(max_tokens=12, temperature=0.7, seed=5, logprobs=2))
    (wanted,) = own.generate([request])
    events = listened(text, request)
    assert events[-1].tokens == wanted.tokens and events[-1].text == wanted.text
    assert "".join(event.text for event in events[:-1]) == wanted.text
    assert [s.spelled for s in events[-1].scores] == [s.spelled for s in wanted.scores]
    assert np.allclose(text.embed(["fox", "dog"])[0], own.embed(["fox", "dog"])[0], atol=1e-5)
    assert text.context == own.context and text.process.command("double", number=4) == 8


def test_what_it_refuses_is_refused_here(text):
    with pytest.raises(ContextLengthError, match="shorten the prompt"):
        text.submit(Request([1] * 500), print)
    with pytest.raises(MachineError, match="no such engine"):
        remote([sys.executable, "-c", _FAILING])


_FAILING = """
import sys
from modelwright.errors import MachineError
from modelwright.serving.engine_program import descriptors, run
def made():
    raise MachineError("no such engine; name another")
sys.exit(run(made, *descriptors(sys.argv[1])))
"""


def test_a_request_that_cannot_be_written_is_the_end_of_that_request_alone(text):
    """Half a character is no text: it comes to no frame, in either direction."""
    for broken in ("\ud800", Path("no value")):
        with pytest.raises(RuntimeError):
            text.process.asked("embed", texts=[broken])
        with pytest.raises(RuntimeError):
            text.submit(Request([1], SamplingParams(stop=(broken,))), print)
    assert text.alive and not text.process._listeners and not text.process._replies
    assert isinstance(listened(text, Request([1], SamplingParams(max_tokens=1)))[-1], Completion)


def test_a_request_that_is_given_up_frees_its_row(start):
    engine = start(kind="text", pause=0.02)
    events = []
    handle = engine.submit(Request([5, 6], SamplingParams(max_tokens=80)), events.append)
    wait_for(lambda: engine.running == 1)
    handle.cancel()
    wait_for(lambda: engine.running == 0)
    wait_for(lambda: isinstance(events[-1], Completion))
    assert events[-1].finish_reason == "cancelled"  # what it has cost is told, and nothing more
    assert len(events[-1].tokens) < 80
    assert not engine.process._listeners


def test_whole_answers_cross(start):
    engine = start(kind="echo")
    pixels = np.full((4, 4), 7, np.uint8)
    with running(engine) as served, httpx.Client(base_url=served.url, timeout=30) as http:
        body = {"inputs": [" typed "], "seed": 3}
        (answer,) = http.post("/predict", json=body).json()["data"]
        assert answer["said"] == "typed" and answer["seed"] == 3 and answer["sure"] == 0.5
        found = engine.ask([(Turn("user", (Image(pixels),)),)]).result()
        assert found[0].turn.said == "7.0"
        first = engine.process.pid
        broken = http.post("/predict", json={"inputs": ["die"]})
        assert broken.status_code == 503 and broken.json()["error"]["code"] == "engine_stopped"
        wait_for(lambda: engine.alive and engine.process.pid != first)
        assert http.post("/predict", json=body).status_code == 200


# Faults ------------------------------------------------------------------------------------------


def stream_until(url, act) -> list[str]:
    """The data of a stream; ``act`` is called after its first text."""
    body = {**ASK, "max_tokens": 80, "stream": True}
    found = []
    with httpx.stream("POST", url + CHAT, json=body, timeout=60) as response:
        for line in response.iter_lines():
            found += [line.removeprefix("data: ")] if line.startswith("data: ") else []
            if len(found) == 3:
                act()
    return found


def test_what_is_made_is_seen_on_the_way(start):
    engine, heard = start(kind="draws"), []
    assert isinstance(engine, RemotePasses)
    engine.start()
    engine.follow(engine.question("four"), {"seed": 3}, 2, heard.append)
    wait_for(lambda: any(isinstance(one, Completion) for one in heard))
    *looks, done = heard
    told = [base64.b64decode(one) for one in (*looks, done.text)]
    assert told == [bytes([shade] * 4) for shade in (0, 1, 4)]
    wrong: list[object] = []
    engine.follow(engine.question("bad"), {}, 2, wrong.append)
    wait_for(lambda: wrong)
    assert "no such class" in str(wrong[0]) and isinstance(wrong[0], ApiError)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_engine_that_is_killed_or_stopped_is_never_a_false_finish(start, number):
    """S20, S21: in flight an error and no finish, then 503, then a new engine."""
    engine = start({"silent": 1.5, "hung": 3.0}, kind="text", pause=0.03)
    with running(engine) as served:
        first, seen, begun = engine.process.pid, {}, []

        def act():
            begun.append(time.monotonic())
            os.kill(first, number)

        found = stream_until(served.url, act)
        seen["error"] = time.monotonic() - begun[0]
        assert json.loads(found[-1])["error"]["code"] == "engine_stopped"
        assert "[DONE]" not in found
        assert all('finish_reason": "' not in line for line in found)
        assert seen["error"] < 3.0 + 2.5  # hung, and one silence in which it is noticed
        wait_for(lambda: gone(first))
        wait_for(lambda: httpx.get(f"{served.url}/health").status_code == 200, 60)
        assert engine.process.pid != first
        assert httpx.post(served.url + CHAT, json=ASK, timeout=30).status_code == 200
        text = httpx.get(f"{served.url}/metrics").text
        assert "modelwright_engine_restarts_total 1" in text


def test_a_stopped_engine_is_not_well_before_it_is_given_up(start):
    """S21: 503 while it is silent; one that goes on in time loses nothing."""
    engine = start({"silent": 1.5, "hung": 30.0}, kind="text", pause=0.03)
    with running(engine) as served:

        def act():
            os.kill(engine.process.pid, signal.SIGSTOP)
            wait_for(lambda: httpx.get(f"{served.url}/health").status_code == 503)
            refused = httpx.post(served.url + CHAT, json=ASK, timeout=30)
            assert refused.status_code == 503
            os.kill(engine.process.pid, signal.SIGCONT)

        found = stream_until(served.url, act)
        assert found[-1] == "[DONE]" and engine.process.pid


def test_an_engine_that_dies_again_and_again_is_left_alone(start):
    """S20: so many times in so many seconds."""
    engine = start(kind="text")
    with running(engine, limits=Limits(restarts=1)) as served:
        for _ in range(2):
            wait_for(lambda: engine.alive, 60)
            os.kill(engine.process.pid, signal.SIGKILL)
            wait_for(lambda: not engine.alive)
        wait_for(lambda: engine.died)
        time.sleep(1)
        assert engine.died and httpx.get(f"{served.url}/ready").status_code == 503


def test_no_engine_outlives_its_server(start):
    engine = start(kind="text")
    pid = engine.process.pid
    os.kill(pid, signal.SIGTERM)  # deaf: the server says when
    os.kill(pid, signal.SIGINT)
    assert listened(engine, Request([5], SamplingParams(max_tokens=2)))
    engine.stop()
    assert gone(pid)
    with pytest.raises(EngineStoppedError):
        engine.submit(Request([5]), print)
