"""Texts full of abuse, by lists of words in English and Chinese.

A list finds words, not meaning: a novel, a dictionary or a report about abuse uses them too. So
it is a share of the words that counts, and the list of this module is short and strong. It is
kept as hashes, so that reading this file hurts nobody.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from modelwright.data.grams import GramIndex, folded_words
from modelwright.data.operations.operation import Step, WorkRow
from modelwright.errors import ModelwrightError
from modelwright.kernels.text_stats import Hashes


@dataclass(frozen=True)
class Operation:
    """Settings of the step ``toxicity``.

    A row leaves when at least ``least`` words and more than ``share`` of all words are listed.
    English words match whole, Chinese ones wherever their characters stand; case does not count.

    Attributes:
        words: a file with a word or phrase a line, UTF-8; lines that begin with # are notes.
        own: use the list of this module too: 37 English words, 23 Chinese ones.
        share: greatest share of listed words, 0..1; a Chinese character is a word.
        least: fewer listed words than this never make a row leave.
    """

    words: str = ""
    own: bool = True
    share: float = 0.005
    least: int = 2

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.least < 1:
            raise ModelwrightError("step toxicity: share must be in 0..1, least at least 1")
        if not self.words and not self.own:
            raise ModelwrightError("step toxicity: nothing to look for: give words, or own: true")

    def assets(self) -> dict[str, str]:
        """The hash of the file of words, and the version of Unicode's tables."""
        found = {"unicode": unicodedata.unidata_version}
        if self.words:
            found["words"] = hashlib.blake2b(self._content(), digest_size=16).hexdigest()
        return found

    def begin(self) -> Step:
        """Returns the step.

        Raises:
            ModelwrightError: the file of words cannot be read.
        """
        phrases = [*self._phrases(), *(_OWN if self.own else ())]
        index = GramIndex.of(((h, len(h), 0) for h in phrases), 1)

        def step(row: WorkRow) -> str | None:
            text = row.get("text")
            if not isinstance(text, str):
                return None
            hashes = folded_words(text)[0]
            hits = int(index.find(hashes).covered(len(hashes)).sum())
            share = hits / len(hashes) if len(hashes) else 0.0
            attributes = row.setdefault("attributes", {})
            attributes["toxicity.words"], attributes["toxicity.share"] = hits, round(share, 5)
            return "toxic words" if hits >= self.least and share > self.share else None

        return step

    def _content(self) -> bytes:
        try:
            return Path(self.words).read_bytes()
        except OSError as error:
            raise ModelwrightError(
                f"step toxicity: words: {self.words}: {error.strerror or error}"
            ) from None

    def _phrases(self) -> Iterator[Hashes]:
        """The hashes of the words of every phrase of the file."""
        if not self.words:
            return
        try:
            lines = self._content().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ModelwrightError(f"step toxicity: words: {self.words}: is not UTF-8") from None
        for line in lines:
            hashes = folded_words(line.strip())[0]
            if len(hashes) and not line.startswith("#"):
                yield hashes


_WORDS = (  # hashes of the words of each phrase
    (0x0654229a1aea89a8, 0x1310abb3f8a6a200, 0x99743b066a055adb), (0x075cc4c4385e56bd,),
    (0x093519dbf675d105, 0x14afb33bf65bdd3f), (0x0dae7eac9eac65b2,), (0x1006d4405b2d97f9,),
    (0x1014e2714265ae9b,), (0x103ec3cf7987c0e4, 0xcaf683d028836983),
    (0x1310abb3f8a6a200, 0x514665e6f0a0ed2e, 0x744c7b594001ed81, 0x99743b066a055adb),
    (0x16e676188d8bfd9c,), (0x20857f2dae9f9b09, 0x0654229a1aea89a8), (0x20afff38bad4bc3c,),
    (0x26d16dff5c70e256, 0xe5c43ef7791b8dd7, 0x285e86cf04109bcc), (0x28e6fb010ce4de6c,),
    (0x2dc863f37b326318,), (0x2fce444e78955866,), (0x3a8f0512ea5c9f58,),
    (0x3c60ff25bac67648, 0x0654229a1aea89a8, 0x1310abb3f8a6a200),
    (0x43df4374868821ab, 0x1310abb3f8a6a200, 0xbbb3c310bc9cd8f1), (0x47ec86e69a2310b3,),
    (0x4bd7aca2cc1f3a4f,), (0x4e70fca29c565500,), (0x5710a8045c116ee2,), (0x58cd1d89ccdda365,),
    (0x594ab416b4d582f3, 0xd07753e4c85de4b2, 0xf43b516d668317e0),
    (0x5a2b0e303af47de0, 0x4944e3607e63fbf0),
    (0x5ba5051efde079cd, 0x0654229a1aea89a8, 0x1310abb3f8a6a200), (0x70d63e4d13e6d4ca,),
    (0x72629d0dba2912aa, 0x2133294ec86ef132, 0xb2fe37a218c10e24),
    (0x74138cffdf44a65c, 0xab2c49eaea426643), (0x7526b74b464d037f,), (0x75b021fcddb86c2c,),
    (0x8cbc861193afe9e5, 0x78b16dbd745544ac), (0x8cbc861193afe9e5, 0x99743b066a055adb),
    (0x924dcae3399b1b69,), (0x9399c424945b8461,),
    (0x97e4c0884749c43f, 0x3c60ff25bac67648, 0xbbb3c310bc9cd8f1),
    (0x97e4c0884749c43f, 0x5fa4010bb5590435, 0x495cb5c7fedb1183), (0x99db7ad162af50bc,),
    (0x9d1d6b2adcdffe2a,), (0x9d44e2b7da7fb164,), (0x9ee973660c7e3ef8,), (0x9f66a7d865135fce,),
    (0xa4b8d4c1b52fc2e0, 0xf43b516d668317e0), (0xaacafd881b4eb295,), (0xae2d2ec4d7b7ed1d,),
    (0xb433e2f73caeaa35,), (0xbef88091b174786a,), (0xc0e5dc4d672378bd,), (0xc15997f64ca816b4,),
    (0xc270ccd20bb96d07, 0xe2f2af4dd5843d9e, 0x78cc9e2f599b9602), (0xc83a36ed1c8d5451,),
    (0xcc906fdd48f51681, 0xa49f565642e82e68), (0xd7fdda18cd42515b,),
    (0xdb315bf83021acee, 0xbd0f5b5cbc51e920, 0x2d7f2c6d56ee629f), (0xde0fc0786bcb90a5,),
    (0xdfd57ed9534c4ce1, 0x612f6ba98c26ea84), (0xe7053b900fdefe47,), (0xe89025d40a4f1a44,),
    (0xec110635fd331c69, 0xb9e778df91286666), (0xee6a3cce9637ec22,),
)  # fmt: skip
_OWN = tuple(np.array(word, np.uint64) for word in _WORDS)
