"""Public sets of conversations, of texts that belong together, and of novels, as rows.

Every function takes the folder with the files of a data set, packed or not. Rows' ids begin with
the name of their file, so that ``data.weights`` can tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from modelwright.data import formats
from modelwright.data.archive import tar_members
from modelwright.data.conversations import Refused, conversations
from modelwright.data.text_sets import in_turn
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.types import Row

ORIGINS = {
    "instruct_demo": "https://github.com/hiyouga/LLaMA-Factory (data/*_demo*.json and .jsonl)",
    "self_instruct_seed": "https://github.com/yizhongw/self-instruct (data/seed_tasks.jsonl)",
    "tatoeba_en_zh": "https://github.com/pjgao/seq2seq_keras (data/cmn.txt, as en_zh.tsv)",
    "classical_modern_zh": "https://github.com/NiuTrans/Classical-Modern (as pairs.jsonl)",
    "english_novels": "https://github.com/computationalstylistics/100_english_novels (as a tar)",
    "hh_rlhf_harmless": "https://github.com/anthropics/hh-rlhf (harmless-base, as .jsonl)",
    "preference_demo": "https://github.com/hiyouga/LLaMA-Factory (data/dpo_*_demo.json)",
    "gsm8k": "https://github.com/openai/grade-school-math (train.jsonl)",
}


def _files(folder: Path, name: str, *suffixes: str) -> list[Path]:
    files = [folder] if folder.is_file() else sorted(folder.iterdir())
    found = [f for f in files if formats.format_of(f) in suffixes]
    if not found:
        raise ModelwrightError(f"{folder}: no file of {name}: get it from {ORIGINS[name]}")
    return found


def instruct_demo(folder: Path) -> Iterator[Row]:
    """Instructions, chats and calls of tools in three formats; ``text`` is all that is said.

    A row of each file in turn. Files repeat each other in other formats, which ``text`` tells.
    """
    files = _files(folder, "instruct_demo", ".json", ".jsonl")
    yield from in_turn([_told(file) for file in files])


def _told(file: Path) -> Iterator[Row]:
    for row in formats.READERS[formats.format_of(file)](file, file.name):
        try:
            turns = [turn for talk in conversations(row) for turn in talk]
            text = "\n".join(turn.text for turn in turns if turn.role != "system")
        except Refused:
            text = json.dumps(row, ensure_ascii=False)
        yield {**row, "text": text}


def self_instruct_seed(folder: Path) -> Iterator[Row]:
    """The seed tasks of Self-Instruct (arXiv:2212.10560): ``instruction`` and ``instances``."""
    for file in _files(folder, "self_instruct_seed", ".jsonl")[:1]:
        for row in formats.json_lines(file, file.name):
            yield {k: v for k, v in row.items() if k != "is_classification"}


def tatoeba_en_zh(folder: Path) -> Iterator[Row]:
    """Sentences and their translations (Tatoeba): ``en``, ``zh``.

    The translations of one sentence stand one after another and are one ``group``.
    """
    (file,) = _files(folder, "tatoeba_en_zh", ".tsv")[:1]
    for number, line in enumerate(formats.read_lines(file, file.name), start=1):
        parts = line.rstrip("\n").split("\t")
        if len(parts) != 2:
            raise CorruptError(f"{file}: line {number}: {len(parts)} fields, 2 are meant")
        yield {"id": f"{file.name}:{number}", "en": parts[0], "zh": parts[1], "group": parts[0]}


def classical_modern_zh(folder: Path) -> Iterator[Row]:
    """Classical Chinese and what it says today: ``classical``, ``modern``; ``group``: a chapter."""
    (file,) = _files(folder, "classical_modern_zh", ".jsonl")[:1]
    for row in formats.json_lines(file, file.name):
        yield {**row, "group": f"{row.get('book')}: {row.get('chapter')}"}


def english_novels(folder: Path) -> Iterator[Row]:
    """Novels of 1839 to 1928: ``text`` of some 8,000 characters, ``group``: the novel.

    A piece of each novel in turn.
    """
    packed = [folder] if folder.is_file() else sorted(folder.glob("*.tar*"))
    if not packed:
        raise ModelwrightError(f"{folder}: no tar: get it from {ORIGINS['english_novels']}")
    novels = [
        formats.pieces(formats.decode(content, name), name)
        for name, content in tar_members(packed[0], suffix=".txt")
    ]
    for row in in_turn(novels):
        yield {**row, "group": str(row["id"]).rpartition(":")[0] or row["id"]}


def preferences(folder: Path, name: str) -> Iterator[Row]:
    """Pairs of answers as ``data/preference_rows.py`` reads them; of KTO's single ones none."""
    for file in _files(folder, name, ".json", ".jsonl"):
        if not file.name.startswith("kto"):
            yield from formats.READERS[formats.format_of(file)](file, file.name)


def gsm8k(folder: Path) -> Iterator[Row]:
    """Word problems of grade school (arXiv:2110.14168): ``question``, ``answer`` with ``####``."""
    for file in _files(folder, "gsm8k", ".jsonl"):
        yield from formats.json_lines(file, file.name)


ROWS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "instruct_demo": instruct_demo,
    "self_instruct_seed": self_instruct_seed,
    "tatoeba_en_zh": tatoeba_en_zh,
    "classical_modern_zh": classical_modern_zh,
    "english_novels": english_novels,
    "hh_rlhf_harmless": partial(preferences, name="hh_rlhf_harmless"),
    "preference_demo": partial(preferences, name="preference_demo"),
    "gsm8k": gsm8k,
}
