"""A sentencepiece ``.model`` as a tokenizer of the tokenizers library, with the same ids.

The file is a protobuf message (sentencepiece_model.proto of google/sentencepiece, Apache-2.0): the
pieces with score and kind, how they are chosen (unigram or byte-pair encoding), and how a text is
normalised before. It is read field by field; nothing of it can run. What the tokenizer's class of
the checkpoint adds (T5's extra ids, the tokens before and after a text) is known here by name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import BPE, Unigram

from modelwright.errors import CorruptError, ModelwrightError

FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
SPACE = "\u2581"  # stands for a space in pieces
LARGEST = 64 << 20  # bytes of a model; real ones are below 10 MB
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, PAIRS = 1, 2
EXTRA_IDS = 100  # of T5: <extra_id_99> ... <extra_id_0> after the pieces
# Class of the tokenizer -> whether a text begins with bos and ends with eos.
FRAMES = {
    "LlamaTokenizer": (True, False),
    "CodeLlamaTokenizer": (True, False),
    "GemmaTokenizer": (True, False),
    "T5Tokenizer": (False, True),
}
_CLASS_OF = {
    **dict.fromkeys(("llama", "mistral", "mixtral"), "LlamaTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("t5", "mt5", "umt5"), "T5Tokenizer"),
}


@dataclass
class Model:
    """What a sentencepiece model says.

    ``pieces`` are (piece, score, kind) in the order of their ids; ``charsmap`` is the compiled
    normalisation; ``strips`` says that white space is collapsed and removed at the ends, and
    ``prefixed`` that a space is put before a text.
    """

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    algorithm: int = UNIGRAM
    byte_fallback: bool = False
    suffixed: bool = False
    charsmap: bytes = b""
    prefixed: bool = True
    strips: bool = True

    @property
    def unknown(self) -> int:
        """The id of the piece for what no other covers."""
        return next(i for i, (_, _, kind) in enumerate(self.pieces) if kind == UNKNOWN)


def read_model(path: Path) -> Model:
    """A sentencepiece model.

    Raises:
        CorruptError: it is none, or cut short.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"over {LARGEST >> 20} MiB")
        found = _model(path.read_bytes())
        names = [piece for piece, _, _ in found.pieces]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{len(names)} pieces, {len(set(names))} of them distinct")
        if sum(kind == UNKNOWN for _, _, kind in found.pieces) != 1:
            raise ValueError("not one piece for the unknown")
    except (OSError, ValueError, IndexError, struct.error) as error:
        line = " ".join(str(error).split())[:100]
        raise CorruptError(
            f"{path}: no whole sentencepiece model ({line}); get the file again"
        ) from error
    return found


def converted(path: Path, config: Mapping[str, Any], model_type: str) -> Tokenizer:
    """The tokenizer of a ``.model``, framed as the class of the checkpoint's tokenizer frames.

    Args:
        path: of the model.
        config: the content of tokenizer_config.json.
        model_type: of config.json, where the former names no class.

    Raises:
        ModelwrightError: a class or a kind of model that is not converted here.
        CorruptError: the file is damaged.
    """
    named = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    kind = named if named and named != "PreTrainedTokenizer" else _CLASS_OF.get(model_type, "")
    if kind not in FRAMES:
        raise ModelwrightError(
            f"{path}: a sentencepiece model of a {kind or model_type}, which is not converted here;"
            f" known: {', '.join(FRAMES)}; get tokenizer.json, or make it where you trust the"
            " files: transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    model = read_model(path)
    if model.algorithm not in (UNIGRAM, PAIRS) or model.suffixed:
        raise ModelwrightError(
            f"{path}: is neither a unigram model nor byte-pair encoding, or marks spaces behind"
            " words; get tokenizer.json instead"
        )
    if kind == "T5Tokenizer":
        count = int(config.get("extra_ids", EXTRA_IDS))
        known = {piece for piece, _, _ in model.pieces}
        extra = [f"<extra_id_{i}>" for i in reversed(range(count))]
        model.pieces += [(name, 0.0, CONTROL) for name in extra if name not in known]
    made = bare(model)
    special = [
        AddedToken(piece, special=True, normalized=False)
        for piece, _, kind_ in model.pieces
        if kind_ in (UNKNOWN, CONTROL)
    ]
    made.add_special_tokens(special)
    made.add_tokens(
        [AddedToken(p, special=False, normalized=False) for p, _, k in model.pieces if k == USER]
    )
    _frame(made, kind, config)
    return made


def bare(model: Model) -> Tokenizer:
    """The pieces, and how a text is brought to them and back; no token is special."""
    unknown = model.unknown
    if model.algorithm == UNIGRAM:
        scored = [(piece, score) for piece, score, _ in model.pieces]
        made = Tokenizer(Unigram(scored, unk_id=unknown, byte_fallback=model.byte_fallback))
    else:
        made = Tokenizer(
            BPE(
                {piece: i for i, (piece, _, _) in enumerate(model.pieces)},
                list(_merges(model.pieces)),
                unk_token=model.pieces[unknown][0],
                fuse_unk=True,
                byte_fallback=model.byte_fallback,
            )
        )
    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.strips:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    if model.prefixed:
        steps.append(normalizers.Prepend(SPACE))
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    if not any(SPACE in piece[1:] for piece, _, _ in model.pieces):
        # No piece goes on behind a space, so words may be looked at apart, which is quicker.
        made.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=True)
    ends: list[Any] = [decoders.Strip(" ", 1, 0)] if model.prefixed else []
    made.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *ends]
    )
    return made


def _merges(pieces: Sequence[tuple[str, float, int]]) -> Iterator[tuple[str, str]]:
    """The pairs that make each piece, those of the best piece first."""
    ids = {piece: i for i, (piece, _, kind) in enumerate(pieces) if kind in (NORMAL, USER)}
    order = sorted(ids, key=lambda piece: (-pieces[ids[piece]][1], ids[piece]))
    for piece in order:
        pairs = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        found = [(a, b) for a, b in pairs if a in ids and b in ids]
        yield from sorted(found, key=lambda pair: (ids[pair[0]], ids[pair[1]]))


def _frame(made: Tokenizer, kind: str, config: Mapping[str, Any]) -> None:
    """The tokens that the class puts before and after a text."""
    begins, ends = FRAMES[kind]
    if kind != "T5Tokenizer":
        begins = bool(config.get("add_bos_token", begins))
        ends = bool(config.get("add_eos_token", ends))
    first = _token(config, "bos_token", ("<s>", "<bos>"), made) if begins else None
    last = _token(config, "eos_token", ("</s>", "<eos>"), made) if ends else None
    frame = [(t, made.token_to_id(t)) for t in (first, last) if t is not None]
    if not frame:
        return
    one = [f"{first}:0"] * (first is not None) + ["$A:0"] + [f"{last}:0"] * (last is not None)
    two = [f"{first}:1"] * (first is not None) + ["$B:1"] + [f"{last}:1"] * (last is not None)
    made.post_processor = processors.TemplateProcessing(
        single=one, pair=[*one, *two], special_tokens=frame
    )


def _token(
    config: Mapping[str, Any], name: str, usual: Sequence[str], made: Tokenizer
) -> str | None:
    stated = config.get(name)
    stated = stated.get("content") if isinstance(stated, Mapping) else stated
    tried = [stated] if isinstance(stated, str) else list(usual)
    return next((t for t in tried if made.token_to_id(t) is not None), None)


# The message -------------------------------------------------------------------------------------


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of a protobuf message: int, float or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if at + length > len(message):
            raise ValueError("it is cut short")
        content = message[at : at + length]
        at += length
        yield number, struct.unpack("<f", content)[0] if wire == 5 else content


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _model(message: bytes) -> Model:
    found = Model()
    for number, value in _fields(message):
        if number == 1:
            piece = dict(_fields(value))
            text = bytes(piece.get(1, b"")).decode()
            found.pieces.append((text, float(piece.get(2, 0.0)), int(piece.get(3, NORMAL))))
        elif number == 2:
            trainer = dict(_fields(value))
            found.algorithm = int(trainer.get(3, UNIGRAM))
            found.suffixed = bool(trainer.get(24, False))
            found.byte_fallback = bool(trainer.get(35, False))
        elif number == 3:
            normalizer = dict(_fields(value))
            found.charsmap = bytes(normalizer.get(2, b""))
            found.prefixed = bool(normalizer.get(3, True))
            found.strips = bool(normalizer.get(4, True))
    return found
