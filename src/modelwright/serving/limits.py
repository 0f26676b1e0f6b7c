"""Every limit of the server in one place, and the rules of defence with where each is kept.

| rule | what | where |
|---|---|---|
| R1 | models are safetensors and JSON, opened by nothing that runs code | ``checkpoint``, ``hub`` |
| R2 | no switch lets a model's files run or name code | ``models.model``, ``extensions`` |
| R3 | a chat template runs in a sandbox, in a process of its own | ``data.chat_template`` |
| R4 | processes speak in frames over inherited pipes; HTTP is the only listener | ``data.child`` |
| R5 | 127.0.0.1 unless a key is set | ``hosting.host_app`` |
| R6 | every path is closed unless opened; Host and Origin on all methods | ``guard.Guard`` |
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

from dataclasses import dataclass, fields

from modelwright.errors import ModelwrightError

# Of a request, whatever its key: a field beyond them is refused by name.
BODY_BYTES = 2 << 20  # JSON
MEDIA_BYTES = 20 << 20  # a body with pictures or sound
HEADER_BYTES = 16 << 10  # the request line and all headers
TEXT = 1 << 20  # characters of one text
MESSAGES = 256
TOOLS = 64  # functions of one request, calls of one message
PROMPTS = 16
ROWS = 64  # questions of one prediction
EMBEDDINGS_WAITING = 16  # requests for vectors that wait
CHOICES = 4
STOPS = 4
STOP_TEXT = 256
STOP_TOKENS = 64
TOP_LOGPROBS = 20
BIASES = 1024
PIXELS = 50_000_000  # of one picture, by its header
SOUND_SECONDS = 600.0  # of one recording, by its header


@dataclass(frozen=True)
class Limits:
    """What the one who serves may set; times in seconds, 0 of a rate or deadline is none.

    Attributes:
        connections: open at once; more are closed at once.
        header_seconds: from the connection, or the first byte, to the end of the headers.
        body_seconds: to send a whole body.
        idle_seconds: a connection without a request.
        write_seconds: a client that takes nothing of what is written for it.
        queue_seconds: to the first token, or the begin of an answer that comes whole.
        total_seconds: for a whole answer.
        ping_seconds: between the comments that keep a silent stream open.
        drain_seconds: for answers under way when the server is told to stop.
        requests_a_minute: of one key, where its line of the file of keys says nothing else.
        tokens_a_minute: prompt and answer, the same.
        silent_seconds: an engine's process without a word is no longer well.
        hung_seconds: an engine's process without a word is killed, and started again.
        models: served at once.
        adapters: of one model.
        restarts: how often an engine that has died is started again within ``restart_seconds``.
    """

    connections: int = 10_000
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 5.0
    write_seconds: float = 60.0
    queue_seconds: float = 300.0
    total_seconds: float = 3600.0
    ping_seconds: float = 15.0
    drain_seconds: float = 30.0
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
            if getattr(self, field.name) < 0:
                raise ModelwrightError(f"limits.{field.name}: must not be negative")
