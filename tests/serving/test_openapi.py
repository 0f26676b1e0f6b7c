"""The document of the API: what it lets through is let through, and it names what is served."""

from __future__ import annotations

import httpx
import pytest

from modelwright.serving.openapi import naming


@pytest.fixture(scope="module")
def made(served):
    return httpx.get(f"{served.url}/openapi.json").json()


def property_of(made, path, name):
    schema = made["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = made["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return body["properties"][name]


@pytest.mark.parametrize(
    ("path", "name", "most"),
    [("/v1/completions", "prompt", 16), ("/v1/embeddings", "input", 64),
     ("/v1/responses", "input", 256), ("/v1/completions", "stop", 4)],
)  # fmt: skip
def test_one_text_and_a_list_are_both_told_of(made, path, name, most):
    kinds = {kind["type"]: kind for kind in property_of(made, path, name)["anyOf"]}
    assert kinds["array"]["maxItems"] == most and "maxLength" in kinds["string"]


def test_models_are_told_by_name(made, served):
    assert property_of(made, "/v1/chat/completions", "model")["enum"] == ["tiny"]
    (named,) = made["paths"]["/v1/models/{name}"]["get"]["parameters"]
    assert named["schema"]["enum"] == ["tiny"]
    later = naming(made, ["tiny", "tiny:a"])
    assert property_of(later, "/v1/embeddings", "model")["enum"] == ["tiny", "tiny:a"]
    assert property_of(made, "/v1/embeddings", "model")["enum"] == ["tiny"]
    served.service.adapters["b"] = 1
    try:
        now = httpx.get(f"{served.url}/openapi.json").json()
        assert property_of(now, "/v1/completions", "model")["enum"] == ["tiny", "tiny:b"]
    finally:
        del served.service.adapters["b"]


def test_tools_are_told_of_in_the_shape_of_each_path(made):
    schemas = made["components"]["schemas"]
    for path, fields in (("/v1/chat/completions", {"type", "function"}),
                         ("/v1/responses", {"type", "name", "description", "parameters",
                                            "strict"})):  # fmt: skip
        (kind,) = (k for k in property_of(made, path, "tools")["anyOf"] if k["type"] == "array")
        tool = schemas[kind["items"]["$ref"].rpartition("/")[2]]
        assert tool["properties"].keys() == fields
        word, _, _ = property_of(made, path, "tool_choice")["anyOf"]
        assert word["enum"] == ["none", "auto", "required"]
    (items,) = (k for k in property_of(made, "/v1/responses", "input")["anyOf"] if "items" in k)
    told = [schemas[one["$ref"].rpartition("/")[2]] for one in items["items"]["anyOf"]]
    assert [set(one["required"]) for one in told] == [
        {"role", "content"},
        {"type", "call_id", "name", "arguments"},
        {"type", "call_id", "output"},
    ]
