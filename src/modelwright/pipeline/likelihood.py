"""What documents cost a language model, in bits per byte: of the held-out parts and of any text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.evaluation.baselines import NGram, gzip_bits_per_byte
from modelwright.pipeline import graded
from modelwright.pipeline.asked import key
from modelwright.pipeline.fitted import BATCH, Fitted, mean_loss
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.tasks import resampling
from modelwright.training.examples import windows_once
from modelwright.types import Columns, Encoded, Example, rows_in, stack

NGRAM_BYTES = 32 << 20  # the n-gram model reads no more than this of the train split


def likelihood(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """Bits per byte of held-out documents, beside gzip and an n-gram model."""
    grams = None
    for part in ("validation", "test"):
        folder = run.path / "data" / name / part
        if not folder.exists():
            continue
        say(f"evaluate: {name}: bits per byte of {part}")
        columns = open_shard(folder)
        total, _, spelled = mean_loss(fitted, windows_once(columns, BATCH, _context(fitted)))
        rows = [{"who": "ours", "value": total / spelled / math.log(2)}]
        if run.recipe.evaluate.baselines:
            grams = grams or _grams(fitted, folder.parent / "train")
            rows += _beside(grams, list(_spelled(fitted, columns)))
        result["measures"].append(_measure(fitted, f"{part} ", rows, spelled))


def on_documents(
    run: Run,
    fitted: Fitted,
    pairs: Iterable[tuple[Example, Encoded]],
    *,
    source: str,
    stage: str,
    result: dict[str, Any],
) -> None:
    """Bits per byte of texts of the user's own, each read for itself; the dearest as ``worst``.

    What single texts cost is written down as graded answers are, so that two models are compared
    text by text, whatever their tokens.

    Args:
        run: whose train part the n-gram model is fitted on, where it is still there.
        fitted: a model that predicts the next token.
        pairs: documents and what the codec makes of them.
        source: they are from, for errors.
        stage: the name that what they cost is written down by.
        result: gets ``measures``, ``slices`` and ``worst``.

    Raises:
        ModelwrightError: the texts are too short for anything to be predicted.
    """
    lines: list[dict[str, Any]] = []
    costs: list[tuple[float, int]] = []  # bits and bytes of every document
    read: list[bytes] = []
    for example, encoded in pairs:
        columns = stack([encoded], fitted.codec.ragged)
        total, _, spelled = mean_loss(fitted, windows_once(columns, BATCH, _context(fitted)))
        read += _spelled(fitted, columns)
        if spelled:
            costs.append((total / math.log(2), spelled))
            lines.append(_line(fitted, example, *costs[-1]))
    if not costs:
        raise ModelwrightError(
            f"{source}: its texts are too short, nothing in them follows anything; give more text"
        )
    bits, spelled = (sum(x) for x in zip(*costs, strict=True))
    rows = [{"who": "ours", "value": bits / spelled}]
    if run.recipe.evaluate.baselines:
        train = run.path / "data" / fitted.path.parent.name / "train"
        rows += _beside(_grams(fitted, train) if train.exists() else None, read)
    measure = _measure(fitted, "", rows, int(spelled))
    if len(costs) > 1:
        low, high = resampling.interval(np.array(costs), resampling.ratio)
        measure["note"] += f"; {len(costs):,} texts, {resampling.said(low, high)} over texts"
    result["measures"].append(measure)
    graded.write(run, stage, lines)
    result.setdefault("slices", []).extend(graded.slices(stage, fitted.task, lines))
    result.setdefault("worst", []).extend(graded.worst(fitted.task, lines))


def _line(fitted: Fitted, example: Example, bits: float, spelled: int) -> dict[str, Any]:
    """A document as a graded answer: what it cost."""
    text = example.answer.text
    return {
        "key": key(text),
        "grade": bits / spelled,
        "right": False,
        "measure": fitted.task.measure,
        "better": fitted.task.better,
        "kind": fitted.task.kind(example),
        "length": len(text),
        "question": graded.short(text),
        "reference": "",
        "answer": "",
    }


def _measure(
    fitted: Fitted, part: str, rows: Sequence[dict[str, Any]], spelled: int
) -> dict[str, Any]:
    note = f"{spelled:,} bytes of held-out {type(fitted.task).__name__.lower()}"
    if any(row["who"] == _GRAMS for row in rows):
        note += "; gzip and the byte 5-gram (interpolated Kneser-Ney, fitted on the same train "
        note += "split) read the same bytes; ours pays for document ends as well"
    return {
        "name": f"{part}bits per byte",
        "unit": "bits/byte",
        "better": "lower",
        "rows": rows,
        "note": note,
    }


_GRAMS = "5-gram, smoothed"


def _beside(grams: NGram | None, documents: list[bytes]) -> list[dict[str, Any]]:
    """What the same bytes cost without a network."""
    rows = [{"who": "gzip -9", "value": gzip_bits_per_byte(b"".join(documents))}]
    return rows + (
        [{"who": _GRAMS, "value": grams.bits_per_byte(documents)}] if grams is not None else []
    )


def _grams(fitted: Fitted, train: Path) -> NGram:
    return NGram(order=5).fit(_some(_spelled(fitted, open_shard(train)), NGRAM_BYTES))


def _context(fitted: Fitted) -> int:
    found: int = cast(Any, fitted.config).context
    return found


def _spelled(fitted: Fitted, columns: Columns) -> Iterator[bytes]:
    """The documents as the bytes that their tokens spell."""
    tokens = columns["tokens"]
    spell = cast(Any, fitted.codec).spell
    return (spell(tokens[i].tolist()) for i in range(rows_in(columns)))


def _some(documents: Iterator[bytes], limit: int) -> Iterator[bytes]:
    for document in documents:
        if limit <= 0:
            return
        yield document
        limit -= len(document)
