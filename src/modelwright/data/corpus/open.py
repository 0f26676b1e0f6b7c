"""A finished corpus as rows, for recipes and whoever else reads it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.data.corpus import records
from modelwright.data.corpus.unit import unit_folder
from modelwright.errors import CorruptError, MachineError, ModelwrightError

FINISHED = "corpus.json"
Row = dict[str, Any]


def is_corpus(path: Path) -> bool:
    """Whether a folder is a corpus, finished or not."""
    marks = (path / "spec.json", path / "inputs.json", path / "stages")
    try:
        return all(mark.exists() for mark in marks)
    except (OSError, ValueError):  # a name that no file can have
        return False


def summary(folder: Path) -> dict[str, Any]:
    """What ``corpus.json`` says: name, stages with their units and marks, parts, content.

    Raises:
        ModelwrightError: the corpus is not finished.
        CorruptError: the file is damaged.
    """
    path = folder / FINISHED
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelwrightError(
            f"{folder}: the corpus is not finished; run `modelwright data run` to its end"
        ) from None
    except ValueError as error:
        raise CorruptError(
            f"{path}: damaged ({error}); run `modelwright data run` again"
        ) from error
    return found


def row_files(folder: Path) -> Iterator[Path]:
    """The Parquet files of a finished corpus with its rows, in order, those made of others last."""
    stages = summary(folder)["stages"]
    for stage in ("write", "augment"):
        for unit in stages.get(stage, ()):
            yield from sorted(unit_folder(folder, stage, unit).glob("rows-*.parquet"))


def corpus_rows(folder: Path) -> Iterator[Row]:
    """The rows of a finished corpus, one row group in memory at a time.

    Yields:
        ``id``, ``group`` (the first group key, else the id), ``split``, ``source``; ``text`` and
        ``label`` where there are; the keys of ``meta`` that are no columns; and of pictures
        ``pixels`` uint8 (height, width[, 3]), of sounds ``samples`` float32 (time,) and ``rate``.

    Raises:
        ModelwrightError: the corpus is not finished.
        CorruptError: a file is damaged.
    """
    for path in row_files(folder):
        for stored in records.rows(path):
            yield _row(stored)


def _row(stored: Row) -> Row:
    meta: Row = json.loads(stored["meta"] or "{}")
    row = {k: v for k, v in meta.items() if k not in records.FINAL and k != "group"}
    row |= {name: stored[name] for name in ("id", "source", "split")}
    row["group"] = (stored["groups"] or [stored["id"]])[0]
    row |= {k: stored[k] for k in ("text", "label", "license") if stored[k] is not None}
    if stored["media"] is not None:
        row |= _decoded(stored)
    return row


def _decoded(stored: Row) -> Row:
    """The content of a picture or sound; other media stay bytes."""
    media, modality = stored["media"], stored["modality"]
    if modality == "image":
        return {"pixels": _pixels(media, stored["id"])}
    if modality == "audio":
        samples, rate = _samples(media, stored["id"])
        return {"samples": samples, "rate": rate}
    return {"media": media}


def _pixels(media: bytes, name: str) -> Any:
    from modelwright.data import pictures  # noqa: PLC0415 - only where there are pictures

    try:
        return pictures.decode(media, upright=True)[0]
    except pictures.Undecodable as error:
        raise ModelwrightError(
            f"{name}: no readable picture ({error}); add the step `images` to the corpus"
        ) from error


def _samples(media: bytes, name: str) -> tuple[Any, int]:
    try:
        import soundfile  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise MachineError(
            "sounds need soundfile, which is not installed: pip install 'modelwright[data]'"
        ) from error
    try:
        samples, rate = soundfile.read(io.BytesIO(media), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ModelwrightError(
            f"{name}: no readable sound ({error}); add the step `audio` to the corpus"
        ) from error
    return samples.mean(axis=1), int(rate)
