"""The engine: limits, batches, stops, cancelling, and what happens when the model fails."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.serving.engine import (
    ContextLengthError,
    Engine,
    EngineStoppedError,
    QueueFullError,
    Request,
    SamplingParams,
)
from modelwright.types import text_turn
from tests.serving.parts import SlowModel, random_decoder, wait_for


def asked(codec, text: str, **params) -> Request:
    return Request(codec.tokens(text), SamplingParams(**params))


@pytest.fixture
def slow(model, codec):
    """An engine of two rows and two places to wait, whose steps the test releases."""
    model = SlowModel(model)
    engine = Engine(model, codec, max_batch=2, max_waiting=2)
    engine.start()
    yield engine, model
    model.failure = None
    model.release()
    engine.stop()


def fill(engine: Engine, codec, **params) -> list:
    """Two rows in the batch, held in their prefill, and two more that wait."""
    with engine._changed:  # so that the worker sees both at once
        running = [engine.submit(asked(codec, "one", **params)) for _ in range(2)]
    wait_for(lambda: engine.running == 2)
    return running + [engine.submit(asked(codec, "two", **params)) for _ in range(2)]


def test_hundreds_of_requests_come_back_in_their_order(model, codec):
    texts = ["The quick " * (1 + i % 7) + str(i) for i in range(150)]
    done = Engine(model, codec, max_batch=16).generate(
        [asked(codec, t, max_tokens=1 + i % 5) for i, t in enumerate(texts)]
    )
    assert [c.prompt_tokens for c in done] == [len(codec.tokens(t)) for t in texts]
    assert [len(c.tokens) for c in done] == [1 + i % 5 for i in range(150)]
    assert all(c.finish_reason == "length" and c.seconds >= 0 for c in done)
    assert Engine(model, codec).generate([]) == []


def test_a_special_token_ends_the_answer_and_is_not_in_it(codec):
    model = random_decoder(codec)
    head, script = model.head, [codec.tokens("fox")[0], codec.role["user"]]

    def scripted(hidden):
        logits = torch.zeros_like(head(hidden))
        logits[:, script.pop(0)] = 9.0
        return logits

    model.head = scripted
    (done,) = Engine(model, codec).generate([asked(codec, "The")])
    assert (done.tokens, done.finish_reason) == (codec.tokens("fox")[:1], "stop")
    assert done.text == codec.text(done.tokens)


def test_the_prompt_must_leave_room_and_the_answer_fills_it(model, codec):
    engine = Engine(model, codec)
    token = codec.tokens("a")[0]
    for length, generated in ((95, 1), (90, 6)):
        (done,) = engine.generate([Request([token] * length, SamplingParams(max_tokens=500))])
        assert (len(done.tokens), done.finish_reason) == (generated, "length")
    with pytest.raises(ContextLengthError, match=r"96 tokens .* holds 96.*shorten") as error:
        engine.generate([Request([token] * 96)])
    assert "\n" not in str(error.value)
    with pytest.raises(ModelwrightError, match=r"^prompt: .*no tokens"):
        engine.generate([Request([])])


def test_a_stop_text_across_tokens_ends_the_answer(model, codec):
    engine = Engine(model, codec)
    (free,) = engine.generate([asked(codec, "The fox", max_tokens=40)])
    assert len(free.text) > 12
    at = len(free.text) // 2
    stop = free.text[at : at + 4]
    (cut,) = engine.generate([asked(codec, "The fox", max_tokens=40, stop=(stop,))])
    assert cut.finish_reason == "stop"
    assert free.text.startswith(cut.text)
    assert stop not in cut.text
    assert len(cut.tokens) < len(free.tokens)


def test_a_policy_answers_conversations_and_documents(model, codec):
    turns = [[text_turn("user", "Who jumps?")], [text_turn("document", "")]]
    answers = Engine(model, codec).answer(turns, SamplingParams(max_tokens=5))
    assert [turn.role for turn in answers] == ["assistant", "document"]
    greedy = Engine(model, codec).answer(turns, SamplingParams(max_tokens=5))
    assert answers == greedy


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_working_leaves_no_trace_in_the_model_or_the_random_state(codec, temperature):
    model = random_decoder(codec).train()
    model.blocks[0].eval()  # frozen by its owner: it must stay so
    modes = [m.training for m in model.modules()]
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    params = SamplingParams(max_tokens=4, temperature=temperature)
    Engine(model, codec).answer([[text_turn("user", "Who?")]], params)
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()  # still trainable


def test_a_model_that_does_not_generate_is_refused(codec):
    with pytest.raises(ModelwrightError, match="does not generate"):
        Engine(torch.nn.Linear(2, 2), codec)


@settings(max_examples=15, deadline=None, derandomize=True)  # rounding may flip one in 1e5 tokens
@given(data=st.data())
def test_rows_that_come_and_go_never_disturb_each_other(model, codec, data):
    lengths = st.tuples(st.integers(1, 40), st.integers(1, 30), st.sampled_from([0.0, 0.8]))
    drawn = data.draw(st.lists(lengths, min_size=1, max_size=9))
    pool = codec.tokens("The quick brown fox jumps over the lazy dog. " * 4)
    requests = [
        Request(pool[i : i + n], SamplingParams(max_tokens=m, temperature=t, seed=i))
        for i, (n, m, t) in enumerate(drawn)
    ]
    together = Engine(model, codec, max_batch=3).generate(requests)
    alone = [Engine(model, codec).generate([request])[0] for request in requests]
    assert [c.tokens for c in together] == [c.tokens for c in alone]
    assert [c.text for c in together] == [c.text for c in alone]


def test_submitted_requests_give_the_same_as_generated_ones(model, codec):
    engine = Engine(model, codec, max_batch=3)
    requests = [asked(codec, "The " * (i + 1), max_tokens=9 + i, seed=i, temperature=0.9)
                for i in range(8)]  # fmt: skip
    wanted = engine.generate(requests)
    engine.start()
    try:
        handles = [engine.submit(request) for request in requests]
        texts = ["".join(handle) for handle in handles]
    finally:
        engine.stop()
    assert texts == [c.text for c in wanted]
    assert [h.completion.tokens for h in handles] == [c.tokens for c in wanted]


def test_a_full_queue_refuses_and_a_cancelled_row_is_free_after_one_step(slow, codec):
    engine, model = slow
    handles = fill(engine, codec, max_tokens=50)
    first, queued = handles[:2], handles[2:]
    with pytest.raises(QueueFullError, match="2 requests wait"):
        engine.submit(asked(codec, "three"))
    first[0].cancel()
    queued[0].cancel()
    model.release(2)  # the prefill and the step that were under way, and no more
    wait_for(lambda: engine.waiting == 0 and engine.running == 2)
    assert engine._active[1] is queued[1]._row  # it has taken the free place
    model.release()
    assert "".join(first[0]) == first[0].completion.text
    assert first[0].completion.finish_reason == "cancelled"
    assert list(queued[0]) == []
    assert "".join(queued[1]) and queued[1].completion.finish_reason == "length"
    assert len("".join(first[1])) > 0 and len(first[1].completion.tokens) == 50
    wait_for(lambda: engine.running == 0)


def test_a_failing_step_is_told_to_those_in_it_and_the_engine_goes_on(slow, codec, caplog):
    engine, model = slow
    lost = engine.submit(asked(codec, "one"))
    wait_for(lambda: engine.running == 1)
    model.failure = RuntimeError("out of memory")
    model.release(1)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(lost)
    assert "a step of the engine failed" in caplog.text
    model.failure = None
    model.release()
    assert engine.alive
    assert "".join(engine.submit(asked(codec, "two", max_tokens=3)))


def test_when_the_engine_dies_nobody_is_left_waiting(slow, codec, caplog):
    engine, model = slow
    handles = fill(engine, codec)
    model.failure = SystemExit("killed")
    model.release(1)
    for handle in handles:
        with pytest.raises(EngineStoppedError):
            list(handle)
    wait_for(lambda: not engine.alive)
    with pytest.raises(EngineStoppedError):
        engine.submit(asked(codec, "two"))
    assert "the engine has died" in caplog.text


def test_stopping_finishes_what_was_asked_and_refuses_the_rest(slow, codec):
    engine, model = slow
    handles = fill(engine, codec, max_tokens=6)
    stopping = threading.Thread(target=engine.stop, args=(60.0,))
    stopping.start()
    wait_for(lambda: engine._stopping)
    with pytest.raises(EngineStoppedError):
        engine.submit(asked(codec, "late"))
    model.release()
    assert all(len("".join(handle)) > 0 for handle in handles)
    stopping.join(timeout=30)
    assert not engine.alive


def test_a_stalled_engine_is_not_alive(model, codec):
    model = SlowModel(model)
    engine = Engine(model, codec, stall_seconds=0.05)
    engine.start()
    engine.submit(asked(codec, "one", max_tokens=2))
    wait_for(lambda: not engine.alive)
    engine._stall_seconds = 60.0
    model.release()
    wait_for(lambda: engine.alive and engine.running == 0)
    engine.stop()
