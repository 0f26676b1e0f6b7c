"""llama.cpp's own programs: its quantiser, and its server, which answers from a file.

They are looked for in the folder that MODELWRIGHT_LLAMA_CPP names (or its bin or build/bin) and
on PATH. The server listens on the loopback, for as long as an export is checked.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.errors import MachineError, ModelwrightError

PLACE = "MODELWRIGHT_LLAMA_CPP"
_START = 600.0  # seconds for the server to have read a file
_ANSWER = 600.0  # seconds for one answer
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy


def tool(name: str) -> Path | None:
    """The program of this name, or None where it is not installed."""
    folder = os.environ.get(PLACE)
    if folder:
        for place in ("", "bin", "build/bin"):
            found = Path(folder) / place / name
            if found.is_file() and os.access(found, os.X_OK):
                return found.resolve()
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None


def quantize(source: Path, target: Path, kind: str) -> None:
    """Have llama.cpp write a quantised file.

    Args:
        source: a file of float32.
        target: which is not there yet.
        kind: as llama.cpp calls it: "Q4_K_M".

    Raises:
        MachineError: its quantiser is not installed.
        ModelwrightError: it fails.
    """
    program = tool("llama-quantize")
    if program is None:
        raise MachineError(
            f"--quantize {kind}: needs llama.cpp's llama-quantize on PATH or in {PLACE}; install "
            "llama.cpp, or choose q8_0"
        )
    done = subprocess.run(  # noqa: S603 - a program that the user installed, no shell
        [program, source, target, kind, "1"], capture_output=True, text=True, check=False
    )
    if done.returncode or not target.is_file():
        lines = [x for x in (done.stdout + done.stderr).splitlines() if x.strip()]
        raise ModelwrightError(
            f"export: llama-quantize fails: {lines[-1].strip()[:150] if lines else 'no message'}"
        )


@dataclass(frozen=True)
class Step:
    """One token that the server wrote, and log-probabilities of the likeliest, by id.

    There are none where the text so far ends within a character.
    """

    token: int
    likely: dict[int, float]


class Server:
    """llama.cpp answering from one file, from ``with`` to its end."""

    def __init__(self, program: Path, model: Path, context: int, threads: int = 1) -> None:
        """Start it.

        Args:
            program: llama-server.
            model: the file.
            context: tokens that are read and written at most.
            threads: of its products.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._address = f"http://127.0.0.1:{port}"
        # Everything in float32 that can be: what is compared is the file, not a cache.
        wide = ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
        lean = ["--parallel", "1", "--threads", str(threads), "--gpu-layers", "0", "--no-warmup"]
        place = ["--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(context)]
        self._process = subprocess.Popen(  # noqa: S603 - a program that the user installed
            [program, "--model", model, *place, *wide, *lean, "--offline", "--no-webui", "--jinja"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> Server:
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def _wait(self) -> None:
        """Until it has read the file."""
        until = time.monotonic() + _START
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise ModelwrightError(
                    f"export: llama.cpp does not load the file: {self._last()}; nothing was "
                    "exported"
                )
            try:
                with _DIRECT.open(f"{self._address}/health", timeout=5):
                    return
            except OSError:  # not listening yet, or still reading (503)
                time.sleep(0.05)
        raise MachineError(f"export: llama-server did not load the file within {_START:.0f} s")

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def tokens(self, text: str, *, framed: bool = False, control: bool = False) -> list[int]:
        """Ids of a text.

        Args:
            text: any.
            framed: with what the tokenizer puts before a text.
            control: whether special tokens in it are control, not text.
        """
        asked = {"content": text, "add_special": framed, "parse_special": control}
        return [int(t) for t in self._ask("/tokenize", asked)["tokens"]]

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of a conversation as the file's template writes it, up to the answer.

        Args:
            messages: each with ``role`` and ``content``.
        """
        text = str(self._ask("/apply-template", {"messages": list(messages)})["prompt"])
        return self.tokens(text, framed=True, control=True)

    def greedy(
        self, prompt: Sequence[int], steps: int, likely: int, spell: Callable[[list[int]], bytes]
    ) -> list[Step]:
        """The likeliest continuation of a prompt.

        Args:
            prompt: ids.
            steps: tokens to write; fewer where an end token comes.
            likely: of how many tokens log-probabilities are wanted at every step.
            spell: the bytes of ids.
        """
        asked = {
            "prompt": list(prompt),
            "n_predict": steps,
            "n_probs": likely,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "return_tokens": True,
            "cache_prompt": False,
        }
        found = self._ask("/completion", asked)
        listed = iter(found.get("completion_probabilities", ()))
        written, text = [], b""
        for token in map(int, found["tokens"]):
            text += spell([token])
            step = None if _unfinished(text) else next(listed, None)
            if step is not None and int(step["id"]) != token:
                raise ModelwrightError(
                    f"export: llama-server lists token {step['id']} where it wrote {token}; this "
                    "version answers otherwise than is known here"
                )
            tops = step["top_logprobs"] if step else ()
            written.append(Step(token, {int(t["id"]): float(t["logprob"]) for t in tops}))
        return written

    def _ask(self, path: str, asked: dict[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own address
            self._address + path,
            data=json.dumps(asked).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with _DIRECT.open(request, timeout=_ANSWER) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            line = " ".join(error.read().decode(errors="replace").split())[:150]
            raise ModelwrightError(f"export: llama-server refuses {path}: {line}") from error
        except OSError as error:
            raise ModelwrightError(
                f"export: llama-server gives no answer: {self._last()}; nothing was exported"
            ) from error

    def _last(self) -> str:
        """What it complained about last."""
        self._log.seek(0)
        lines = [x.strip() for x in self._log.read().decode(errors="replace").splitlines()]
        errors = [x for x in lines if "error" in x.lower()] or [x for x in lines if x]
        return errors[0][:200] if errors else "it says nothing"


def _unfinished(text: bytes) -> bool:
    """Whether the server takes a text for one that ends within a character of UTF-8."""
    needed = ((0xE0, 0xC0, 2), (0xF0, 0xE0, 3), (0xF8, 0xF0, 4))
    return any(
        back < size and byte & mask == lead
        for back, byte in enumerate(reversed(text[-3:]), start=1)
        for mask, lead, size in needed
    )
