"""Published models of speech as a start: heard and spelled as transformers does it, and back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch

from modelwright.data.codecs import load_codec, save_codec
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.hub.files import find
from modelwright.hub.loading import config_of, load
from modelwright.hub.sounds import files_of, speech_codec
from modelwright.objectives import make_objective
from modelwright.types import Example, Sound, Turn, stack, text_turn

transformers = pytest.importorskip("transformers", exc_type=ImportError)

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEGHILNORST'"]
HEARD = Sound(np.sin(np.arange(9600, dtype=np.float32) / 7) / 3, 16_000)


def example(text: str, sound: Sound = HEARD) -> Example:
    given = Turn("user", (sound,))
    return Example((given, text_turn("assistant", text, learn=True)) if text else (given,))


@pytest.fixture
def wav2vec2(tmp_path: Path) -> Path:
    """A tiny wav2vec2 with the files that published ones have."""
    torch.manual_seed(3)
    fields: dict[str, Any] = {
        "vocab_size": len(LETTERS), "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [8, 8],
        "conv_kernel": [10, 3], "conv_stride": [5, 4], "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "pad_token_id": 0,
    }  # fmt: skip
    model = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**fields))
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(LETTERS)}))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"sampling_rate": 16000, "feature_size": 1, "do_normalize": True})
    )
    return tmp_path


def codec_of(folder: Path, kind: str = "speech", **options: Any) -> Any:
    published = find(str(folder))
    return speech_codec(published, config_of(published)[1], kind, [example("a hit")], options)


def test_wav2vec2_is_heard_and_answers_as_in_transformers(wav2vec2: Path) -> None:
    codec = codec_of(wav2vec2)
    columns = stack([codec.encode(example(""))], codec.ragged)
    theirs = transformers.Wav2Vec2FeatureExtractor.from_pretrained(wav2vec2)
    samples = codec.ear.sound(columns["samples"][0]).samples
    meant = theirs(samples, sampling_rate=16000, return_tensors="pt").input_values
    torch.testing.assert_close(codec.tensors(columns)["samples"], meant, rtol=1e-4, atol=1e-4)
    model = load(find(str(wav2vec2)), dtype=torch.float32).model.eval()
    objective = make_objective("ctc", codec, {})
    batch = objective.collate(columns, torch.Generator())
    with torch.no_grad():
        scores = objective.predict(model, batch)  # type: ignore[attr-defined]
        logits = transformers.Wav2Vec2ForCTC.from_pretrained(wav2vec2).eval()(meant).logits
    torch.testing.assert_close(scores, logits.log_softmax(-1), rtol=1e-3, atol=1e-3)
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(wav2vec2 / "vocab.json"))
    (answer,) = codec.decode(scores)
    said = tokenizer.batch_decode(logits.argmax(-1))[0]
    for special in ("<s>", "</s>", "<unk>"):
        said = said.replace(special, "")
    assert answer.text.split() == said.split()


def test_words_lie_in_the_frames_where_transformers_finds_them(wav2vec2: Path) -> None:
    codec = codec_of(wav2vec2)
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(wav2vec2 / "vocab.json"))
    rng = np.random.default_rng(5)
    for _ in range(20):
        logits = torch.from_numpy(rng.normal(0, 3, (1, 60, len(LETTERS)))).float()
        logits[..., 1:4] = -1e3  # special tokens, which are no text
        logits[..., 4] += 3  # spaces
        found = codec.timed(logits.log_softmax(-1), 6.0)
        meant = tokenizer.decode(logits[0].argmax(-1), output_word_offsets=True)
        assert [
            (w["word"], round(10 * w["start"]), round(10 * w["end"]))
            for w in found.details["words"]
        ] == [(w["word"], w["start_offset"], w["end_offset"]) for w in meant.word_offsets]


def test_letters_are_folded_and_strange_ones_are_a_reason(wav2vec2: Path) -> None:
    codec = codec_of(wav2vec2)
    encoded = codec.encode(example("Don't a bee"))
    read = codec.example(encoded).answer.text
    assert read == "DON'T A BEE"
    assert codec.problem(example("quick")) == "transcript has a character that train has not"
    again = load_codec(save_codec(codec))
    assert np.array_equal(again.encode(example("Don't a bee"))["letters"], encoded["letters"])


def test_what_is_written_is_read_again(wav2vec2: Path) -> None:
    codec = codec_of(wav2vec2)
    for name, content in files_of(codec).items():
        (wav2vec2 / name).write_bytes(content)
    again = codec_of(wav2vec2)
    assert again.spelling == codec.spelling
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(wav2vec2)
    assert tokenizer("DON'T A").input_ids == codec.encode(example("don't a"))["letters"].tolist()


def test_a_damaged_vocabulary_is_named(wav2vec2: Path) -> None:
    (wav2vec2 / "vocab.json").write_text('{"A": 99}')
    with pytest.raises(CorruptError, match=r"vocab\.json: 'A' has no number below 20"):
        codec_of(wav2vec2)


def test_the_wrong_kind_of_codec_says_which(wav2vec2: Path) -> None:
    with pytest.raises(ModelwrightError, match="is a wav2vec2, which needs train.task"):
        codec_of(wav2vec2, "windowed_speech")


@pytest.fixture
def whisper(tmp_path: Path) -> Path:
    """A tiny Whisper with a byte-level tokenizer of its own and the published special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(alphabet))}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>"]
    special += ["<|translate|>", "<|notimestamps|>"]
    made.add_special_tokens([AddedToken(t, special=True) for t in special])
    made.save(str(tmp_path / "tokenizer.json"))
    end = made.token_to_id("<|endoftext|>")
    torch.manual_seed(3)
    config = transformers.WhisperConfig(
        vocab_size=made.get_vocab_size(), d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_source_positions=100, max_target_positions=40,
        decoder_start_token_id=end + 1, eos_token_id=end, bos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    transformers.WhisperForConditionalGeneration(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    transformers.WhisperFeatureExtractor(chunk_length=2).save_pretrained(tmp_path)
    return tmp_path


def test_whisper_is_heard_and_prompted_as_in_transformers(whisper: Path) -> None:
    codec = codec_of(whisper, "windowed_speech", language="de")
    assert (codec.spoken_language, codec.times) == ("de", False)
    number = codec.spelling.text.tokenizer.token_to_id
    encoded = codec.encode(example("tea, please"))
    letters = encoded["letters"].tolist()
    assert letters[:3] == [number(t) for t in ("<|de|>", "<|transcribe|>", "<|notimestamps|>")]
    assert codec.example(encoded).answer.text == "tea, please"
    columns = stack([encoded], codec.ragged)
    theirs = transformers.WhisperFeatureExtractor.from_pretrained(whisper)
    samples = codec.ear.sound(encoded["samples"]).samples
    meant = theirs(samples, sampling_rate=16000, return_tensors="pt").input_features
    torch.testing.assert_close(codec.tensors(columns)["mel"], meant, rtol=0, atol=2e-4)
    objective = make_objective("transcription", codec, {"most": 8})
    batch = objective.collate(columns, torch.Generator())
    assert batch.count == len(letters) - 3 + 1  # the end is learned, the prompt is given
    model = load(find(str(whisper)), dtype=torch.float32).model.eval()
    theirs_model = transformers.WhisperForConditionalGeneration.from_pretrained(whisper).eval()
    with torch.no_grad():
        found = model(**batch.inputs)
        logits = theirs_model(meant, decoder_input_ids=batch.inputs["tokens"]).logits
        written = objective.predict(model, batch)  # type: ignore[attr-defined]
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-3)
    assert written.shape[0] == 1
    assert len(codec.decode(written)) == 1
    again = load_codec(save_codec(codec))
    assert (
        again.encode(example("tea"))["letters"].tolist()
        == codec.encode(example("tea"))["letters"].tolist()
    )


def test_an_unknown_language_is_named(whisper: Path) -> None:
    with pytest.raises(ModelwrightError, match="has no language 'xx'"):
        codec_of(whisper, "windowed_speech", language="xx")
