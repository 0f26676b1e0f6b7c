"""Stages tokenizer and tokens: final rows to token shards.

One unit makes the tokenizer, trained on a sample of the train rows alone (law 11) or taken from a
file; then one unit for every unit of rows encodes it, a shard for each part of the split. The
rows are the Parquet files ``rows-*.parquet`` of the ``write`` and ``augment`` units, with the
columns ``id``, ``source``, ``split``, ``text`` and ``language``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from modelwright.data.corpus.records import RECORDS, arrow, groups, rows
from modelwright.data.corpus.unit import CORPUS, TIMING, Facts, Unit, unit_folder
from modelwright.data.token_files import Array, ShardWriter
from modelwright.data.tokenizing.encoder import (
    TextEncoder,
    load_encoder,
    one_thread,
    with_layout,
)
from modelwright.data.tokenizing.fast import Texts
from modelwright.data.tokenizing.train import SMALLEST, drawn, quotas, train_tokenizer
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.options import checked

PARTS = ("train", "validation", "test")
UNIT = "tokenizer"  # the only unit of the stage of this name
SAMPLE = 256 << 20  # bytes of text a tokenizer is trained on
LONGEST = 1 << 20  # characters of one row in that sample
BATCH = 4096  # rows that are encoded at a time
_HERE = "modelwright.data.corpus.tokens"


def tokenizer_settings(
    kind: Literal["bpe", "unigram"] = "bpe",
    vocabulary: Annotated[int, Field(ge=SMALLEST)] = 32768,
    file: str = "",
    sample: int = SAMPLE,
    split: Literal["own", "gpt2", "llama3", "qwen2"] = "own",
) -> dict[str, Any]:
    """The ``tokenizer`` section of a corpus.

    Args:
        kind: "bpe" or "unigram", both on bytes.
        vocabulary: how many tokens there shall be.
        file: a ``tokenizer.json`` or sentencepiece ``.model`` to use instead of training one.
        sample: bytes of train text to train on.
        split: where text is cut into words, a name of ``tokenizing.train.SPLITS``.
    """
    found = {"kind": kind, "vocabulary": vocabulary, "file": file, "sample": sample}
    return found if split == "own" else {**found, "split": split}


def plan_tokenizer(
    units: Sequence[Unit], settings: Mapping[str, Any], *, seed: int = 0
) -> list[Unit]:
    """The unit that makes the tokenizer; it runs before those of ``plan_tokens``.

    Args:
        units: those that wrote the final rows.
        settings: see ``tokenizer_settings``.
        seed: of the corpus.
    """
    given = tokenizer_settings(**checked("tokenizer", tokenizer_settings, settings))
    if given["file"]:
        path = Path(given["file"]).expanduser().resolve()
        content = load_encoder(path).content()  # here: a wrong file is said before all the work
        mark = hashlib.blake2b(content, digest_size=16).hexdigest()
        aside = {"file": str(path)}
        return [Unit("tokenizer", UNIT, f"{_HERE}:take_tokenizer", {"content": mark}, aside=aside)]
    folders = [f"stages/{u.stage}/{u.name}" for u in units]
    fields = {k: v for k, v in given.items() if k != "file"}
    arguments = {**fields, "seed": seed, "rows": folders}
    reads = tuple(f"{u.stage}/{u.name}" for u in units)
    return [Unit("tokenizer", UNIT, f"{_HERE}:make_tokenizer", arguments, reads=reads)]


def plan_tokens(units: Sequence[Unit]) -> list[Unit]:
    """The units that encode what ``units`` of the stages write and augment wrote, one for each."""
    plan = []
    for unit in units:
        arguments = {"rows": f"stages/{unit.stage}/{unit.name}"}
        reads = (f"{unit.stage}/{unit.name}", f"tokenizer/{UNIT}")
        name = unit.name if unit.stage == "write" else f"{unit.stage}-{unit.name}"
        work = f"{_HERE}:encode_rows"
        plan.append(Unit("tokens", name, work, arguments, reads, bytes=unit.bytes))
    return plan


def take_tokenizer(arguments: dict[str, Any], out: Path) -> Facts:
    """Work of the stage tokenizer: keep the tokenizer of a file in the corpus."""
    encoder = load_encoder(Path(arguments["file"]))
    mark = hashlib.blake2b(encoder.content(), digest_size=16).hexdigest()
    if mark != arguments["content"]:
        raise ModelwrightError(f"{arguments['file']}: has changed meanwhile; start again")
    return _keep(encoder, out)


def make_tokenizer(arguments: dict[str, Any], out: Path) -> Facts:
    """Work of the stage tokenizer: train one on a sample of the train rows."""
    folders = [Path(arguments[CORPUS], folder) for folder in arguments["rows"]]
    sizes: dict[str, int] = {}
    for row in _train_rows(folders):
        sizes[row["source"]] = sizes.get(row["source"], 0) + len(row["text"][:LONGEST].encode())
    if not sizes:
        raise ModelwrightError(
            "tokenizer: no row of the train split has text to learn from; leave `tokenizer` out"
        )
    shares = quotas(sizes, arguments["sample"])
    seed, used = arguments["seed"], dict.fromkeys(sorted(sizes), 0)

    def sample() -> Iterator[str]:
        for row in _train_rows(folders):
            if drawn(seed, row["id"], shares[row["source"]]):
                text = row["text"][:LONGEST]
                used[row["source"]] += len(text.encode())
                yield text

    with one_thread():
        trained = train_tokenizer(
            sample(),
            kind=arguments["kind"],
            vocabulary=arguments["vocabulary"],
            split=arguments.get("split", "own"),
        )
    return _keep(TextEncoder(trained), out) | {"sample_bytes": used}


def _keep(encoder: Any, out: Path) -> Facts:
    if isinstance(encoder, TextEncoder):
        encoder = TextEncoder(with_layout(encoder.tokenizer))
    if encoder.end is None:
        raise ModelwrightError(
            "tokenizer.file: it has no token that ends a text (<eos>), which separates documents; "
            "give another"
        )
    (out / encoder.name).write_bytes(encoder.content())
    return {
        "file": encoder.name,
        "vocabulary": encoder.vocabulary,
        "fingerprint": encoder.fingerprint.hex(),
    }


def corpus_tokenizer(corpus: Path) -> Path:
    """The tokenizer's file of a corpus.

    Raises:
        CorruptError: it has none.
    """
    folder = unit_folder(corpus, "tokenizer", UNIT)
    for name in ("tokenizer.json", "tokenizer.model"):
        if (folder / name).is_file():
            return folder / name
    raise CorruptError(f"{corpus}: holds no tokenizer; run `modelwright data run` again")


def encode_rows(arguments: dict[str, Any], out: Path) -> Facts:
    """Work of the stage tokens: one shard for each part of the split, and counts by language.

    Rows without text have no tokens. Every document ends with the tokenizer's end.
    """
    corpus = Path(arguments[CORPUS])
    encoder = load_encoder(corpus_tokenizer(corpus))
    if encoder.end is None:
        raise ModelwrightError("tokenizer: it has no token that ends a text; give another")
    writers: dict[str, ShardWriter] = {}
    sizes = dict.fromkeys(PARTS, 0)
    languages: dict[str, dict[str, int]] = {}
    with one_thread(), ExitStack() as files:
        for part, batch in _batches(corpus / arguments["rows"]):
            ids, lengths = encoder.encode_many(batch.texts)
            sizes[part] += int(batch.texts.sizes.sum())
            _count(languages, batch, lengths - 1)
            if part not in writers:
                fresh = ShardWriter(
                    out, part, vocabulary=encoder.vocabulary, fingerprint=encoder.fingerprint
                )
                writers[part] = files.enter_context(fresh)
            writers[part].add_many(ids, lengths, *batch.sources, batch.rows)
        parts = {p: writers[p].close() | {"text_bytes": sizes[p]} for p in PARTS if p in writers}
    return {
        "parts": parts,
        "languages": dict(sorted(languages.items())),
        TIMING: {"text_bytes": sum(sizes.values())},
    }


@dataclass(frozen=True)
class _Batch:
    """Rows of one part that have text.

    ``sources`` and ``languages`` are, of every row, an index into the names beside it; ``rows``
    are the rows' numbers in their unit.
    """

    texts: Texts
    sources: tuple[Array, list[str]]
    languages: tuple[Array, list[str]]
    rows: Array


def _batches(folder: Path) -> Iterator[tuple[str, _Batch]]:
    """The rows of a unit in order, those of each part of the split together."""
    columns, coded, first = ("source", "split", "text", "language"), ("source", "language"), 0
    for path in _tables(folder):
        for table in groups(path, columns, coded=(*coded, "split")):
            for batch in table.to_batches(max_chunksize=BATCH):
                texts = _texts(batch.column("text"), path)
                codes, names = _coded(batch.column("split"))
                sources, languages = (_coded(batch.column(name)) for name in coded)
                for part in (p for p in PARTS if p in names):
                    chosen = np.flatnonzero((texts.sizes > 0) & (codes == names.index(part)))
                    if len(chosen):
                        yield (
                            part,
                            _Batch(
                                Texts(texts.data, texts.begins[chosen], texts.ends[chosen]),
                                (sources[0][chosen], sources[1]),
                                (languages[0][chosen], languages[1]),
                                first + chosen,
                            ),
                        )
                first += len(batch)


def _texts(column: Any, path: Path) -> Texts:
    """The texts of a column of Arrow where they lie; null is empty."""
    pa = arrow()
    try:
        column.validate(full=True)  # whoever reads the bytes trusts that they are UTF-8
    except pa.ArrowInvalid as error:
        line = " ".join(str(error).split())[:200]
        raise CorruptError(f"{path}: damaged ({line}); delete its folder and run again") from error
    _, begins, data = column.buffers()
    kind = np.int64 if pa.types.is_large_string(column.type) else np.int32
    stored: Array = np.frombuffer(begins, kind)
    bounds = stored[column.offset : column.offset + len(column) + 1].astype(np.int64)
    ends = np.where(_present(column), bounds[1:], bounds[:-1])
    return Texts(np.frombuffer(data or b"", np.uint8), bounds[:-1], ends)


def _coded(column: Any) -> tuple[Array, list[str]]:
    """Of every row of a coded column an index into the names beside it; null is "?"."""
    names, codes = column.dictionary.to_pylist(), column.indices
    numbers = np.frombuffer(codes.buffers()[1], np.int32)[codes.offset : codes.offset + len(codes)]
    if column.null_count:
        numbers = np.where(_present(codes), numbers, len(names))
    return numbers, [*names, "?"]


def _present(column: Any) -> Array:
    """Which rows are not null, (rows,); by hand, for Arrow loads much to tell it."""
    rows, valid = slice(column.offset, column.offset + len(column)), column.buffers()[0]
    if valid is None:
        return np.ones(len(column), np.bool_)
    bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")
    return bits[rows].astype(np.bool_)


def _count(languages: dict[str, dict[str, int]], batch: _Batch, tokens: Array) -> None:
    """Add the bytes and tokens of a batch to those of its languages."""
    codes, names = batch.languages
    for key, of in (("bytes", batch.texts.sizes), ("tokens", tokens)):
        sums = np.bincount(codes, weights=of, minlength=len(names))  # exact below 2^53
        for name, total in zip(names, sums.tolist(), strict=True):
            if total or name in languages:
                counts = languages.setdefault(name, {"bytes": 0, "tokens": 0})
                counts[key] += int(total)


def fit_by_language(facts: Sequence[Facts]) -> dict[str, float]:
    """Bytes per token of every language, over the facts of all units of the stage tokens."""
    sums: dict[str, list[int]] = {}
    for unit in facts:
        for language, of in unit["languages"].items():
            total = sums.setdefault(language, [0, 0])
            total[0] += of["bytes"]
            total[1] += of["tokens"]
    return {k: size / tokens for k, (size, tokens) in sorted(sums.items()) if tokens}


def _train_rows(folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        for row in _rows(folder):
            if row["split"] == "train" and row["text"]:
                yield row


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Id, source, split and text of the rows of a unit, in order."""
    for path in _tables(folder):
        yield from rows(path, ("id", "source", "split", "text"))


def _tables(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*.parquet")):
        if path.name == RECORDS or path.name.startswith("rows-"):
            yield path
