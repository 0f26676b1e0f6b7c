"""The tokenizer of a codec as llama.cpp reads it from a file's metadata.

llama.cpp's "gpt2" tokenizer is byte-level BPE. The pattern that cuts words is not stored: a name
stands for one that is compiled in, so only a tokenizer with such a pattern can be exported. It
does not normalise; texts that the tokenizer's NFC would change are split otherwise there. Its
"llama" tokenizer is sentencepiece's: see ``pieces``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

from modelwright.data.codecs import text_codec
from modelwright.data.tokenizing.fast import GPT2, GPT4, QWEN2, pattern_of
from modelwright.errors import ModelwrightError
from modelwright.exporting.gguf import pieces

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # kinds of tokens, of the format
_READ = (NORMAL, USER_DEFINED)
_KEY = "tokenizer.ggml."
TOKENS, KINDS, MERGES = f"{_KEY}tokens", f"{_KEY}token_type", f"{_KEY}merges"
PRE, TEMPLATE = f"{_KEY}pre", "tokenizer.chat_template"
SCORES, PREFIX = f"{_KEY}scores", f"{_KEY}add_space_prefix"
# Their names of the patterns; that of Llama 3 also takes whole words before any merge.
_NAMES = {(GPT2, False): "gpt-2", (GPT4, False): "smaug-bpe", (GPT4, True): "llama-bpe"}
_NAMES |= {(QWEN2, False): "qwen2"}
_PATTERNS = {name: pattern for (pattern, _), name in _NAMES.items()}

Settings = Mapping[str, Any]


def settings_of(codec: Any) -> dict[str, Any]:
    """The metadata of a codec's tokenizer by their names in the file.

    Raises:
        ModelwrightError: llama.cpp has no such tokenizer; says what it has.
    """
    if text_codec(codec) is not codec:
        raise ModelwrightError(
            "export: a gguf file holds a model that writes text; this one reads something else: "
            "export --to hub, onnx or torch-export"
        )
    document = json.loads(codec.tokenizer.to_str())
    model: Mapping[str, Any] = document["model"]
    if model.get("type") != "BPE":
        raise _refused(f"it is {model.get('type')}, not BPE")
    whole = bool(model.get("byte_fallback"))
    tokens, kinds = _tokens(codec, document)
    special = _scored(document, tokens, kinds) if whole else _merged(document)
    return {TOKENS: tokens, KINDS: kinds, **special, **_ends(codec)}


def _tokens(codec: Any, document: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """Every token and its kind, by id."""
    model = document["model"]
    added = {int(t["id"]): t for t in document.get("added_tokens", ())}
    names = {int(i): token for token, i in model["vocab"].items()}
    tokens, kinds = [], []
    for number in range(codec.vocabulary):
        if (token := added.get(number)) is not None:
            tokens.append(str(token["content"]))
            kinds.append(_added(token))
        else:
            tokens.append(names.get(number, f"[PAD{number}]"))
            kinds.append(NORMAL if number in names else UNUSED)
    return tokens, kinds


def _merged(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is particular to a byte-level BPE."""
    model = _byte_level(document)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    if not merges:
        raise _refused("it has no merges")
    return {f"{_KEY}model": "gpt2", PRE: _name(document, model), MERGES: merges}


def _scored(document: Mapping[str, Any], tokens: list[str], kinds: list[int]) -> dict[str, Any]:
    """What is particular to sentencepiece's kind; ``kinds`` are made finer."""
    model = document["model"]
    prefix = pieces.prefix_of(document)
    if isinstance(prefix, str):
        raise _refused(prefix)
    special = {t for t, k in zip(tokens, kinds, strict=True) if k != NORMAL}
    scores = pieces.scores_of(model, special | {str(model.get("unk_token"))})
    if isinstance(scores, str):
        raise _refused(scores)
    unknown = model.get("unk_token")
    for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind == NORMAL or token == unknown:
            kinds[number] = pieces.kind_of(token, unknown)
    found = {
        f"{_KEY}model": "llama",
        PRE: "default",
        SCORES: [scores.get(token, 0.0) for token in tokens],
        PREFIX: prefix,
    }
    if unknown is not None:
        found[f"{_KEY}unknown_token_id"] = tokens.index(unknown)
    return found


def _added(token: Mapping[str, Any]) -> int:
    """The kind of a token that no merge makes."""
    if token["special"]:
        return CONTROL
    if token["lstrip"] or token["rstrip"] or token["single_word"]:
        raise _refused(f"the added token {token['content']!r} takes spaces beside it along")
    return USER_DEFINED


def _ends(codec: Any) -> dict[str, Any]:
    """Where texts begin and end, and how a conversation is written."""
    ends, before, template = codec.ends, codec.before, codec.template
    token = codec.names.get("bos_token")
    number = None if token is None else codec.tokenizer.token_to_id(token)
    first = before[0] if before else codec.end if number is None else int(number)
    if len(before) > 1:
        raise _refused(f"it puts {len(before)} tokens before a text")
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    if len(ends) > len(names):
        raise _refused(f"{len(ends)} tokens end a text, and there is room for {len(names)}")
    found = {f"{_KEY}{name}": end for name, end in zip(names, ends, strict=False)}
    found |= {f"{_KEY}bos_token_id": first, f"{_KEY}padding_token_id": codec.end}
    found |= {f"{_KEY}add_bos_token": bool(before), f"{_KEY}add_eos_token": False}
    return found | ({TEMPLATE: template} if template else {})


def _byte_level(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model of a byte-level BPE without peculiarities."""
    model: Mapping[str, Any] = document["model"]
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise _refused(f"it has {name}")
    normalizer = document.get("normalizer")
    if normalizer is not None and normalizer != {"type": "NFC"}:
        raise _refused(f"it changes texts ({normalizer.get('type')}) before they are split")
    return model


def _name(document: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The name of the pattern that cuts words."""
    pattern = pattern_of(document.get("pre_tokenizer"))
    whole = bool(model.get("ignore_merges"))
    if pattern is None or (pattern, whole) not in _NAMES:
        raise _refused(
            "it cuts words by a pattern of its own, and llama.cpp knows published ones only: train "
            "with codec.split: gpt2, llama3 or qwen2"
        )
    return _NAMES[pattern, whole]


def _refused(why: str) -> ModelwrightError:
    return ModelwrightError(
        f"export: llama.cpp has no tokenizer like this one: {why}; or export --to hub"
    )


# Back ----------------------------------------------------------------------------------------


def check_settings(found: Settings, codec: Any) -> None:
    """Compare the tokenizer of a file with the codec's.

    Raises:
        ModelwrightError: a setting or a token differs; names it.
    """
    meant = settings_of(codec)
    for name in meant | {k: v for k, v in found.items() if k.startswith("tokenizer.")}:
        one, other = found.get(name), meant.get(name)
        where = name
        if one == other:
            continue
        if isinstance(one, list) and isinstance(other, list):
            pairs = zip([*one, None], [*other, None], strict=False)
            at = next(i for i, (a, b) in enumerate(pairs) if a != b)
            one, other = ((v[at] if at < len(v) else None) for v in (one, other))
            where = f"{name}[{at}]"
        raise ModelwrightError(
            f"export: the written tokenizer differs: {where} is {one!r}, {other!r} is meant; "
            "nothing was exported"
        )


def tokenizer_of(found: Settings) -> Tokenizer:
    """The tokenizer that a file's metadata describe; special tokens typed in a text are text."""
    tokens, kinds = found[TOKENS], found[KINDS]
    if SCORES in found:
        return pieces.tokenizer_of(tokens, kinds, found[SCORES], prefix=found[PREFIX])
    vocab = {t: i for i, (t, k) in enumerate(zip(tokens, kinds, strict=True)) if k in _READ}
    merges = [tuple(m.split(" ")) for m in found[MERGES]]
    whole = found[PRE] == _NAMES[GPT4, True]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=whole))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERNS[found[PRE]]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    defined = [t for t, k in zip(tokens, kinds, strict=True) if k == USER_DEFINED]
    made.add_tokens([AddedToken(t, normalized=False) for t in defined])
    return made
