"""Texts read aloud by a speech synthesiser that is installed: recordings that teach spelling.

Few recordings say few words, and how others are spelled a recogniser cannot know. Sentences of
books in many voices of a synthesiser are no human speech, yet letters follow sounds in them as they
do in speech; mixed into the train part they are augmentation (Rosenberg et al. 2019,
arXiv:1909.11699). They belong to no part that is measured.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from modelwright.data import formats, talk_sets
from modelwright.errors import MachineError, ModelwrightError
from modelwright.runtime import cores
from modelwright.types import Row

PROGRAM = "espeak-ng"
VOICES = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")  # its variants
WORDS_A_MINUTE, PITCH = (120, 190), (20, 80)  # lowest and highest; pitch of 0 to 99
SHORTEST, LONGEST = 20, 90  # characters of a sentence
SECONDS = 30.0  # for one sentence
SEED = 20_301
AT_ONCE = 64  # sentences read ahead
_ENDED = re.compile(r"(?<=[.!?])[\"'”’)]*\s+|\n\s*\n")
_SPOKEN = re.compile(r"[A-Za-z ,;:'.!?\"-]+")
_PLAIN = str.maketrans("‘’“”–—\n", "''\"\"-- ")


def read_aloud(path: Path) -> Iterator[Row]:
    """``audio``, a WAV file, ``text`` and ``speaker``, of the sentences of English texts in turn.

    Voice, speed and pitch are drawn for each by its number alone.

    Args:
        path: novels in a tar, as ``english_novels`` has them, or a text file.

    Raises:
        MachineError: there is no espeak-ng.
        ModelwrightError: it fails, or there is no sentence to read.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise MachineError(
            f"data set 'read-aloud' needs the program {PROGRAM}, which is not installed: install it"
            f" (apt-get install {PROGRAM}), or leave the data set out"
        )
    numbered = enumerate(sentences(path))
    found = False
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        while some := list(islice(numbered, AT_ONCE)):
            found = True
            yield from pool.map(partial(_read, program), some)
    if not found:
        raise ModelwrightError(
            f"{path}: no English sentence of {SHORTEST} to {LONGEST} characters to read; give texts"
        )


def sentences(path: Path) -> Iterator[str]:
    """The sentences of texts that are short enough and nothing but words."""
    novels = path.is_dir() or ".tar" in path.suffixes
    rows = talk_sets.english_novels(path) if novels else formats.text_pieces(path, path.name)
    for row in rows:
        for sentence in _ENDED.split(row["text"]):
            plain = " ".join(sentence.translate(_PLAIN).replace('"', " ").split())
            if SHORTEST <= len(plain) <= LONGEST and _SPOKEN.fullmatch(plain):
                yield plain


def _read(program: str, numbered: tuple[int, str]) -> Row:
    number, text = numbered
    rng = np.random.default_rng([SEED, number])
    voice = VOICES[int(rng.integers(len(VOICES)))]
    speed, pitch = (str(rng.integers(low, high + 1)) for low, high in (WORDS_A_MINUTE, PITCH))
    command = [program, "-v", f"en-us+{voice}", "-s", speed, "-p", pitch, "--stdin", "--stdout"]
    try:
        done = subprocess.run(  # noqa: S603 - a program that the user installed, no shell
            command, input=text.encode(), capture_output=True, timeout=SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelwrightError(
            f"{program} does not read {text!r}: {error}; try it alone"
        ) from error
    return {"id": str(number), "audio": done.stdout, "text": text, "speaker": voice}
