"""Stages tokenizer and tokens: final rows to token shards.

One unit makes the tokenizer, trained on a sample of the train rows alone (law 11) or taken from a
file; then one unit for every unit of rows encodes it, a shard for each part of the split. The
rows are the Parquet files ``rows-*.parquet`` of the ``write`` and ``augment`` units, with the
columns ``id``, ``source``, ``split`` and ``text``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.data.corpus.records import ATTRIBUTES, RECORDS, rows
from modelwright.data.corpus.unit import CORPUS, TIMING, Facts, Unit, unit_folder
from modelwright.data.token_files import ShardWriter
from modelwright.data.tokenizing.encoder import (
    TextEncoder,
    load_encoder,
    one_thread,
    with_layout,
)
from modelwright.data.tokenizing.train import drawn, quotas, train_tokenizer
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.options import checked

PARTS = ("train", "validation", "test")
UNIT = "tokenizer"  # the only unit of the stage of this name
SAMPLE = 256 << 20  # bytes of text a tokenizer is trained on
LONGEST = 1 << 20  # characters of one row in that sample
LANGUAGE = "language.language"  # the attribute that the step of this name writes
_HERE = "modelwright.data.corpus.tokens"


def tokenizer_settings(
    kind: str = "bpe", vocabulary: int = 32768, file: str = "", sample: int = SAMPLE
) -> dict[str, Any]:
    """The ``tokenizer`` section of a corpus.

    Args:
        kind: "bpe" or "unigram", both on bytes.
        vocabulary: how many tokens there shall be.
        file: a ``tokenizer.json`` or sentencepiece ``.model`` to use instead of training one.
        sample: bytes of train text to train on.
    """
    return {"kind": kind, "vocabulary": vocabulary, "file": file, "sample": sample}


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
    fields = {k: given[k] for k in ("kind", "vocabulary", "sample")}
    arguments = {**fields, "seed": seed, "rows": folders}
    reads = tuple(f"{u.stage}/{u.name}" for u in units)
    return [Unit("tokenizer", UNIT, f"{_HERE}:make_tokenizer", arguments, reads=reads)]


def plan_tokens(units: Sequence[Unit]) -> list[Unit]:
    """The units that encode what ``units`` of the stages write and augment wrote, one for each."""
    plan = []
    for unit in units:
        first = unit.stage == "write"  # its rows were measured by the read unit of its name
        arguments = {"rows": f"stages/{unit.stage}/{unit.name}"}
        reads = [f"{unit.stage}/{unit.name}", f"tokenizer/{UNIT}"]
        if first:
            arguments["attributes"] = f"stages/read/{unit.name}/{ATTRIBUTES}"
            reads.append(f"read/{unit.name}:{ATTRIBUTES}")
        name = unit.name if first else f"{unit.stage}-{unit.name}"
        work = f"{_HERE}:encode_rows"
        plan.append(Unit("tokens", name, work, arguments, tuple(reads), bytes=unit.bytes))
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
            sample(), kind=arguments["kind"], vocabulary=arguments["vocabulary"]
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
    if isinstance(encoder, TextEncoder):
        encoder.hurry()
    end = np.array([encoder.end], dtype=np.uint32)
    spoken = _languages(corpus, arguments.get("attributes"))
    writers: dict[str, ShardWriter] = {}
    sizes = dict.fromkeys(PARTS, 0)
    languages: dict[str, dict[str, int]] = {}
    with one_thread(), ExitStack() as files:
        for number, row in enumerate(_rows(corpus / arguments["rows"])):
            part = row["split"]
            if part not in PARTS or not row["text"]:
                continue
            ids = encoder.encode(row["text"])
            size = len(row["text"].encode())
            sizes[part] += size
            counts = languages.setdefault(spoken.get(row["id"], "?"), {"bytes": 0, "tokens": 0})
            counts["bytes"] += size
            counts["tokens"] += len(ids)
            if part not in writers:
                fresh = ShardWriter(
                    out, part, vocabulary=encoder.vocabulary, fingerprint=encoder.fingerprint
                )
                writers[part] = files.enter_context(fresh)
            writers[part].add(np.concatenate([ids, end]), row["source"], number)
        parts = {p: writers[p].close() | {"text_bytes": sizes[p]} for p in PARTS if p in writers}
    return {
        "parts": parts,
        "languages": dict(sorted(languages.items())),
        TIMING: {"text_bytes": sum(sizes.values())},
    }


def _languages(corpus: Path, attributes: str | None) -> dict[str, str]:
    """The language of every row of which the step ``language`` has said one, by id."""
    found: dict[str, str] = {}
    if attributes is not None:
        for line in rows(corpus / attributes, ("id", "name", "text")):
            if line["name"] == LANGUAGE and line["text"]:
                found[line["id"]] = line["text"]
    return found


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
    for path in sorted(folder.glob("*.parquet")):
        if path.name == RECORDS or path.name.startswith("rows-"):
            yield from rows(path, ("id", "source", "split", "text"))
