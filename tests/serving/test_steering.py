"""Penalties, biases, grammars and log-probabilities: by their formulas, and on no other row."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
import torch

from modelwright.errors import ModelwrightError
from modelwright.serving.batch import Scored
from modelwright.serving.constraint import Constraint, ConstraintError, Constraints, Grammar
from modelwright.serving.engine import Engine, Request, SamplingParams
from modelwright.serving.steering import Steering
from tests.serving.parts import random_decoder, wait_for


def steered(logits, prompt=(), answer=(), **params) -> list[float]:
    steering = Steering(SamplingParams(**params), prompt)
    for token in answer:
        steering.took(token)
    before = torch.tensor(logits)
    after = steering.steered(before)
    assert before.tolist() == torch.tensor(logits).tolist()  # the model's own stay as they are
    return after.tolist()


def test_penalties_follow_their_formulas():
    logits = [1.0, -1.0, 2.0, 0.5]
    given = {"prompt": (0,), "answer": (2, 2, 1)}
    assert steered(logits, **given, frequency_penalty=0.5) == [1.0, -1.5, 1.0, 0.5]
    assert steered(logits, **given, presence_penalty=0.5) == [1.0, -1.5, 1.5, 0.5]
    assert steered(logits, **given, repetition_penalty=2.0) == [0.5, -2.0, 1.0, 0.5]
    assert steered(logits, **given, logit_bias=((3, 2.0), (0, -100.0))) == [-99.0, -1.0, 2.0, 2.5]
    both = steered(logits, **given, repetition_penalty=2.0, frequency_penalty=1.0)
    assert both == [0.5, -3.0, -1.0, 0.5]


def test_a_bias_decides_and_touches_no_other_row(model, codec):
    engine = Engine(model, codec)
    (token,) = codec.tokens("z")[:1]
    prompt = codec.tokens("The fox")
    plain = Request(prompt, SamplingParams(max_tokens=6))
    biased = Request(prompt, SamplingParams(max_tokens=6, logit_bias=((token, 100.0),)))
    free, forced, also_free = engine.generate([plain, biased, plain])
    assert forced.tokens == [token] * 6
    assert free.tokens == also_free.tokens == engine.generate([plain])[0].tokens


def test_log_probabilities_are_those_of_the_model(model, codec):
    engine = Engine(model, codec)
    prompt = codec.tokens("The quick brown")
    params = SamplingParams(max_tokens=5, logprobs=3, echo=True, frequency_penalty=1.0)
    (done,) = engine.generate([Request(prompt, params)])
    tokens = [*prompt, *done.tokens]
    with torch.inference_mode():
        whole = model(torch.tensor([tokens]))[0].double().log_softmax(-1)
    assert done.prompt_scores[0].logprob is None
    scores = [*done.prompt_scores, *done.scores]
    for at in range(1, len(tokens)):
        wanted = whole[at - 1]
        assert scores[at].logprob == pytest.approx(wanted[tokens[at]].item(), abs=1e-4)
        assert scores[at].spelled == codec.spell([tokens[at]])
        assert [v for _, v in scores[at].top] == pytest.approx(wanted.topk(3)[0].tolist(), abs=1e-4)
    assert len(scores) == len(tokens)


def test_a_prompt_can_be_scored_without_an_answer(model, codec):
    params = SamplingParams(max_tokens=0, logprobs=0, echo=True)
    (done,) = Engine(model, codec).generate([Request(codec.tokens("The quick brown"), params)])
    assert (done.tokens, done.text, done.finish_reason) == ([], "", "length")
    assert len(done.prompt_scores) == done.prompt_tokens
    with pytest.raises(ModelwrightError, match=r"^max_tokens: "):
        SamplingParams(max_tokens=0)


def test_scores_come_with_the_text_they_made(model, codec):
    engine = Engine(model, codec)
    engine.start()
    heard = []
    params = SamplingParams(max_tokens=20, temperature=1.0, seed=1, logprobs=1)
    handle = engine.submit(Request(codec.tokens("Na"), params), heard.append)
    wait_for(lambda: heard and not isinstance(heard[-1], Scored))
    engine.stop()
    *pieces, done = heard
    assert handle is not None
    assert "".join(p.text for p in pieces) == done.text
    assert tuple(s for p in pieces for s in p.scores) == done.scores
    assert b"".join(s.spelled for s in done.scores).decode("utf-8", "replace").startswith(done.text)


# --- grammars ------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["fox", "dog"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("drafts", [0, 4])
def test_an_answer_satisfies_its_schema(codec, seed, drafts):
    model = random_decoder(codec, context=512)
    engine = Engine(model, codec, drafts=drafts)
    params = SamplingParams(
        max_tokens=400,
        temperature=1.0,
        seed=seed,
        grammar=Grammar("json_schema", json.dumps(SCHEMA)),
    )
    (done,) = engine.generate([Request(codec.tokens("The"), params)])
    assert done.finish_reason == "stop"
    jsonschema.validate(json.loads(done.text), SCHEMA)


def test_an_answer_matches_its_expression_and_others_are_free(codec):
    model = random_decoder(codec, context=512)
    engine = Engine(model, codec)
    pattern = r"(fox|dog) \d{3}-[a-c]+/x"
    prompt = codec.tokens("The")
    bound = [
        Request(prompt, SamplingParams(50, 1.0, seed=s, grammar=Grammar("regex", pattern)))
        for s in range(3)
    ]
    free = Request(prompt, SamplingParams(20, 1.0, seed=1))
    *matched, other = engine.generate([*bound, free])
    for done in matched:
        if done.finish_reason == "stop":
            assert re.fullmatch(pattern, done.text), done.text
        else:
            assert re.match(r"(fox|dog) \d{3}-[a-c]+$", done.text)
    assert other.tokens == engine.generate([free])[0].tokens


BOMBS = [
    ("regex", "("),
    ("regex", r"((((a{1,200}){1,200}){1,200}){1,200})"),
    ("regex", "(" * 4000 + ")" * 4000),
    ("regex", "|".join(f"(a{i}.*){{50}}" for i in range(800))),
    ("json_schema", "[]"),
    ("json_schema", "{"),
    ("json_schema", '{"type": "frog"}'),
    ("json_schema", '{"$ref": "https://example.org/schema"}'),
    ("json_schema", '{"anyOf": [' + ", ".join(['{"type": "string"}'] * 3000) + "]}"),
    ("json_schema", '{"items": ' * 2000 + "{}" + "}" * 2000),
]


@pytest.mark.parametrize(("kind", "text"), BOMBS, ids=[f"{k}-{t[:18]}" for k, t in BOMBS])
def test_a_grammar_that_is_wrong_or_a_bomb_costs_its_own_request_alone(codec, kind, text):
    """Refused when it is compiled, or when a step would cost too much; or it is harmless."""
    made = Constraints(codec, codec.vocabulary)
    try:
        constraint = made.constraint(Grammar(kind, text))
        for token in codec.tokens("aaaa"):
            if not constraint.allowed()[token]:
                break
            constraint.took(token)
    except ConstraintError as error:
        assert "\n" not in str(error) and len(str(error)) < 300


def test_a_grammar_that_fails_on_its_way_ends_its_own_answer_alone(model, codec, monkeypatch):
    grammar = Grammar("regex", "[a-z]{30}")
    prompt = codec.tokens("The")
    engine = Engine(model, codec)
    bound = Request(prompt, SamplingParams(20, grammar=grammar))
    plain = Request(prompt, SamplingParams(12))
    (wanted,) = engine.generate([plain])
    steps = iter(range(100))
    original = Constraint.allowed

    def failing(self):
        if next(steps) == 4:
            raise ConstraintError("too much")
        return original(self)

    monkeypatch.setattr(Constraint, "allowed", failing)
    engine.start()
    try:
        handles = [engine.submit(bound), engine.submit(plain)]
        with pytest.raises(ConstraintError, match="too much"):
            list(handles[0])
        assert "".join(handles[1]) == wanted.text
    finally:
        engine.stop()
    with pytest.raises(ConstraintError, match="longer than"):
        Grammar("regex", "a" * 70_000)
