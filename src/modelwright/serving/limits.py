"""Every limit of the server in one place, and the rules of defence with where each is kept.

| rule | what | where |
|---|---|---|
| R1 | models are safetensors and JSON, opened by nothing that runs code | ``checkpoint``, ``hub`` |
| R2 | no switch lets a model's files run or name code | ``models.model``, ``extensions`` |
| R3 | a chat template runs in a sandbox, in a process of its own | ``data.chat_template`` |
| R4 | processes speak in frames over inherited pipes; HTTP is the only listener | ``data.child`` |
| R5 | 127.0.0.1 unless a key is set | ``hosting.host_app`` |
| R6 | every path is closed unless opened; Host and Origin on all methods | ``guard``, ``origins`` |
| R7 | nothing is fetched: a URL in a request is refused | ``messages``, ``media`` |
| R8 | a client names no file; a model is one of the names that are served | ``server`` |
| R9 | no archive is unpacked; compressed bodies are refused | ``hosting.body_of`` |
| R10 | sizes are read from headers first; strangers' files are decoded in a child | ``media`` |
| R11 | fixed texts and a request id for what was not foreseen | ``guard.internal_error`` |
| R12 | every field, queue, buffer and timer is bounded | this table |
| R13 | nothing is written to disk by a request, unless it is asked for: then masked | ``kept`` |
| R14 | no shell | ``data.child`` |
| R15 | no scanner is a boundary | R1 is |
| R16 | what is served is a run with its hashes | ``checkpoint`` |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from modelwright.errors import ModelwrightError
from modelwright.options import checked

# Of a request, whatever its key: a field beyond them is refused by name.
TEXT = 1 << 20  # characters of one text
MESSAGES = 256
TOOLS = 64  # functions of one request, calls of one message
PROMPTS = 16
ROWS = 64  # questions of one prediction
CHOICES = 4
STOPS = 4
STOP_TEXT = 256
STOP_TOKENS = 64
TOP_LOGPROBS = 20
BIASES = 1024
PIXELS = 50_000_000  # of one picture, by its header
SOUND_SECONDS = 600.0  # of one recording, by its header

WEEK = 7 * 24 * 3600.0  # the longest time of a timer, in seconds
# What may be 0: no such rate, deadline or sign of life, or none of these at all.
MAY_BE_0 = frozenset(
    {
        "queue_seconds",
        "total_seconds",
        "ping_seconds",
        "drain_seconds",
        "requests_a_minute",
        "tokens_a_minute",
        "adapters",
        "restarts",
    }
)


@dataclass(frozen=True)
class Limits:
    """What the one who serves may set; times in seconds, 0 of a rate or deadline is none.

    Attributes:
        body_bytes: of a body in JSON.
        media_bytes: of a body that may hold pictures or sound.
        header_bytes: of the request line and all headers.
        connections: open at once; more are closed at once.
        header_seconds: from the connection, or the first byte, to the end of the headers.
        body_seconds: to send a whole body.
        idle_seconds: a connection without a request.
        write_seconds: a client that takes nothing of what is written for it.
        queue_seconds: to the first token, or the begin of an answer that comes whole.
        total_seconds: for a whole answer.
        ping_seconds: between the comments that keep a silent stream open.
        drain_seconds: for answers under way when the server is told to stop.
        vectors_waiting: requests for vectors that wait.
        requests_a_minute: of one key, where its line of the file of keys says nothing else.
        tokens_a_minute: prompt and answer, the same.
        silent_seconds: an engine's process without a word is no longer well.
        hung_seconds: an engine's process without a word is killed, and started again.
        models: served at once.
        adapters: of one model.
        restarts: how often an engine that has died is started again within ``restart_seconds``.
        restart_seconds: in which so many restarts are counted.
    """

    body_bytes: int = 2 << 20
    media_bytes: int = 20 << 20
    header_bytes: int = 16 << 10
    connections: int = 10_000
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 5.0
    write_seconds: float = 60.0
    queue_seconds: float = 300.0
    total_seconds: float = 3600.0
    ping_seconds: float = 15.0
    drain_seconds: float = 30.0
    vectors_waiting: int = 16
    requests_a_minute: int = 0
    tokens_a_minute: int = 0
    silent_seconds: float = 5.0
    hung_seconds: float = 10.0
    models: int = 8
    adapters: int = 32
    restarts: int = 3
    restart_seconds: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0:
                raise ModelwrightError(f"limits.{field.name}: must not be negative")
            if not value and field.name not in MAY_BE_0:
                raise ModelwrightError(f"limits.{field.name}: 0 would refuse everything; give more")
            if field.name.endswith("_seconds") and value > WEEK:
                why = f"must be at most {WEEK:.0f} seconds, a week"
                raise ModelwrightError(f"limits.{field.name}: {why}")


def limits_of(file: Path | None, given: Iterable[str]) -> Limits:
    """The limits in a YAML file, and after them those given as ``NAME=VALUE``.

    Raises:
        ModelwrightError: the file cannot be read, a name is unknown (the nearest is told) or given
            twice, or a value is none that it can have.
    """
    found = {} if file is None else checked(f"{file}", Limits, _written(file))
    said: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise ModelwrightError(f"limit: {one!r} is no NAME=VALUE, such as connections=500")
        if name in said:
            raise ModelwrightError(f"limits.{name}: given twice; give it once")
        said[name] = value
    return Limits(**{**found, **checked("limits", Limits, said, joint=".")})


def _written(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelwrightError(f"{file}: no such file; --limits names a YAML file") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ModelwrightError(f"{file}: {' '.join(str(error).split())}; correct it") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ModelwrightError(f"{file}: limits are a mapping such as `connections: 500`")
    return values
