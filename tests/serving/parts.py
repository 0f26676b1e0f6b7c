"""Parts of the serving tests: random models, a model under control, a server in a thread."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path

import torch
import uvicorn

from modelwright.data.codecs.text import Codec
from modelwright.models.decoder import Config, Decoder
from modelwright.serving.connection import protocol
from modelwright.serving.engine import Engine
from modelwright.serving.hosting import listen
from modelwright.serving.server import build_app
from modelwright.serving.service import Service
from modelwright.types import Answer, Turn, text_turn


def random_decoder(codec: Codec, *, seed: int = 0, **fields) -> Decoder:
    """A decoder whose every weight is random: the zeros it starts from would say nothing."""
    shape = {"depth": 2, "width": 32, "heads": 4, "kv_heads": 2, "context": 96, **fields}
    model = Config(vocabulary=codec.vocabulary, **shape).build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3 if p.dim() > 1 else 1.0, generator=generator)
    return model


def mute(model: Decoder, codec: Codec) -> None:
    """Make special tokens the least likely of all, whatever the input."""
    head = model.head

    def without_special(hidden):
        logits = head(hidden)
        logits[..., sorted(codec.special)] = -50.0
        return logits

    model.head = without_special


def scripted(codec: Codec, script: list[str]) -> Engine:
    """An engine whose model says the first of ``script``, and where that is empty anything."""
    model = random_decoder(codec, context=2048)
    head = model.head

    def follow(hidden):
        logits = head(hidden) * 0.01
        tokens = [*codec.tokens(script[0]), codec.end] if script else []
        for row, live in zip(logits, engine._active, strict=False):
            if len(live.tokens) < len(tokens):
                row[tokens[len(live.tokens)]] = 99.0
        return logits

    model.head = follow
    engine = Engine(model, codec, max_batch=1)
    return engine


class SlowModel(torch.nn.Module):
    """A model that waits for ``gate`` before every forward pass: time under a test's control."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.inner, self.config = model, model.config
        self.gate = threading.Semaphore(0)
        self.open = False
        self.begun = 0  # forward passes that have come to the gate
        self.failure: BaseException | None = None

    def new_cache(self, batch: int, capacity: int):
        return self.inner.new_cache(batch, capacity)

    def hidden(self, tokens, cache=None, counts=None):
        self.begun += 1
        if not self.open:
            self.gate.acquire(timeout=60)
        if self.failure:
            raise self.failure
        return self.inner.hidden(tokens, cache, counts)

    def head(self, hidden):
        return self.inner.head(hidden)

    def release(self, steps: int | None = None) -> None:
        """Let some steps happen, or all from now on."""
        self.open = steps is None
        self.gate.release(steps or 1)


class Gated:
    """A policy that notes in a folder what it is asked, and answers when there is a file "open"."""

    suffix, at_once = "", 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "asked").touch()

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().split()

    def open(self) -> None:
        (self.folder / "open").touch()

    def detailed(self, given, **_) -> list[Answer]:
        with (self.folder / "asked").open("a") as file:
            file.writelines(f"{turns[0].text}\n" for turns in given)
        wait_for((self.folder / "open").exists, 60)
        return [Answer(text_turn("assistant", turns[0].text)) for turns in given]

    def content(self, answer: Turn) -> bytes:
        raise AssertionError("no answer is a file")

    def facts(self):
        return {"inputs": ["text"]}


@dataclass
class Served:
    """A server on a loopback port."""

    engine: Engine
    port: int
    service: Service
    server: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class running:  # noqa: N801 - reads as a statement: with running(engine) as served
    """A uvicorn server in a thread, on a free port."""

    def __init__(self, engine: Engine, api_key: str | None = None, **given) -> None:
        self.engine = engine
        self.app = build_app(engine, model_name="tiny", api_key=api_key, **given)
        limits = self.app.state.service.limits
        self.socket = listen("127.0.0.1", 0)
        config = uvicorn.Config(
            self.app, http=protocol(limits), ws="none", lifespan="on", log_level="error",
            # Not uvicorn's own: to set it up closes all handlers, and absl's, which comes with
            # rouge-score, then closes the stream that pytest captures (seen beside capsys).
            log_config=None, access_log=False, timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=limits.header_bytes,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.server.serve(sockets=[self.socket]))
        )

    def __enter__(self) -> Served:
        self.thread.start()
        wait_for(lambda: self.server.started and self.engine.alive)
        return Served(
            self.engine, self.socket.getsockname()[1], self.app.state.service, self.server
        )

    def __exit__(self, *_) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()


def wait_for(condition, seconds: float = 30.0) -> None:
    """Wait until ``condition()`` holds; fail when it does not come to hold."""
    pause = threading.Event()
    for _ in range(int(seconds * 100)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("what was waited for did not happen")
