"""Marian's tokenizers: ``source.spm`` and ``target.spm``, and ``vocab.json`` with joint ids."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, processors
from tokenizers.models import WordLevel

from modelwright.data.codecs.marian_text import ORIGINALS, SIDES
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub import sentencepieces
from modelwright.hub.files import read_json

TOKENS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_NOBODY = 0xF0000  # from here on characters that stand for pieces which no text has


def present(folder: Path) -> bool:
    """Whether a folder holds such a pair, and no ``tokenizer.json``."""
    return (folder / ORIGINALS[0]).is_file() and not (folder / "tokenizer.json").is_file()


def read(folder: Path) -> tuple[bytes, dict[str, bytes]]:
    """The joint tokenizer as ``tokenizer.json``, and the files of ``marian_text.Codec``.

    Raises:
        ModelwrightError: a file is missing, the vocabularies are apart, or a model is not a
            unigram one.
        CorruptError: a file is damaged.
    """
    for name in ORIGINALS:
        if not (folder / name).is_file():
            raise ModelwrightError(
                f"{folder}: {name} is missing; Marian's tokenizer is {', '.join(ORIGINALS)}"
            )
    if (folder / "target_vocab.json").is_file():
        raise ModelwrightError(
            f"{folder}: target_vocab.json: sources and targets share a vocabulary here; choose a"
            " checkpoint with one vocab.json"
        )
    files = {name: (folder / name).read_bytes() for name in ORIGINALS}
    for original, side in zip(ORIGINALS, SIDES, strict=False):
        files[side] = _side(folder / original)
    return _joint(folder / "vocab.json"), files


def _side(path: Path) -> bytes:
    """A sentencepiece model as the library reads it, with pieces and no control tokens."""
    model = sentencepieces.read_model(path)
    if model.algorithm != sentencepieces.UNIGRAM or model.suffixed:
        raise ModelwrightError(f"{path}: is no unigram model, as Marian's are")
    usual = (sentencepieces.NORMAL, sentencepieces.USER)
    model.pieces = [
        (piece if kind in usual else chr(_NOBODY + i), score, kind)
        for i, (piece, score, kind) in enumerate(model.pieces)
    ]
    made: str = sentencepieces.bare(model).to_str()
    return made.encode()


def _joint(path: Path) -> bytes:
    """The ids of both, as a tokenizer that decodes them and frames a text."""
    ids = read_json(path)
    numbers = list(ids.values())
    if not all(type(i) is int and i >= 0 for i in numbers) or len(set(numbers)) < len(numbers):
        raise CorruptError(f"{path}: not every piece has an id of its own; get the file again")
    if missing := [t for t in TOKENS.values() if t not in ids]:
        raise CorruptError(f"{path}: has no {missing[0]}; get the file again")
    made = Tokenizer(WordLevel(ids, TOKENS["unk_token"]))
    made.add_special_tokens([AddedToken(t, normalized=False) for t in TOKENS.values()])
    end = TOKENS["eos_token"]
    made.post_processor = processors.TemplateProcessing(
        single=f"$A:0 {end}:0",
        pair=f"$A:0 $B:0 {end}:0",
        special_tokens=[(end, made.token_to_id(end))],
    )
    space = decoders.Replace(sentencepieces.SPACE, " ")
    made.decoder = decoders.Sequence([space, decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    written: str = made.to_str()
    return json.dumps(json.loads(written), ensure_ascii=False).encode()
