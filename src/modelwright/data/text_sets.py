"""Public data sets of texts with labels, slots, questions or summaries, read as published.

Every function takes the folder with the files of a data set, packed with gzip or not, and yields
rows; where the set has parts of its own, ``split`` names them. Files, or classes, come in turn, so
that the first rows have some of each.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.data import formats
from modelwright.data.archive import gunzip
from modelwright.data.squad import squad_rows
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.types import Row

ORIGINS = {
    "snips_nlu": "https://github.com/sonos/nlu-benchmark (the JSON files of"
    " 2017-06-custom-intent-engines)",
    "snips-kinds": "https://github.com/sonos/nlu-benchmark (the same)",
    "snips-pairs": "https://github.com/sonos/nlu-benchmark (the same)",
    "chnsenticorp": "https://github.com/SophonPlus/ChineseNlpCorpus (ChnSentiCorp_htl_all.csv)",
    "xquad": "https://github.com/google-deepmind/xquad (xquad.en.json and other languages)",
    "cmrc2018": "https://github.com/ymcui/cmrc2018 (squad-style-data)",
    "scitldr": "https://github.com/allenai/scitldr (SciTLDR-Data/SciTLDR-A)",
}
FOLDERS = {"snips-kinds": "snips_nlu", "snips-pairs": "snips_nlu"}  # made of another's files
BLOCK = 64  # commands among which pairs are drawn, of which no split tears any
SENTIMENTS = {"0": "negative", "1": "positive"}
_CMRC = {"train": "train", "trial": "validation"}
_SCITLDR = {"train": "train", "dev": "validation", "test": "test"}


def _found(folder: Path, pattern: str, name: str) -> list[Path]:
    """The files of a folder whose names, less .gz, match; ``folder`` may be one of them itself."""
    files = [folder] if folder.is_file() else sorted(folder.iterdir())
    found = [f for f in files if re.fullmatch(pattern, f.name.removesuffix(".gz"))]
    if not found:
        raise ModelwrightError(f"{folder}: no file of {name}: get it from {ORIGINS[name]}")
    return found


def in_turn(sources: Sequence[Iterator[Row]]) -> Iterator[Row]:
    """One row of each source after another, of those that have one left."""
    for rows in itertools.zip_longest(*sources):
        yield from (row for row in rows if row is not None)


def _json(path: Path) -> Any:
    try:
        return json.loads(formats.decode(gunzip(path), path.name))
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path}: not JSON ({str(error)[:80]}): get it again") from error


def snips(folder: Path) -> Iterator[Row]:
    """The commands of SNIPS (arXiv:1805.10190): ``text``, ``intent``, ``spans`` [begin, end, slot].

    Its files train_INTENT_full are train, its files validate_INTENT the test, as is customary.
    """
    files = _found(folder, r"(train_.*_full|validate_.*)\.json", "snips_nlu")
    yield from in_turn([_commands(file) for file in files])


def snips_kinds(folder: Path) -> Iterator[Row]:
    """Commands of SNIPS and which kinds of slots each of them fills: ``text``, ``labels``."""
    for row in snips(folder):
        kinds = sorted({kind for _, _, kind in row["spans"]})
        yield {k: row[k] for k in ("id", "text", "split")} | {"labels": kinds}


def snips_pairs(folder: Path) -> Iterator[Row]:
    """Two commands of SNIPS, ``sentence1``, ``sentence2``, and as ``label`` if they want the same.

    The label is made of the intents that the set gives: "same" for every other command, whose
    partner has its intent, else "different". Partners are drawn, always alike, from the block of
    the command, its ``group``, so that no command stands on two sides of a split.
    """
    commands: dict[str, list[Row]] = {"train": [], "test": []}
    for row in snips(folder):
        commands[row["split"]].append(row)
    yield from in_turn([_pairs(rows) for rows in commands.values()])


def _pairs(commands: Sequence[Row]) -> Iterator[Row]:
    draw = np.random.default_rng(0)
    order = draw.permutation(len(commands)).tolist()
    for number, one in enumerate(order):
        block = number // BLOCK
        first, same = commands[one], number % 2 == 0
        others = [commands[i] for i in order[block * BLOCK : (block + 1) * BLOCK] if i != one]
        fitting = [row for row in others if (row["intent"] == first["intent"]) == same]
        if not fitting:  # in a short block at the end
            continue
        second = fitting[int(draw.integers(len(fitting)))]
        yield {
            "id": f"{first['id']}+{second['id']}",
            "sentence1": first["text"],
            "sentence2": second["text"],
            "label": "same" if same else "different",
            "split": first["split"],
            "group": f"{first['split']}:{block}",
        }


def _commands(file: Path) -> Iterator[Row]:
    split = "train" if file.name.startswith("train") else "test"
    for intent, commands in _json(file).items():
        for number, command in enumerate(commands, start=1):
            text, spans = _slots(command["data"])
            name = f"{split}:{intent}:{number}"
            yield {"id": name, "text": text, "intent": intent, "spans": spans, "split": split}


def _slots(pieces: Sequence[Mapping[str, str]]) -> tuple[str, list[tuple[int, int, str]]]:
    """The text of a command, and its slots without the white space around them."""
    text, spans = "", []
    for piece in pieces:
        words = piece["text"].strip()
        if (slot := piece.get("entity")) and words:
            begin = len(text) + piece["text"].index(words)
            spans.append((begin, begin + len(words), slot))
        text += piece["text"]
    return text, spans


def chnsenticorp(folder: Path) -> Iterator[Row]:
    """Chinese reviews of hotels (Tan Songbo): ``text`` and ``label``; there are no parts."""
    (file,) = _found(folder, r"ChnSentiCorp.*\.csv", "chnsenticorp")[:1]
    of_label: dict[str, list[Row]] = {name: [] for name in SENTIMENTS.values()}
    for number, row in enumerate(formats.READERS[".csv"](file, file.name), start=1):
        label = SENTIMENTS.get(str(row.get("label")).strip())
        if label is None or "review" not in row:
            raise CorruptError(f"{file}: line {number}: no 'review' or no 'label' of 0 or 1")
        of_label[label].append({"id": str(number), "text": row["review"], "label": label})
    yield from in_turn([iter(rows) for rows in of_label.values()])


def xquad(folder: Path) -> Iterator[Row]:
    """Questions on Wikipedia in several languages (arXiv:1910.11856), all whose files are there.

    Rows are paragraphs, ``language`` says of which language. An article is one ``group`` in all
    languages, for they are translations of each other.
    """
    yield from in_turn([_paragraphs(f) for f in _found(folder, r"xquad\.[a-z]+\.json", "xquad")])


def _paragraphs(file: Path) -> Iterator[Row]:
    language = file.name.split(".")[1]
    for row in squad_rows(_json(file), language):
        yield {**row, "group": row["group"].partition(":")[2], "language": language}


def cmrc2018(folder: Path) -> Iterator[Row]:
    """Chinese questions on Wikipedia (arXiv:1810.07366); rows are paragraphs.

    Where its train file is there, ``split`` says which file a row is of: dev is the test, and trial
    the validation part.
    """
    files = _found(folder, r"cmrc2018_.*\.json", "cmrc2018")
    stems = [file.name.split(".")[0].removeprefix("cmrc2018_") for file in files]
    for file, stem in zip(files, stems, strict=True):
        split = {"split": _CMRC.get(stem, "test")} if "train" in stems else {}
        yield from ({**row, **split} for row in squad_rows(_json(file), stem))


def scitldr(folder: Path) -> Iterator[Row]:
    """Abstracts and one-sentence summaries (arXiv:2004.15011): ``source``, ``target``, ``split``.

    ``source`` is the list of sentences, ``target`` a list of summaries, the author's first.
    """
    files = _found(folder, r"(train|dev|test)\.jsonl", "scitldr")
    yield from in_turn([_papers(file) for file in files])


def _papers(file: Path) -> Iterator[Row]:
    stem = file.name.split(".")[0]
    for number, row in enumerate(formats.json_lines(file, file.name), start=1):
        yield {
            "id": f"{stem}:{number}",
            "source": row["source"],
            "target": row["target"],
            "split": _SCITLDR[stem],
        }


ROWS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "snips_nlu": snips,
    "snips-kinds": snips_kinds,
    "snips-pairs": snips_pairs,
    "chnsenticorp": chnsenticorp,
    "xquad": xquad,
    "cmrc2018": cmrc2018,
    "scitldr": scitldr,
}
