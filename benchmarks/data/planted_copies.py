"""Real texts replicated to any size, with copies planted in them and the truth beside.

Every text of the first round is real: reviews, passages of novels, poems, web pages. In later
rounds every fourth word is another word of the corpus, so that no word 5-gram is left and the
texts are new ones of the same kind. Of each round some texts have planted copies, with 1, 5, 10
or 20 % of the words replaced. Texts of the first round that share n-grams with an earlier one are
left out, so that the planted copies are all there are.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelwright.errors import MachineError

DATA = Path(
    os.environ.get("MODELWRIGHT_DATA")
    or Path(__file__).resolve().parents[2].parent / "shared" / "data"
)
RATES = (0.01, 0.05, 0.1, 0.2)
PLANTED = 0.1  # share of the texts that have a copy
NEAR = 0.6
SHARD = 32 << 20  # bytes of a file
PASSAGE = 4000  # characters of a novel that make a text
_WORD = re.compile("[\u4e00-\u9fff]|[^\\W\u4e00-\u9fff]+")


@dataclass(frozen=True)
class Planted:
    """A planted copy: ids, share of the words that were meant to change, true similarity."""

    original: str
    copy: str
    rate: float
    jaccard: float
    chinese: bool


def grams(text: str) -> set[tuple[str, ...]]:
    """The word 5-grams of a text: the truth, by plain strings."""
    words = _WORD.findall(text.lower())
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of two texts' word 5-grams."""
    one, two = grams(a), grams(b)
    return len(one & two) / len(one | two)


def real_texts() -> Iterator[tuple[str, str]]:
    """(kind, text) of the real texts."""
    if not (DATA / "imdb").is_dir():
        raise MachineError(f"no real texts in {DATA}: name their folder in MODELWRIGHT_DATA")
    with lzma.open(DATA / "imdb/train.jsonl.xz", "rt", encoding="utf-8") as file:
        for line in file:
            yield "review", json.loads(line)["text"]
    with tarfile.open(DATA / "english_novels/novels.tar.xz") as archive:
        for member in archive:
            stored = archive.extractfile(member) if member.isfile() else None
            if stored is not None:
                yield from _passages(stored.read().decode("utf-8", "replace"))
    with tarfile.open(DATA / "chinese_poetry/poetry.tar.xz") as archive:
        for member in archive:
            stored = archive.extractfile(member) if member.name.endswith(".json") else None
            poems = json.loads(stored.read()) if stored is not None else []
            for poem in poems if isinstance(poems, list) else []:
                lines = poem.get("paragraphs") if isinstance(poem, dict) else None
                if lines and len(text := "\n".join(lines)) > 40:
                    yield "poem", text
    with gzip.open(DATA / "web_text_demo/c4_demo.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield "web", json.loads(line)["text"]


def _passages(text: str) -> Iterator[tuple[str, str]]:
    """A novel in passages of whole paragraphs."""
    held: list[str] = []
    for paragraph in text.split("\n\n"):
        held.append(paragraph)
        if sum(map(len, held)) >= PASSAGE:
            yield "novel", "\n\n".join(held)
            held = []


def write(folder: Path, size: int, seed: int = 0) -> tuple[int, list[Planted]]:
    """Write ``size`` bytes of texts as JSON Lines into ``folder``; its bytes and the truth."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    base = _without_copies(size)
    words = {True: _vocabulary(base, chinese=True), False: _vocabulary(base, chinese=False)}
    truth: list[Planted] = []
    written, texts, turn = 0, [], 0

    def flush() -> None:
        nonlocal texts, written
        rng.shuffle(texts)  # a copy may stand before its original
        path = folder / f"part-{written // SHARD:05d}-{written % SHARD:08x}.jsonl"
        lines = [json.dumps({"id": i, "text": t}, ensure_ascii=False) + "\n" for i, t in texts]
        path.write_text("".join(lines), encoding="utf-8")
        written += path.stat().st_size
        texts = []

    held = 0
    while written + held < size:
        for number, (kind, real) in enumerate(base):
            chinese = kind == "poem"
            text = real if turn == 0 else _replaced(real, 0.25, rng, words[chinese], every=True)
            name = f"{kind}-{turn}-{number}"
            texts.append((name, text))
            held += len(text.encode())
            if rng.random() < PLANTED:
                rate = rng.choice(RATES)
                copy = _replaced(text, rate, rng, words[chinese], every=False)
                truth.append(Planted(name, f"{name}c", rate, similarity(text, copy), chinese))
                texts.append((f"{name}c", copy))
                held += len(copy.encode())
            if held >= SHARD or written + held >= size:
                flush()
                held = 0
                if written >= size:
                    break
        turn += 1
    return written, truth


def _without_copies(size: int) -> list[tuple[str, str]]:
    """Real texts of about ``size`` bytes at most, none like an earlier one, kinds mixed."""
    texts = [pair for pair in real_texts() if len(pair[1]) > 100 or pair[0] == "poem"]
    random.Random(1).shuffle(texts)
    seen: set[int] = set()
    kept, taken = [], 0
    for kind, text in texts:
        hashes = (zlib.crc32(" ".join(gram).encode()) for gram in grams(text))
        some = {h for h in hashes if h % 8 == 0}  # a sample is enough
        if len(some & seen) <= 0.2 * len(some):
            kept.append((kind, text))
            taken += len(text.encode())
            if taken >= size:
                break
        seen |= some
    return kept


def _vocabulary(base: list[tuple[str, str]], *, chinese: bool) -> list[str]:
    some = [text for kind, text in base if (kind == "poem") == chinese][:3000]
    return sorted({word for text in some for word in _WORD.findall(text)}) or ["word"]


def _replaced(text: str, rate: float, rng: random.Random, words: list[str], *, every: bool) -> str:
    """The text with a share of its words replaced: at random places, or evenly spread."""
    pieces, last = [], 0
    for count, match in enumerate(_WORD.finditer(text)):
        chosen = count % round(1 / rate) == 0 if every else rng.random() < rate
        if chosen:
            pieces += [text[last : match.start()], rng.choice(words)]
            last = match.end()
    return "".join([*pieces, text[last:]])
