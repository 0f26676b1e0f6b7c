"""The models that one server answers with: each an engine under a name, some with adapters.

A request names one, ``base`` or ``base:adapter``. Models and adapters come and go while the server
runs (``admin``); a client can name only what is here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from modelwright.errors import ModelwrightError
from modelwright.serving.asking import TYPES
from modelwright.serving.bodies import ApiError
from modelwright.serving.hosting import JSON
from modelwright.serving.kept import Keeper
from modelwright.serving.media import SOUND
from modelwright.serving.passes import PassEngine
from modelwright.serving.service import Answering, Service
from modelwright.serving.shapes import model_card

PREDICT, EMBEDDINGS = "/predict", "/v1/embeddings"
IMAGES, SPEECH = "/v1/images/generations", "/v1/audio/speech"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
WHOLE = (PREDICT, EMBEDDINGS, IMAGES, SPEECH, TRANSCRIPTIONS)


class Runs(Protocol):
    """What may be loaded, by names that whoever serves has made known: never by paths."""

    def load(self, run: str) -> Answering:
        """The engine of a run, not started.

        Raises:
            ModelwrightError: there is none of this name, or it cannot be served.
        """
        ...

    def adapt(self, engine: Answering, name: str, run: str) -> None:
        """Let an engine answer with the adapter of a run where a request names it.

        Raises:
            ModelwrightError: it is none, or one of another base; nothing has changed then.
        """
        ...

    def forget(self, engine: Answering, name: str) -> None:
        """Take an adapter from an engine; what is under way with it is finished."""
        ...


@dataclass(frozen=True)
class Asked:
    """What a request means by its ``model``."""

    service: Service
    adapter: str
    name: str


class Roster:
    """Services by their names; the first is what is meant where a request may name none.

    ``runs`` is what may be loaded, ``keeper`` what keeps requests for training; None: neither.
    """

    def __init__(
        self, first: Service, runs: Runs | None = None, keeper: Keeper | None = None
    ) -> None:
        self.limits, self.metrics, self.runs = first.limits, first.metrics, runs
        self.keeper = keeper
        if keeper is not None:
            keeper.metrics = self.metrics
        self._served = {first.name: first}
        self._changing = asyncio.Lock()
        self._draining = False

    def __iter__(self) -> Iterator[Service]:
        return iter(list(self._served.values()))

    @property
    def first(self) -> Service:
        """The model that has been here longest."""
        return next(iter(self._served.values()))

    @property
    def draining(self) -> bool:
        """Whether the server was told to stop."""
        return self._draining or any(service.draining for service in self)

    def drain(self) -> None:
        """Note that the server was told to stop."""
        self._draining = True

    def asked(self, name: str | None, path: str = "") -> Asked:
        """The model of a request, which must be one that answers at ``path``.

        Raises:
            ApiError: 404, there is none of this name; 400, it does not answer there.
        """
        name = self.first.name if name is None else name
        base, _, adapter = name.rpartition(":")
        service = self._served.get(name)
        if service is not None:
            adapter = ""
        else:
            service = self._served.get(base)
            if service is None or adapter not in service.adapters:
                raise _unknown(name, [str(card["id"]) for card in self.cards()])
        if path in WHOLE and (adapter or path not in offered(service.engine)):
            message = f"model: {name[:100]!r} does not answer at {path}; /v1/models says what it is"
            raise ApiError(400, message, param="model", code="unsupported_model")
        return Asked(service, adapter, name)

    def cards(self) -> list[dict[str, Any]]:
        """Every model, and every adapter with its base as ``parent``."""
        found = []
        for service in self:
            found.append(card(service))
            for name, created in list(service.adapters.items()):
                whole = f"{service.name}:{name}"
                found.append({**card(service), "id": whole, "created": created,
                              "parent": service.name})  # fmt: skip
        return found

    def gauges(self) -> dict[str, float]:
        """What is so now, of all engines together."""
        each = [service.gauges() for service in self]
        names = dict.fromkeys(name for one in each for name in one)
        largest = {n for n in names if not n.startswith(("num_", "prefix_"))}
        return {n: (max if n in largest else sum)(one.get(n, 0.0) for one in each) for n in names}

    # Models and adapters that come and go --------------------------------------------------------

    async def load(self, run: str, name: str) -> Service:
        """Answer with another run under a name.

        Raises:
            ApiError: the name is taken, or there are too many.
            ModelwrightError: the run cannot be served.
        """
        async with self._changing:
            if name in self._served:
                raise _conflict("name", f"{name!r} is served already; unload it, or choose another")
            if len(self._served) >= self.limits.models:
                raise _conflict("run", f"{self.limits.models} models are served; unload one")
            assert self.runs is not None  # noqa: S101 - only then there is a way here
            engine = await asyncio.to_thread(self.runs.load, run)
            engine.start()
            made = Service(engine, name, self.limits, self.metrics)
            self._served[name] = made
            return made

    async def unload(self, name: str) -> None:
        """Answer with a model no more; what is under way may take the time of a drain.

        Raises:
            ApiError: there is none of this name, or it is the only one.
        """
        async with self._changing:
            service = self.asked(name).service
            if service.name != name:
                raise _unknown(name, list(self._served))
            if len(self._served) == 1:
                raise _conflict("name", "this is the only model; stop the server instead")
            del self._served[name]
        await asyncio.to_thread(service.stop, self.limits.drain_seconds)

    async def adapt(self, model: str, name: str, run: str) -> str:
        """Answer with an adapter where ``model:name`` is asked for; gives that name.

        Raises:
            ApiError: the model is unknown, the name is taken, or there are too many.
            ModelwrightError: the adapter is none, or of another base.
        """
        async with self._changing:
            service = self.asked(model).service
            if name in service.adapters or f"{service.name}:{name}" in self._served:
                raise _conflict("name", f"{name!r} is there already; drop it, or choose another")
            if len(service.adapters) >= self.limits.adapters:
                raise _conflict("name", f"{self.limits.adapters} adapters are there; drop one")
            assert self.runs is not None  # noqa: S101 - only then there is a way here
            await asyncio.to_thread(self.runs.adapt, service.engine, name, run)
            service.adapters[name] = int(time.time())
            return f"{service.name}:{name}"

    async def forget(self, name: str) -> None:
        """Answer with the adapter of ``model:name`` no more; what is under way is finished.

        Raises:
            ApiError: there is none of this name.
        """
        async with self._changing:
            asked = self.asked(name)
            if not asked.adapter:
                raise _unknown(name, [f"{s.name}:{a}" for s in self for a in s.adapters])
            del asked.service.adapters[asked.adapter]
            assert self.runs is not None  # noqa: S101 - only then there is a way here
            await asyncio.to_thread(self.runs.forget, asked.service.engine, asked.adapter)

    async def stop(self) -> None:
        """Stop all engines at once."""
        if self.keeper is not None:
            await asyncio.to_thread(self.keeper.close)
        await asyncio.gather(*(asyncio.to_thread(service.stop) for service in self))


def card(service: Service) -> dict[str, Any]:
    """A model as /v1/models lists it, with what a client must know to ask."""
    engine = service.engine
    found = {**model_card(service.name, service.created), "context_length": engine.context}
    if isinstance(engine, PassEngine):
        made = TYPES.get(engine.policy.suffix, JSON)
        found["predicts"] = {**engine.policy.facts(), "makes": made}
    return found


def offered(engine: Answering) -> list[str]:
    """The paths of ``WHOLE`` at which an engine answers."""
    found = [EMBEDDINGS] if getattr(engine, "embed", None) is not None else []
    if not isinstance(engine, PassEngine):
        return found
    known, makes = engine.policy.facts(), TYPES.get(engine.policy.suffix, JSON)
    found.append(PREDICT)
    if makes == TYPES[".png"]:
        found.append(IMAGES)
    if makes == TYPES[".wav"] and SOUND not in known["inputs"]:
        found.append(SPEECH)
    if SOUND in known["inputs"] and makes == JSON and "labels" not in known:
        found.append(TRANSCRIPTIONS)
    return found


def refused(error: ModelwrightError) -> ApiError:
    """What whoever runs the server is told when a run or an adapter cannot be taken."""
    return ApiError(400, str(error), param="run", code="invalid_value")


def _unknown(name: str, there: list[str]) -> ApiError:
    shown = ", ".join(repr(one) for one in there[:8])
    return ApiError(
        404,
        f"model: there is no {name[:100]!r} here; this server has {shown}",
        type="not_found_error",
        param="model",
        code="model_not_found",
    )


def _conflict(param: str, why: str) -> ApiError:
    return ApiError(409, f"{param}: {why}", param=param, code="conflict")
