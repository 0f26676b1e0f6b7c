"""The codec of a published model of speech: heard and spelled as its authors had it, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from modelwright.data.codecs import speech, windowed_speech
from modelwright.data.sound_settings import AudioSettings
from modelwright.data.spelling import Pieces, Spelling
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.files import Published
from modelwright.hub.preprocessing import FILE, read_settings
from modelwright.hub.tokenizer import files_of as tokenizer_files
from modelwright.hub.tokenizer import read_codec
from modelwright.models.model import ModelConfig
from modelwright.options import checked
from modelwright.types import Codec, Example

KINDS = (
    "speech",
    "windowed_speech",
)  # codecs, by which families they are for: see ``speech_codec``
DELIMITER = "|"
TASKS = ("transcribe", "translate")


def speech_codec(
    published: Published,
    config: ModelConfig,
    kind: str,
    train: Sequence[Example],
    options: Mapping[str, Any],
) -> Codec:
    """The codec of a task of speech, with the preparation and the letters of a checkpoint.

    Args:
        published: what ``find`` gave.
        config: ours of it.
        kind: "speech" for models of letters frame by frame, "windowed_speech" for those with a
            decoder.
        train: examples of the train split, for a language model of their transcripts.
        options: the recipe's ``codec``.

    Raises:
        ModelwrightError: the model reads no sound, or not as this kind of codec gives it.
        CorruptError: its vocabulary is damaged.
    """
    writes = hasattr(config, "start_token")
    if not writes and not hasattr(config, "conv_kernels"):
        raise ModelwrightError(
            f"model.from: {published.source} is a {config.family}, which reads no sound; choose a"
            " published model of speech, such as a wav2vec2 or a Whisper"
        )
    if writes != (kind == "windowed_speech"):
        meant = (
            "codec: {kind: windowed_speech} and train.objective: transcription"
            if writes
            else "train.task: speech_recognition with its own codec"
        )
        raise ModelwrightError(
            f"model.from: {published.source} is a {config.family}, which needs {meant}"
        )
    found = read_settings(published.folder)
    if found is not None and not isinstance(found, AudioSettings):
        raise ModelwrightError(f"{published.folder / FILE}: is of pictures, and the task of speech")
    if writes:
        return _windowed(published, config, found, options)
    settings = found or AudioSettings(normalise=True)
    if settings.bins:
        raise ModelwrightError(f"{published.folder / FILE}: a {config.family} reads samples alone")
    fixed = ("ear", "spelling", "examples")
    given = checked("codec speech", speech.Codec.around, options, apart=fixed)
    ear = windowed_speech.listening(settings)
    return speech.Codec.around(ear, letters_of(published, config), train, **given)


def _windowed(
    published: Published,
    config: Any,
    found: AudioSettings | None,
    options: Mapping[str, Any],
) -> Codec:
    given = checked("codec windowed_speech", prompted, options, apart=("published", "config"))
    settings = found or AudioSettings(bins=config.bands, seconds=30.0)
    seconds = 2 * config.frames * settings.hop / settings.rate
    if settings.bins != config.bands:
        raise ModelwrightError(
            f"{published.folder / FILE}: {settings.bins} bands, the model reads {config.bands}"
        )
    ear = windowed_speech.listening(dataclasses.replace(settings, seconds=seconds))
    return windowed_speech.Codec(ear, prompted(published, config, **given), config.context)


def letters_of(published: Published, config: Any) -> Spelling:
    """The letters of vocab.json, by number; the blank of CTC is the token for padding.

    Raises:
        CorruptError: there is no vocab.json, or it is not a number for each letter.
    """
    path = published.folder / "vocab.json"
    stored = published.settings("vocab.json")
    settings = published.settings("tokenizer_config.json")
    tokens = [""] * int(config.vocabulary)
    for token, number in stored.items():
        if not isinstance(number, int) or not 0 <= number < len(tokens):
            raise CorruptError(f"{path}: {token!r} has no number below {len(tokens)}; get it again")
        tokens[number] = str(token)
    if not stored:
        raise CorruptError(f"{path}: is missing, so nobody knows the letters; get it again")
    blank = int(published.config.get("pad_token_id") or 0)
    single = [t for t in tokens if len(t) == 1 and t.isalpha()]
    fold: Literal["", "upper", "lower"] = ""
    if single and all(t == t.upper() for t in single):
        fold = "upper"
    elif single and all(t == t.lower() for t in single):
        fold = "lower"
    space = settings.get("word_delimiter_token") or DELIMITER
    space = space.get("content", DELIMITER) if isinstance(space, Mapping) else str(space)
    return Spelling(tuple(tokens), blank=blank, space=space, fold=fold)


def prompted(
    published: Published,
    config: Any,
    *,
    language: str = "en",
    task: Literal["transcribe", "translate"] = "transcribe",
) -> Pieces:
    """The tokenizer of a Whisper, and what its decoder is given before a text.

    Args:
        published: what ``find`` gave.
        config: ours of it.
        language: of the transcripts, as Whisper names it; models of English alone have none.
        task: whether speech is written in its language, or in English.

    Raises:
        ModelwrightError: the model does not know the language.
    """
    text = read_codec(published, config.vocabulary)
    number = text.tokenizer.token_to_id
    asked = number("<|transcribe|>") is not None and number("<|en|>") is not None
    prompt: list[int | None] = []
    if asked:
        if (spoken := number(f"<|{language}|>")) is None:
            raise ModelwrightError(
                f"codec.language: {published.source} has no language {language!r}; give its code,"
                " such as en, de or zh"
            )
        prompt = [spoken, number(f"<|{task}|>")]
    silent = number("<|notimestamps|>")
    prompt += [silent] if silent is not None else []
    known = tuple(p for p in prompt if p is not None)
    return Pieces(text, config.start_token, config.end_token, known)


def files_of(codec: Any) -> dict[str, bytes]:
    """The letters or the tokenizer of a codec of speech as files that ``transformers`` reads.

    None of other codecs, and of alphabets of words, which these files cannot say.
    """
    spelling = getattr(codec, "spelling", None)
    if isinstance(spelling, Pieces):
        return tokenizer_files(spelling.text, None)
    if not isinstance(spelling, Spelling) or spelling.units != "characters":
        return {}
    names = [_stored(spelling, i) for i in range(spelling.vocabulary)]
    config = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "pad_token": names[spelling.blank],
        "word_delimiter_token": DELIMITER,
        "do_lower_case": False,
        "bos_token": None,
        "eos_token": None,
        "unk_token": names[spelling.blank],
    }
    vocabulary = {name: i for i, name in enumerate(names) if name}
    return {"vocab.json": _json(vocabulary), "tokenizer_config.json": _json(config)}


def _stored(spelling: Spelling, number: int) -> str:
    token = spelling.tokens[number]
    if number == spelling.blank:
        return token or "<pad>"
    return DELIMITER if token == spelling.space else token


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False).encode() + b"\n"
