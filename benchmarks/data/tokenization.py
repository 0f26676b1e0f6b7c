"""Plain tokenization on one core: our token shards against HF datasets.map with tokenizers.

Both read the same documents with the same tokenizer.json and leave their ids on the disk, each
in a process of its own on one processor and one thread, in turns. The peer's data set is made
beforehand and its making is not counted; ours begins at the Parquet file and the tokenizer's
file, which counts. The peer uses ``encode_batch_fast``, the quickest call of its library that
gives ids. Speed is UTF-8 bytes of text a second of processor time, all threads of the process
counted; the ids of every document are compared.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.run import Row, alternate
from modelwright.errors import MachineError

BAR = 3.0
BYTES, FEW = 64 << 20, 4 << 20  # of text in each language; when quick
VOCABULARY, LEARNED = 32_000, 16 << 20  # and bytes of text that the tokenizer is trained on
ROUNDS = 5
PIECE = 20_000  # characters of a novel or a book of poems taken as one document
UNIT = "stages/write/texts"
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"


def rows(quick: bool) -> list[Row]:
    """Speed and equality of ids in English and in Chinese."""
    made: list[Row] = []
    for language, texts in (("English", english), ("Chinese", chinese)):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            size = prepare(folder, texts(), FEW if quick else BYTES)
            digests: dict[str, str] = {}

            def speed(
                who: str, folder: Path = folder, size: int = size, seen: dict[str, str] = digests
            ) -> float:
                said = measured(who, folder)
                seen[who] = said["digest"]
                return float(size / said["seconds"] / 1e6)

            ours, peer = alternate(
                lambda: speed("ours"), lambda: speed("peer"), 1 if quick else ROUNDS
            )
        what = f"{language}, {size / 1e6:.0f} MB, {VOCABULARY:,} tokens"
        ratio = ours / peer
        question = f"{what}: MB/s a core against HF datasets + tokenizers"
        made.append(Row(question, ours, peer, ratio, f">= {BAR}", ratio >= BAR))
        same = digests["ours"] == digests["peer"]
        question = f"{what}: the ids of all documents are equal"
        made.append(
            Row(question, digests["ours"], digests["peer"], float(same), "the same hash", same)
        )
    return made


def _data(name: str) -> Path:
    path = Path(os.environ.get("MODELWRIGHT_DATA") or BESIDE).resolve() / name
    if not path.exists():
        raise MachineError(f"{path}: not there; name a folder that has it by MODELWRIGHT_DATA")
    return path


def english() -> Iterator[str]:
    """Film reviews and pieces of novels in turns."""
    reviews = _reviews()
    for piece in _pieces("english_novels/novels.tar.xz"):
        yield piece
        for _, review in zip(range(15), reviews, strict=False):
            yield review
    yield from reviews


def _reviews() -> Iterator[str]:
    with lzma.open(_data("imdb") / "train.jsonl.xz", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def chinese() -> Iterator[str]:
    """Poems of the Tang and Song, without the marks of their files."""
    with tarfile.open(_data("chinese_poetry/poetry.tar.xz")) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".json"):
                for poem in json.loads(_read(archive, member)):
                    lines = poem.get("paragraphs") if isinstance(poem, dict) else None
                    if lines:
                        yield "\n".join(lines)


def _pieces(name: str) -> Iterator[str]:
    with tarfile.open(_data(name)) as archive:
        for member in archive:
            if member.isfile():
                text = _read(archive, member).decode("utf-8", "replace")
                for start in range(0, len(text), PIECE):
                    yield text[start : start + PIECE]


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    found = archive.extractfile(member)
    return found.read() if found else b""


def prepare(folder: Path, texts: Iterator[str], most: int) -> int:
    """Write the texts as a corpus has them, train the tokenizer; returns the bytes of text."""
    from modelwright.data.corpus import records  # noqa: PLC0415 - its extra may be missing
    from modelwright.data.tokenizing.train import train_tokenizer  # noqa: PLC0415

    (folder / UNIT).mkdir(parents=True)
    kept: list[str] = []
    size = learned = 0
    with records.Writer(folder / UNIT / "rows-00000.parquet", records.FINAL) as writer:
        for number, text in enumerate(texts):
            row = {"id": f"text:{number}", "source": "text", "modality": "text", "text": text}
            length = len(text.encode())
            writer.add([*records.record_values(row), "train"], length)
            if learned < LEARNED:
                kept.append(text)
                learned += length
            size += length
            if size >= most:
                break
    place = folder / "stages/tokenizer/tokenizer"
    place.mkdir(parents=True)
    train_tokenizer(kept, vocabulary=VOCABULARY).save(str(place / "tokenizer.json"))
    return size


def measured(who: str, folder: Path) -> dict[str, Any]:
    """One contender in a process of its own: ``seconds`` and ``digest`` of its ids.

    Raises:
        MachineError: it failed; the last line says why.
    """
    alone = {
        "TOKENIZERS_PARALLELISM": "false",
        "RAYON_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(folder / "hf"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.data.tokenization", who, str(folder)],
        env=os.environ | alone,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MachineError(f"tokenization: {who}: {why[:200]}")
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return said


def _ours(folder: Path) -> tuple[float, str]:
    """The unit of the stage tokens, from the Parquet file to the shard."""
    from modelwright.data.corpus.records import arrow  # noqa: PLC0415
    from modelwright.data.corpus.tokens import encode_rows  # noqa: PLC0415 - counted apart
    from modelwright.data.token_shards import TokenShards  # noqa: PLC0415

    arrow()  # loaded before the clock, as the peer is

    with tempfile.TemporaryDirectory(dir=folder) as out:
        began = time.process_time()
        encode_rows({"corpus": str(folder), "rows": UNIT}, Path(out))
        seconds = time.process_time() - began
        shards = TokenShards(Path(out), "train")
        documents = (shards.document(i)[:-1].tolist() for i in range(len(shards)))
        return seconds, _digest(documents)


def _peer(folder: Path) -> tuple[float, str]:
    """``Dataset.map`` over batches of a thousand, as its documentation advises."""
    from datasets import Dataset  # type: ignore[import-not-found] # noqa: PLC0415 - the peer
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(folder / "stages/tokenizer/tokenizer/tokenizer.json"))
    tokenizer.encode_special_tokens = True
    path = str(folder / UNIT / "rows-00000.parquet")
    texts = Dataset.from_parquet(path, columns=["text"], cache_dir=str(folder / "hf"))

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        found = tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False)
        return {"input_ids": [one.ids for one in found]}

    with tempfile.TemporaryDirectory(dir=folder) as out:
        began = time.process_time()
        made = texts.map(
            encode,
            batched=True,
            remove_columns=["text"],
            load_from_cache_file=False,
            cache_file_name=str(Path(out, "ids.arrow")),
        )
        seconds = time.process_time() - began
        return seconds, _digest(row["input_ids"] for row in made)


def _digest(documents: Iterator[list[int]]) -> str:
    """One hash over the ids of all documents, their bounds included."""
    import numpy as np  # noqa: PLC0415 - after the clock

    digest = hashlib.blake2b(digest_size=8)
    for ids in documents:
        digest.update(len(ids).to_bytes(8, "little") + np.array(ids, dtype="<u4").tobytes())
    return digest.hexdigest()


def main(who: str, folder: str) -> None:
    """Measure one contender on one processor, and print what came out."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    seconds, digest = (_ours if who == "ours" else _peer)(Path(folder))
    print(json.dumps({"seconds": seconds, "digest": digest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
