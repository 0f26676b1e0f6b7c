"""Names of the server and pages of other sites that may ask it: none unless they are named."""

from __future__ import annotations

import httpx
import pytest

from modelwright.errors import ModelwrightError
from modelwright.serving.engine import Engine
from modelwright.serving.origins import Origins, allowed
from tests.serving.parts import running

CHAT = "/v1/chat/completions"
PAGE = "https://chat.example"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 1}
LEAVE = {"access-control-request-method": "POST",
         "access-control-request-headers": "authorization,content-type,x-stainless-os"}  # fmt: skip


@pytest.fixture(scope="module", params=[None, "secret"])
def http(request, model, codec):
    """A client of a server that allows a name and a page, without a key and with one."""
    given = {"hosts": ["Models.Example"], "origins": [PAGE, "HTTP://old.example:80"]}
    key = {} if request.param is None else {"authorization": f"Bearer {request.param}"}
    with (
        running(Engine(model, codec), request.param, **given) as served,
        httpx.Client(base_url=served.url, headers=key, timeout=60) as client,
    ):
        yield client


def cors(answer):
    return {k: v for k, v in answer.headers.items() if k.startswith("access-control")}


@pytest.mark.parametrize("host", ["models.example", "models.example:8000", "localhost", "[::1]:80"])
def test_names_that_are_allowed_and_those_of_this_machine_are_answered(http, host):
    assert http.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "models.example.evil", "a.models.example", "*"])
def test_another_name_is_403_with_a_key_too(http, host):
    answer = http.get("/health", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_origin")


@pytest.mark.parametrize("page", [PAGE, "http://old.example"])
def test_a_page_that_is_allowed_may_ask_and_read(http, page):
    answer = http.post(CHAT, json=ASK, headers={"origin": page})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == page
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers
    wrong = http.post(CHAT, json={**ASK, "n": 0}, headers={"origin": page})
    assert wrong.status_code == 400  # and the page can read why
    assert wrong.headers["access-control-allow-origin"] == page


def test_a_browser_is_given_leave_for_it_without_a_key(http):
    for path in (CHAT, "/v1/models", "/none"):
        answer = httpx.options(http.base_url.join(path), headers={**LEAVE, "origin": PAGE})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-allow-methods"] == "GET, POST"
        told = answer.headers["access-control-allow-headers"]
        assert told == LEAVE["access-control-request-headers"]
        assert not {"*"} & set(cors(answer).values())


@pytest.mark.parametrize(
    "page", ["https://evil.example", f"{PAGE}.evil", "http://chat.example", f"{PAGE}:8443", "null",
             "*", f"{PAGE}/"],
)  # fmt: skip
def test_no_other_page_may(http, page):
    for answer in (
        http.options(CHAT, headers={**LEAVE, "origin": page}),
        http.post(CHAT, json=ASK, headers={"origin": page}),
    ):
        assert not cors(answer) and answer.headers["vary"] == "Origin"
    keyed = "authorization" in http.headers
    assert answer.status_code == (200 if keyed else 403)  # the key opens; a browser shows nothing
    assert httpx.options(http.base_url.join(CHAT), headers={**LEAVE, "origin": page}).is_error


def test_no_page_administers(http):
    answer = httpx.options(http.base_url.join("/admin/models"), headers={**LEAVE, "origin": PAGE})
    assert answer.is_error and not cors(answer)


def test_headers_that_are_none_are_not_told_back(http):
    odd = {**LEAVE, "origin": PAGE, "access-control-request-headers": "a: b; c"}
    answer = http.options(CHAT, headers=odd)
    assert answer.status_code == 204 and "access-control-allow-headers" not in answer.headers


def test_without_a_word_of_it_nothing_is_allowed(served):
    answer = httpx.options(served.url + CHAT, headers={**LEAVE, "origin": PAGE})
    assert answer.status_code == 403 and not cors(answer) and "vary" not in answer.headers
    local = httpx.options(served.url + CHAT, headers={**LEAVE, "origin": served.url})
    assert local.status_code == 405 and not cors(local)


@pytest.mark.parametrize(
    ("hosts", "pages"),
    [(["*"], []), (["https://a.example"], []), (["a.example:80"], []), ([""], []), (["a b"], []),
     (["a/b"], []), ([], ["*"]), ([], ["null"]), ([], ["a.example"]), ([], [f"{PAGE}/"]),
     ([], ["https://*.example"]), ([], ["ftp://a"]), ([], ["https://"]), ([], ["https://a:b"])],
)  # fmt: skip
def test_what_is_no_name_or_origin_is_one_line(hosts, pages):
    with pytest.raises(ModelwrightError, match=r"^allow (host|origin): ") as error:
        allowed(hosts, pages)
    assert "\n" not in str(error.value)


def test_names_are_taken_as_browsers_send_them():
    made = allowed(["A.Example", "::1", "10.0.0.7"], ["HTTPS://A.example:443", "http://b:8080"])
    assert made == Origins(
        frozenset({"a.example", "::1", "10.0.0.7"}),
        frozenset({"https://a.example", "http://b:8080"}),
    )
