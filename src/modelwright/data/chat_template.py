"""Chat templates of published models, rendered where they can do no harm.

A template is a program from somebody else. It runs in jinja2's immutable sandbox, inside a child
process that can open no file and start no process, with limits on memory, time and output; a
child that exceeds them is ended, and the next rendering begins a new one.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.errors import ModelwrightError

SECONDS = 5.0  # a rendering may take
LARGEST = 4 << 20  # characters it may give
MEMORY = 512 << 20  # bytes its process may hold
START = 30.0  # seconds more that a new process may need to begin
TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class ChatTemplate:
    """Renders messages by one template; use it in a ``with`` block, or ``close`` it.

    Threads that share it wait for each other: its process renders one conversation at a time.
    """

    def __init__(
        self,
        template: str,
        tokens: Mapping[str, str] | None = None,
        *,
        where: str = "chat template",
        seconds: float = SECONDS,
        largest: int = LARGEST,
        memory: int = MEMORY,
    ) -> None:
        """A template.

        Args:
            template: in jinja2's language.
            tokens: what it may name beside the messages, such as ``eos_token``.
            where: begins messages of errors.
            seconds: the longest a rendering may take.
            largest: the most characters it may give.
            memory: the most bytes its process may hold.
        """
        self.where, self.seconds = where, seconds
        self._setup = {
            "template": template,
            "tokens": dict(tokens or {}),
            "largest": largest,
            "memory": memory,
        }
        self._most = (
            12 * largest + 1000
        )  # bytes of an answer: a character is "\\ud83d\\ude42" at most
        self._child: subprocess.Popen[bytes] | None = None
        self._one = threading.Lock()
        self._broken = False  # in the middle of an exchange: its process cannot be used again

    @staticmethod
    def of_file(path: Path, **limits: Any) -> ChatTemplate:
        """The template in a ``tokenizer_config.json``, or in ``chat_template.jinja`` beside it.

        Raises:
            ModelwrightError: there is none.
        """
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            found = config.get("chat_template")
            beside = path.with_name("chat_template.jinja")
            if found is None and beside.is_file():
                found = beside.read_text(encoding="utf-8")
        except OSError as error:
            raise ModelwrightError(
                f"{path}: cannot be read ({error.strerror}); name a tokenizer_config.json"
            ) from error
        except (ValueError, AttributeError) as error:
            raise ModelwrightError(f"{path}: no tokenizer_config.json ({error})") from error
        if isinstance(found, list):  # several by name
            found = {t.get("name"): t.get("template") for t in found}.get("default")
        if not isinstance(found, str):
            raise ModelwrightError(f"{path}: holds no chat_template; name a model's that has one")
        tokens: dict[str, str] = {}
        for name in TOKENS:
            token = config.get(name)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                tokens[name] = token
        return ChatTemplate(found, tokens, where=str(path), **limits)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        **given: Any,
    ) -> str:
        """The text of some messages, each with ``role`` and ``content``.

        Args:
            messages: JSON values.
            add_generation_prompt: whether the assistant's answer shall follow.
            given: what else the template may ask for, such as ``tools``; JSON values.

        Raises:
            ModelwrightError: the template refuses the messages, is wrong, reaches for what it must
                not, or exceeds its limits.
        """
        asked = {**given, "messages": messages, "add_generation_prompt": add_generation_prompt}
        with self._one:
            answer = self._ask(json.dumps(asked).encode() + b"\n")
        if "error" in answer:
            raise ModelwrightError(f"{self.where}: {answer['error']}; correct or replace it")
        return answer["text"]

    def _ask(self, line: bytes) -> dict[str, str]:
        try:
            if self._child is None:
                self._child = subprocess.Popen(  # noqa: S603 - this package's own script
                    [sys.executable, "-P", str(Path(__file__).with_name("chat_child.py"))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                self._exchange(self._child, json.dumps(self._setup).encode() + b"\n", START)
            return self._exchange(self._child, line, self.seconds)
        except (TimeoutError, ValueError) as error:
            raise ModelwrightError(f"{self.where}: {error}; correct or replace it") from None
        finally:
            if self._broken:
                self.close()

    def _exchange(
        self, child: subprocess.Popen[bytes], line: bytes, seconds: float
    ) -> dict[str, str]:
        """Send a line and read the answer's, both at once: neither may wait for the other."""
        self._broken, until = True, time.monotonic() + seconds
        if child.stdin is None or child.stdout is None:
            raise ValueError("has no pipes")
        sender = threading.Thread(target=_send, args=(child.stdin, line), daemon=True)
        sender.start()
        found, poll = bytearray(), select.poll()
        poll.register(child.stdout, select.POLLIN)
        while not found.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                raise TimeoutError(f"takes longer than {seconds:g} seconds")
            block = os.read(child.stdout.fileno(), 1 << 16)
            if not block:
                raise ValueError("used too much memory or ended its process")
            found += block
            if len(found) > self._most:
                raise ValueError("gives too much text")
        sender.join()
        answer: dict[str, str] = json.loads(found)
        self._broken = False
        return answer

    def close(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            self._child.kill()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue
            self._child.wait()
            self._child = None

    def __enter__(self) -> ChatTemplate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _send(pipe: Any, line: bytes) -> None:
    try:
        pipe.write(line)
        pipe.flush()
    except (OSError, ValueError):
        return  # the reader finds the end of the process
