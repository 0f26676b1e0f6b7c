"""What clients are told is in our words: no library's text, no place of a file, no class."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from modelwright.errors import CorruptError, MachineError
from modelwright.serving import wire
from modelwright.serving.asking import PredictRequest
from modelwright.serving.bodies import ApiError, Body, parse
from modelwright.serving.embeddings import EmbeddingRequest
from modelwright.serving.media import Decoder
from modelwright.serving.openai import ChatRequest, CompletionRequest
from modelwright.serving.passes import PassEngine
from modelwright.serving.responses import ResponsesRequest
from modelwright.serving.transcripts import TranscriptionRequest
from modelwright.serving.wholes import ImageRequest, SpeechRequest
from tests.serving.parts import running
from tests.serving.test_wholes import Fixed, request

BODIES = (ChatRequest, CompletionRequest, ResponsesRequest, EmbeddingRequest, ImageRequest,
          SpeechRequest, TranscriptionRequest, PredictRequest)  # fmt: skip
# Of pydantic, llguidance, Python and ours: what no client can do anything with.
FOREIGN = re.compile(
    r"Input should|Value error|pydantic|function-|constrained|lax-or|validator|union|instance of"
    r"|Field required|should (have|match)|<class|object at|Traceback"
    r"|Unimplemented|Unsatisfiable|registry|retriev|coerce|parse error|start:|lexer"
)
WRONG = (None, 3.5, -1, 10**30, True, "", "x", "x" * 2_000_000, [], [[]], [{}], [None],
         ["x"] * 5000, {}, {"type": "zzz"}, {"type": []}, [{"type": "zzz"}], [{"role": "user"}],
         {"x": 1})  # fmt: skip


@pytest.mark.parametrize("schema", BODIES, ids=lambda s: s.__name__)
def test_a_field_of_a_wrong_kind_is_named_in_our_words(schema: type[Body]):
    names = {field.alias or name for name, field in schema.model_fields.items()}
    for name in names:
        for value in WRONG:
            try:
                parse(schema, json.dumps({"model": "tiny", name: value}).encode())
            except ApiError as error:
                assert error.status == 400 and error.param, (name, value)
                place = re.fullmatch(r"(\w+)(\.\w+|\[\d+\])*", error.param)
                assert place and place[1] in names, error.message
                assert error.message.startswith(f"{error.param}: "), error.message
                assert not FOREIGN.search(error.message.replace("x" * 50, "")), error.message


SCHEMAS = (
    ({"not": {}}, "keys that are not kept: \"not\""), ({"type": "objekt"}, "objekt"),
    ({"$ref": "http://a.example/b"}, "nothing is fetched"), ({"$ref": "#/nope"}, "'/nope'"),
    ({"type": "string", "pattern": "("}, "the expression is wrong: unclosed group"),
    ({"type": "string", "format": "zzz"}, "zzz"), ({"enum": []}, "nothing can match"),
    ({"oneOf": [{"type": "string"}, {"type": "string"}]}, "write 'anyOf'"),
    ({"multipleOf": 0}, "send a simpler one"), ({"properties": 3}, "send a simpler one"),
)  # fmt: skip


@pytest.mark.parametrize(("schema", "said"), SCHEMAS, ids=str)
def test_a_schema_that_cannot_be_kept_is_told_in_our_words(served, schema, said):
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "a"}]}
    answer = httpx.post(
        f"{served.url}/v1/chat/completions", json={**ask, "response_format": form}, timeout=60
    )
    error = answer.json()["error"]
    assert answer.status_code == 400 and said in error["message"], error
    assert not FOREIGN.search(error["message"]) and "\n" not in error["message"]


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "[z-a]", r"\1"])
def test_an_expression_that_is_wrong_is_told_in_our_words(served, pattern):
    form = {"type": "regex", "regex": pattern}
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "a"}]}
    answer = httpx.post(
        f"{served.url}/v1/chat/completions", json={**ask, "response_format": form}, timeout=60
    )
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and "the expression is wrong: " in message
    assert not FOREIGN.search(message) and "\n" not in message


@pytest.mark.parametrize("kind", [CorruptError, MachineError])
def test_a_fault_of_the_server_tells_no_place(kind):
    """A damaged file, a missing library: 500 in fixed words; the log has the rest."""

    class Broken(Fixed):
        def detailed(self, given, **params):
            raise kind("/srv/secret/model.safetensors: damaged")

    def unread(text):
        if text == "unread":
            raise kind("/srv/secret/codec.json: damaged")
        return request(text)

    with (
        running(PassEngine(Broken(), unread)) as other,
        httpx.Client(base_url=other.url, timeout=60) as http,
    ):
        for text in ("a", "unread"):
            chat = {"model": "tiny", "messages": [{"role": "user", "content": text}]}
            for path, body in (("/predict", {"inputs": [text]}), ("/v1/chat/completions", chat)):
                answer = http.post(path, json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (
                    500,
                    "internal_error",
                ), answer.text
                assert "secret" not in answer.text
    crossed = wire._error(wire._of_error(kind("a: damaged")), b"")  # from an engine's process
    assert type(crossed) is kind


def test_a_picture_that_is_none_is_told_without_a_librarys_class():
    decoder = Decoder()
    try:
        for decode, content in ((decoder.picture, b"\x89PNG\r\n\x1a\n"), (decoder.sound, b"hello")):
            with pytest.raises(ApiError) as error:
                decode(content, "image")
            assert "(" not in error.value.message and "Error" not in error.value.message
            assert "; send a whole " in error.value.message
    finally:
        decoder.stop()
