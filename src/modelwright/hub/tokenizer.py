"""The tokenizer of a published checkpoint, as a codec of ours and back as the hub's files.

``tokenizer.json`` is taken as it is. Where a checkpoint has only the older files, the same
tokenizer is made of them: ``vocab.json`` and ``merges.txt`` (byte-level BPE, GPT-2), ``vocab.txt``
(WordPiece, BERT), a sentencepiece ``.model`` (Llama, Gemma, T5), or two of them (Marian).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

from modelwright.data.chat_template import TOKENS
from modelwright.data.codecs import (
    codec_class,
    kinds,
    marian_text,
    published_text,
    text_codec,
    text_pairs,
)
from modelwright.data.tokenizing.alphabet import END
from modelwright.data.tokenizing.encoder import LARGEST
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub import sentencepiece_pairs, sentencepieces
from modelwright.hub.files import Published, read_json
from modelwright.models.model import ModelConfig
from modelwright.options import checked
from modelwright.types import Codec, Example

KEPT = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


def read_codec(published: Published, vocabulary: int) -> published_text.Codec:
    """The codec of a checkpoint's tokenizer.

    Args:
        published: what ``find`` gave.
        vocabulary: rows of the model's embedding; at least as many as the tokenizer has ids.

    Raises:
        ModelwrightError: there is no tokenizer, or one for more ids than the model has.
        CorruptError: a file of it is damaged.
    """
    folder = published.folder
    pair: dict[str, bytes] | None = None
    if sentencepiece_pairs.present(folder):
        content, pair = sentencepiece_pairs.read(folder)
    else:
        content = _content(folder, str(published.config.get("model_type")))
    settings = {name: found for name in KEPT if (found := published.settings(name))}
    config = settings.get("tokenizer_config.json", {})
    tokens = _named(config) or _named(settings.get("special_tokens_map.json", {}))
    if pair is not None:
        tokens = {**sentencepiece_pairs.TOKENS, **tokens}
    ids = json.loads(Tokenizer.from_str(content.decode()).to_str())  # parsed once more: checked
    numbers = {t["content"]: int(t["id"]) for t in ids.get("added_tokens", ())}
    vocab = ids["model"].get("vocab", {})
    numbers = {**(vocab if isinstance(vocab, dict) else {}), **numbers}
    if isinstance(vocab, list):  # Unigram: [piece, score] in the order of ids
        numbers = {piece: i for i, (piece, _) in enumerate(vocab)} | numbers
    facts = {
        "vocabulary": vocabulary,
        "ends": _ends(published, settings, tokens, numbers),
        "template": _template(folder, config),
        "tokens": tokens,
        "settings": settings,
    }
    try:
        if pair is not None:
            return marian_text.Codec(content, facts, pair)
        return published_text.Codec(content, facts)
    except ModelwrightError as error:
        raise ModelwrightError(f"{published.source}: {error}") from error


def codec_for(
    published: Published,
    vocabulary: int,
    kind: str,
    train: Iterable[Example],
    options: Mapping[str, Any],
    *,
    config: ModelConfig | None = None,
) -> Codec:
    """The codec of a task, with the checkpoint's tokenizer.

    Args:
        published: what ``find`` gave.
        vocabulary: rows of the model's embedding.
        kind: of the task's codec: "text", or one that has ``around``.
        train: examples of the train split, for the labels.
        options: the recipe's ``codec``, without what the tokenizer decides.
        config: of the model; that of an encoder-decoder says what a target begins with.

    Raises:
        ModelwrightError: the task reads no text, or an option that the tokenizer decides is given.
    """
    for name in ("vocabulary", "tokenizer"):
        if name in options:
            raise ModelwrightError(
                f"codec.{name}: the tokenizer comes with {published.source}; leave it out"
            )
    if kind == "text":
        codec = read_codec(published, vocabulary)
        checked("codec text", read_codec, options, apart=("published", "vocabulary"))
        return cast(Codec, codec)
    cls = codec_class(kind) if kind in kinds() else None
    if cls is not None and issubclass(cls, text_pairs.Codec):
        start, padding = (getattr(config, field, None) for field in ("start", "padding"))
        if start is None or padding is None:
            raise ModelwrightError(
                f"model.from: {published.source} is no encoder-decoder, which the task needs; "
                "choose one, such as a T5, a BART or a Marian"
            )
        fixed = ("text_codec", "start", "padding")
        given = checked(f"codec {kind}", cls.around, options, apart=fixed)
        inner = read_codec(published, vocabulary)
        return cast(Codec, cls.around(inner, start=start, padding=padding, **given))
    around = getattr(cls, "around", None)
    if around is not None:
        given = checked(f"codec {kind}", around, options, apart=("text_codec", "examples", "types"))
        if "types" in inspect.signature(around).parameters:  # of tokens, as the model knows them
            given["types"] = getattr(config, "types", 0)
        return cast(Codec, around(read_codec(published, vocabulary), train, **given))
    raise ModelwrightError(
        f"model.from: {published.source} reads text, and the task's codec is {kind}; "
        "choose a task of text"
    )


def files_of(codec: Any, context: int | None) -> dict[str, bytes]:
    """The tokenizer of a codec as files that ``transformers`` reads; none where it has none."""
    if (inner := text_codec(codec)) is None:
        return {}
    settings = inner.settings(context)
    found = dict(inner.originals)
    found |= {name: _json(values) for name, values in settings.items()}
    config = dict(settings.get("tokenizer_config.json", {}))
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    config |= {k: v for k, v in inner.names.items() if k not in config}
    if inner.template:
        config["chat_template"] = inner.template
    found.setdefault("generation_config.json", _json(end_settings(codec)))
    return {**found, "tokenizer_config.json": _json(config)}


def end_settings(codec: Any) -> dict[str, Any]:
    """What config.json and generation_config.json say of where texts begin and end."""
    found: dict[str, Any] = {}
    if (inner := text_codec(codec)) is not None:
        ends = list(inner.ends)
        found["eos_token_id"] = ends[0] if len(ends) == 1 else ends
        for name in ("bos_token", "pad_token"):
            if (token := inner.names.get(name)) is not None:
                found[f"{name}_id"] = inner.tokenizer.token_to_id(token)
    if (opening := getattr(codec, "opening", None)) is not None:  # of pairs
        found |= {"decoder_start_token_id": codec.start, "pad_token_id": codec.padding}
        if len(opening) > 1:
            found["forced_bos_token_id"] = opening[1]
    return found


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False).encode() + b"\n"


# The files ---------------------------------------------------------------------------------------


def _content(folder: Path, model_type: str) -> bytes:
    """``tokenizer.json``, read or made of the older files."""
    path = folder / "tokenizer.json"
    if path.is_file():
        if path.stat().st_size > LARGEST:
            raise ModelwrightError(f"{path}: over {LARGEST >> 30} GiB; this is no tokenizer")
        content = path.read_bytes()
        try:
            Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises plain Exception
            line = " ".join(str(error).split())[:100]
            raise CorruptError(
                f"{path}: no tokenizer of the tokenizers library ({line}); get the file again"
            ) from error
        return content
    config = folder / "tokenizer_config.json"
    settings = read_json(config) if config.is_file() else {}
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        made = _byte_level(folder, settings)
    elif (folder / "vocab.txt").is_file():
        made = _word_pieces(folder, settings)
    elif pieces := next((folder / n for n in sentencepieces.FILES if (folder / n).is_file()), None):
        made = sentencepieces.converted(pieces, settings, model_type)
    else:
        raise ModelwrightError(
            f"{folder}: no tokenizer.json, vocab.json with merges.txt, vocab.txt, or sentencepiece "
            f"model ({', '.join(sentencepieces.FILES)}); add the tokenizer that was published with "
            "the model"
        )
    written: str = made.to_str()
    return written.encode()


def _byte_level(folder: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """GPT-2's older files."""
    try:
        vocab, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # the library raises plain Exception
        line = " ".join(str(error).split())[:100]
        raise CorruptError(f"{folder / 'merges.txt'}: damaged ({line}); get it again") from error
    made = Tokenizer(BPE(vocab, merges))
    prefix = bool(settings.get("add_prefix_space", False))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.decoder = decoders.ByteLevel()
    _add_special(made, settings, ("<|endoftext|>",))
    if "<s>" in vocab and "</s>" in vocab:  # RoBERTa's
        last, first = (("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]))
        made.post_processor = processors.RobertaProcessing(last, first, add_prefix_space=prefix)
    return made


def _word_pieces(folder: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """BERT's older file."""
    path = folder / "vocab.txt"
    try:
        made = Tokenizer(WordPiece(WordPiece.read_file(str(path)), unk_token="[UNK]"))  # noqa: S106
    except Exception as error:  # the library raises plain Exception
        line = " ".join(str(error).split())[:100]
        raise CorruptError(f"{path}: damaged ({line}); get it again") from error
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
        lowercase=bool(settings.get("do_lower_case", True)),
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##")
    _add_special(made, settings, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    pair = [(t, made.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    if None not in (pair[0][1], pair[1][1]):
        made.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=pair,
        )
    return made


def _add_special(made: Tokenizer, settings: Mapping[str, Any], usual: Iterable[str]) -> None:
    """Mark as special the tokens of the vocabulary that are; none is added to it."""
    known = [*usual, *_named(settings).values()]
    there = [t for t in dict.fromkeys(known) if made.token_to_id(t) is not None]
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in there])


def _named(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, ... as texts."""
    found = {}
    for name in (*TOKENS, "mask_token"):
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[name] = token
    return found


def _ends(
    published: Published,
    settings: Mapping[str, Mapping[str, Any]],
    tokens: Mapping[str, str],
    numbers: Mapping[str, int],
) -> list[int]:
    """The ids that end a text, the tokenizer's own first; the others also end an answer."""
    named = [numbers.get(tokens[n]) for n in ("eos_token", "sep_token") if n in tokens][:1]
    for source in (settings.get("generation_config.json", {}), published.config):
        eos = source.get("eos_token_id")
        named += eos if isinstance(eos, list) else [eos]
    named += [numbers.get(t) for t in (END, "<|endoftext|>", "</s>", "<eos>", "[SEP]")] * (
        not any(n is not None for n in named)
    )
    return list(dict.fromkeys(n for n in named if isinstance(n, int)))


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own, or in ``tokenizer_config.json``."""
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # several by name
        found = {t.get("name"): t.get("template") for t in found}.get("default")
    return found if isinstance(found, str) else None
