"""Encoder-decoders answer through the engine: greedy as transformers, in batches, with beams."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import torch
from torch import nn

from modelwright.data.codecs.text_pairs import Codec
from modelwright.errors import ModelwrightError
from modelwright.hub import bart, t5
from modelwright.models.model import config_class
from modelwright.serving.engine import ContextLengthError, Engine, Request, SamplingParams
from modelwright.types import Example, text_turn
from tests.hub import oracle_text as oracle
from tests.serving.parts import running, wait_for

VOCABULARY, CONTEXT = 264, 80
SOURCES = ["Ein Hund.", "Zwei Männer reden.", "x", "Die Katze schläft auf dem Sofa.", "", "Ja!"]


def example(source: str, target: str) -> Example:
    return Example((text_turn("user", source), text_turn("assistant", target, learn=True)))


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.fit([example(s, s) for s in SOURCES], vocabulary=VOCABULARY, longest=CONTEXT)


def random_model(family: str, codec: Codec, seed: int = 0) -> nn.Module:
    cls = config_class(family)
    fields = {**cls.specimen, **cls.data_fields(codec), "width": 32, "heads": 4}
    model = cls(**fields).build().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.25 if p.dim() > 1 else 0.5, generator=generator)
    return model


# transformers -------------------------------------------------------------------------------------

THEIRS: dict[str, tuple[ModuleType, str, dict[str, Any]]] = {
    "t5": (
        t5,
        "T5ForConditionalGeneration",
        {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2,
         "num_heads": 2},
    ),
    "bart": (
        bart,
        "BartForConditionalGeneration",
        {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
         "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 48,
         "decoder_ffn_dim": 48, "max_position_embeddings": 200, "forced_eos_token_id": None,
         "pad_token_id": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", THEIRS)
def test_greedy_tokens_are_those_of_transformers_for_64_steps(
    name: str, codec: Codec, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    family, kind, fields = THEIRS[name]
    torch.manual_seed(0)
    made = getattr(transformers, kind)
    blank = made(made.config_class(**fields, decoder_start_token_id=codec.start))
    # T5 does not scale the products of attention: large matrices make rounding errors grow.
    theirs = oracle.lively(blank, *((1.3, 3) if name == "t5" else (2.0, 2)))
    ours = oracle.there_and_back(theirs, family, tmp_path)[0]
    endless = Codec(codec.text, longest=CONTEXT, start=codec.start, padding=codec.padding)
    endless.special = frozenset()
    engine = Engine(ours, endless, max_batch=4)
    asked = [engine.prompt([text_turn("user", s)]) for s in SOURCES]
    found = engine.generate([Request(tokens, SamplingParams(max_tokens=64)) for tokens in asked])
    given, real = oracle.padded(asked, 1)
    wanted = theirs.generate(
        given, attention_mask=real, do_sample=False, num_beams=1, max_new_tokens=65,
        min_new_tokens=65, eos_token_id=None,
    )[:, 1:65]  # fmt: skip
    assert [done.tokens for done in found] == wanted.tolist()
    assert len(wanted.unique()) > 1, "one token over and over proves little"
    assert [done.prompt_tokens for done in found] == [len(tokens) for tokens in asked]


# The engine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "seeded"])
def test_law_5_a_request_in_a_full_batch_is_the_same_alone(
    family: str, temperature: float, codec: Codec
) -> None:
    model = random_model(family, codec)
    requests = [
        Request(
            codec.prompt([text_turn("user", s)]),
            SamplingParams(max_tokens=3 + 4 * i, temperature=temperature, seed=i),
        )
        for i, s in enumerate(SOURCES)
    ]
    together = Engine(model, codec, max_batch=3).generate(requests)
    for request, done in zip(requests, together, strict=True):
        (alone,) = Engine(model, codec).generate([request])
        assert (done.tokens, done.text, done.finish_reason) == (
            alone.tokens, alone.text, alone.finish_reason,
        )  # fmt: skip
    assert len({tuple(done.tokens) for done in together}) > 1


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_greedy_is_the_full_forward_token_by_token(family: str, codec: Codec) -> None:
    model = random_model(family, codec, seed=1)
    for text in SOURCES[:3]:
        source = codec.prompt([text_turn("user", text)])
        (done,) = Engine(model, codec).generate([Request(source, SamplingParams(max_tokens=15))])
        tokens = list(codec.opening)
        with torch.inference_mode():
            while len(tokens) < 16:
                logits = model(torch.tensor([tokens]), torch.tensor([source]))[0, -1]
                if int(logits.argmax()) in codec.special:
                    break
                tokens.append(int(logits.argmax()))
        assert done.tokens == tokens[1:]


def test_a_source_beyond_the_context_is_refused_and_one_that_fills_it_is_answered(
    codec: Codec,
) -> None:
    engine = Engine(random_model("bart", codec), codec)
    filling = [text_turn("user", "\x00" * (CONTEXT - 1))]
    assert len(engine.prompt(filling)) == CONTEXT
    assert engine.answer([filling], SamplingParams(max_tokens=2))[0].role == "assistant"
    with pytest.raises(ContextLengthError, match="81 tokens long and .* holds 80;"):
        engine.answer([[text_turn("user", "\x00" * CONTEXT)]])


def test_a_source_and_an_answer_that_fill_the_context_each_are_begun(codec: Codec) -> None:
    """Both are held at once, in an engine of one request too."""
    engine = Engine(random_model("t5", codec), codec, max_batch=1)
    engine.start()
    try:
        handle = engine.submit(Request([9] * CONTEXT, SamplingParams(max_tokens=CONTEXT)))
        wait_for(lambda: engine.running or handle._events.qsize())
    finally:
        engine.stop()
    with pytest.raises(ModelwrightError, match=f"give {2 * CONTEXT} or more"):
        Engine(random_model("t5", codec), codec, cache_tokens=CONTEXT)


def test_a_leading_space_of_sentencepiece_is_none_of_the_answer(codec: Codec) -> None:
    class Spaced(Codec):
        def spell(self, tokens: Iterable[int]) -> bytes:
            return b"".join(b" w%d" % t for t in tokens)

    spaced = Spaced(codec.text, longest=CONTEXT, start=codec.start, padding=codec.padding)
    assert spaced.spaced
    done = Engine(random_model("bart", codec), spaced).answer([[text_turn("user", "x")]])[0].text
    assert done.startswith("w") and " w" in done


def test_the_server_answers_chats_with_what_the_engine_answers(codec: Codec) -> None:
    engine = Engine(random_model("bart", codec, seed=3), codec)
    asked = [text_turn("user", SOURCES[1])]
    expected = engine.answer([asked], SamplingParams(max_tokens=20))[0].text
    message = {
        "model": "tiny",
        "max_tokens": 20,
        "messages": [{"role": "user", "content": SOURCES[1]}],
    }
    with running(engine) as served, httpx.Client(base_url=served.url, timeout=30) as http:
        for _ in range(2):  # no temperature is named: the likeliest, not a draw
            body = http.post("/v1/chat/completions", json=message).json()
            assert body["choices"][0]["message"]["content"] == expected
        assert body["usage"]["prompt_tokens"] == len(engine.prompt(asked))
        streamed = http.post("/v1/chat/completions", json={**message, "stream": True}).text
        assert streamed.count("data:") > 2 and streamed.rstrip().endswith("[DONE]")
        long = {**message, "messages": [{"role": "user", "content": "\x01" * 200}]}
        refused = http.post("/v1/chat/completions", json=long)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"


# Beams --------------------------------------------------------------------------------------------


class Letters:
    """A codec of five tokens, of which 0 ends."""

    def __init__(self, opening: Sequence[int] | None = None) -> None:
        self.end, self.special = 0, frozenset({0})
        if opening is not None:
            self.opening = opening

    def prompt(self, turns: Any) -> list[int]:
        return [1, 2]

    def tokens(self, text: str) -> list[int]:
        return []

    def spell(self, tokens: Iterable[int]) -> bytes:
        return bytes(96 + t for t in tokens)


def five_letters(family: str, seed: int) -> nn.Module:
    cls = config_class(family)
    known = {"vocabulary": 5, "context": 12, "width": 16, "heads": 2, "kv_heads": 2, "depth": 1}
    model = cls(**{k: v for k, v in known.items() if k in cls.__dataclass_fields__}).build().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.6, generator=generator)
    return model


def every_answer(
    model: nn.Module, prompt: list[int], paired: bool, longest: int
) -> dict[tuple[int, ...], float]:
    """log p of every answer that ends within ``longest`` tokens, or is that long."""
    found = {}
    for tokens in itertools.chain.from_iterable(
        itertools.product(range(1, 5), repeat=n) for n in range(longest + 1)
    ):
        ended = (*tokens, 0) if len(tokens) < longest else tokens
        read = torch.tensor([[1, *ended[:-1]] if paired else [*prompt, *ended[:-1]]])
        with torch.inference_mode():
            logits = model(read, torch.tensor([prompt])) if paired else model(read)
        log_p = logits[0].double().log_softmax(-1)[-len(ended) :]
        found[tokens] = float(log_p[torch.arange(len(ended)), torch.tensor(ended)].sum())
    return found


@pytest.mark.parametrize("family", ["decoder", "bart", "t5"])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_enough_beams_find_the_best_answer_of_all(family: str, penalty: float) -> None:
    paired = family != "decoder"
    for seed in range(3):
        model, codec = five_letters(family, seed), Letters([1] if paired else None)
        params = SamplingParams(max_tokens=3, beams=64, length_penalty=penalty)
        (done,) = Engine(model, codec).generate([Request([1, 2], params)])  # type: ignore[arg-type]
        answers = every_answer(model, [1, 2], paired, 3)
        # The end counts as a token where there is one.
        score = {a: p / min(len(a) + 1, 3) ** penalty for a, p in answers.items()}
        assert score[tuple(done.tokens)] == pytest.approx(max(score.values()), abs=1e-5)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_beams_are_the_same_alone_and_beside_others(family: str, codec: Codec) -> None:
    model = random_model(family, codec, seed=2)
    params = SamplingParams(max_tokens=12, beams=3)
    requests = [Request(codec.prompt([text_turn("user", s)]), params) for s in SOURCES]
    together = Engine(model, codec, max_batch=7).generate(
        [*requests, Request(requests[0].tokens, SamplingParams(max_tokens=12))]
    )
    for request, done in zip(requests, together[:-1], strict=True):
        (alone,) = Engine(model, codec).generate([request])
        assert done.tokens == alone.tokens
    (greedy,) = Engine(model, codec).generate(
        [Request(requests[0].tokens, SamplingParams(max_tokens=12))]
    )
    assert together[-1].tokens == greedy.tokens
    assert all(len(done.tokens) <= 12 for done in together)


def test_beams_take_no_draws_and_no_stream(codec: Codec) -> None:
    with pytest.raises(ModelwrightError, match="leave out temperature"):
        SamplingParams(beams=2, temperature=0.5)
    with pytest.raises(ModelwrightError, match="beams: 0 is not between 1 and 64"):
        SamplingParams(beams=0)
    engine = Engine(random_model("bart", codec), codec)
    with pytest.raises(ModelwrightError, match="token by token"):
        engine.submit(Request([1], SamplingParams(beams=2)))
