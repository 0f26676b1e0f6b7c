"""Stored samples as requests, and the answers that a started engine gives to them."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from modelwright.errors import MachineError, ModelwrightError
from modelwright.pipeline.answering import answerer_of
from modelwright.pipeline.export import subject_of
from modelwright.pipeline.fitted import Fitted, load_fitted, newest_checkpoint
from modelwright.runs import Run
from modelwright.serving.engine import Engine, Request
from modelwright.serving.sampling import SamplingParams
from modelwright.types import Image, ImageFile, Text, Turn, text_turn

TOKENS = 32  # of a greedy answer
START_SECONDS = 600.0
ANSWER_SECONDS = 300.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.5
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy

Sample = dict[str, Any]  # {"path", "body", "answer"}


def samples_of(run: Run, stage: str | None, served: Path | None = None) -> list[Sample]:
    """Requests made of the first held-out examples, with the run's own answers.

    Args:
        run: with a trained stage.
        stage: which; None: the last that is trained.
        served: the checkpoint that answers, made of the run's own; None: that itself.

    Raises:
        ModelwrightError: nothing is trained, or the prepared data are gone.
    """
    newest = newest_checkpoint(run, stage)
    fitted = load_fitted(newest)
    examples = subject_of(run, fitted).examples
    given = [example.given for example in examples]
    if fitted.task.stream or not all(given):
        given = [(text_turn("document", example.turns[0].text),) for example in examples]
    if served not in (None, newest):
        fitted = load_fitted(served)
    engine = answerer_of(fitted).server()
    if isinstance(engine, Engine):
        return [_written(engine, fitted, turns) for turns in given]
    policy = answerer_of(fitted)
    found = []
    for turns in given:
        asked = _asked(turns)
        if asked is not None and not policy.suffix:
            (answer,) = policy.detailed([turns])
            body = {"inputs": [asked]}
            found.append({"path": "/predict", "body": body, "answer": answer.turn.said})
    return found


def _written(engine: Engine, fitted: Fitted, turns: Sequence[Turn]) -> Sample:
    """A text that is gone on with, or a conversation that is answered, greedily."""
    codec = cast(Any, fitted.codec)
    document = turns[0].role == "document" or not getattr(codec, "template", "")
    if document:
        text = "".join(turn.text for turn in turns)
        while len(engine.prompt([text_turn("document", text)])) > engine.context // 2:
            text = text[: len(text) // 2]
        turns = [text_turn("document", text)]
        path, body = "/v1/completions", {"prompt": text}
    else:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        path, body = "/v1/chat/completions", {"messages": cast(Any, messages)}
    prompt = engine.prompt(turns)
    count = max(1, min(TOKENS, engine.room(len(prompt)) - 1))
    (done,) = engine.generate([Request(prompt, SamplingParams(max_tokens=count, temperature=0))])
    return {
        "path": path,
        "body": {**body, "max_tokens": count, "temperature": 0},
        "answer": done.text,
    }


def _asked(turns: Sequence[Turn]) -> Any:
    """A question as ``/predict`` takes it; None where it has no form there."""
    parts = [part for turn in turns for part in turn.parts]
    if all(isinstance(part, Text) for part in parts):
        return {"text": "".join(turn.text for turn in turns)}
    (part, *more) = parts
    if more:
        return None
    if isinstance(part, ImageFile):
        return {"image": base64.b64encode(part.content).decode()}
    if isinstance(part, Image) and not part.prepared:
        return {"numbers": part.pixels.tolist()}
    return None


# The engine --------------------------------------------------------------------------------------


def replay(folder: Path, launch: str, samples: Sequence[Sample], model: str) -> str:
    """Start the engine as ``launch`` does, ask it every sample, and end it.

    Returns:
        What was found, in a line.

    Raises:
        ModelwrightError: an answer differs from the run's own.
        MachineError: it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = torch.get_num_threads()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 - the file that was written here
            ["/bin/sh", str(folder / launch)],
            # llama.cpp's threads wait by turning: no more than this process may have.
            env={**os.environ, "PORT": str(port), "LLAMA_ARG_THREADS": str(threads)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            began = time.monotonic()
            _wait(process, url, log)
            seconds = time.monotonic() - began
            for number, sample in enumerate(samples, 1):
                _compare(url, number, sample, model)
        finally:
            _end(process)
    kinds = "greedy answers" if any("max_tokens" in s["body"] for s in samples) else "answers"
    return f"started in {seconds:.1f} s: {len(samples)} of {len(samples)} {kinds} are the run's own"


def _wait(process: subprocess.Popen[bytes], url: str, log: Any) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            log.seek(0)
            lines = [x for x in log.read().decode("utf-8", "replace").splitlines() if x.strip()]
            last = lines[-1].strip()[:200] if lines else "no message"
            raise MachineError(f"deploy: the engine ended with {process.returncode}: {last}")
        try:
            with _DIRECT.open(f"{url}/health", timeout=5):
                return
        except OSError:  # not listening yet, or loading
            time.sleep(LOOK_SECONDS)
    raise MachineError(f"deploy: the engine was not ready within {START_SECONDS:.0f} seconds")


def _compare(url: str, number: int, sample: Sample, model: str) -> None:
    body = json.dumps({"model": model, **sample["body"]}).encode()
    request = urllib.request.Request(  # noqa: S310 - the loopback
        url + sample["path"], body, {"Content-Type": "application/json"}
    )
    try:
        with _DIRECT.open(request, timeout=ANSWER_SECONDS) as response:
            found = _answer(json.load(response))
    except urllib.error.HTTPError as error:
        what = error.read(300).decode("utf-8", "replace")
        raise ModelwrightError(
            f"deploy: sample {number} is refused with {error.code}: {what}"
        ) from error
    except (OSError, ValueError, LookupError) as error:
        raise ModelwrightError(f"deploy: sample {number} is not answered: {error}") from error
    meant = sample["answer"]
    # Where an answer ends within a character, an engine may tell half of it.
    if found.rstrip("\ufffd") != meant.rstrip("\ufffd"):
        raise ModelwrightError(
            f"deploy: sample {number} is answered with {found[:60]!r}, {meant[:60]!r} is meant; "
            "nothing was deployed"
        )


def _answer(told: dict[str, Any]) -> str:
    if "data" in told:
        return str(told["data"][0]["said"])
    (choice,) = told["choices"]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
