"""The program that decodes strangers' pictures and recordings; ``child.py`` speaks to it.

Arguments: seconds of processor time a request, megabytes of memory, most pixels of a picture, most
seconds of a recording. A request is "i" (picture) or "s" (recording) and the bytes of a file. An
answer is "+", a JSON list, a zero byte and raw numbers: [height, width, channels] (0: grey) before
pixels uint8, [samples a second] before samples float32 of one channel; or "-" and what is wrong.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data import pictures, sounds
from modelwright.data.page_child import frame, send
from modelwright.errors import ModelwrightError


def answer(request: bytes, pixels: int, seconds: float) -> bytes:
    """The answer to a request."""
    try:
        if request[:1] == b"i":
            found, _ = pictures.decode(request[1:], pixels=pixels, upright=True)
            shape = [*found.shape, 0][:3]
            return _plus(shape, np.ascontiguousarray(found))
        samples, rate = sounds.decode(request[1:], seconds=seconds)
        return _plus([rate], sounds.mono(samples).astype(np.float32))
    except MemoryError:
        return b"-takes more memory than the limit"
    except ModelwrightError as error:
        return f"-{error}".encode()


def _plus(head: list[int], numbers: NDArray[Any]) -> bytes:
    return b"+" + json.dumps(head).encode() + b"\0" + numbers.tobytes()


def _load() -> None:
    """Import every decoder that there is now: later no file may be opened."""
    picture = np.zeros((2, 2, 3), dtype=np.uint8)
    pictures.decode(pictures.encode_png(picture))
    pictures.pillow().init()
    try:
        import soundfile  # noqa: PLC0415

        del soundfile
    except ImportError:  # WAV needs none
        pass


def main(seconds: float, megabytes: int, pixels: int, most: float) -> None:
    """Answer until the input ends."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is beside us decides when we end
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends us
    try:
        _load()
    except (ImportError, ModelwrightError) as error:
        send(stdout, str(error).encode())
        return
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # neither a file nor a socket is opened
    send(stdout, b"")
    while (request := frame(stdin)) is not None:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reply = answer(request, pixels, most)
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(stdout, reply)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
