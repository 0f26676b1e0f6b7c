"""Whisper and wav2vec 2.0 against transformers: the same numbers on real sound, both ways."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from modelwright.data import sounds, speech
from modelwright.errors import ModelwrightError
from modelwright.hub import wav2vec2, whisper
from modelwright.hub.names import Layout

transformers = pytest.importorskip("transformers", exc_type=ImportError)

NEAR = {"rtol": 0.0, "atol": 1e-4}

WHISPERS = {
    "small": {"d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4},
    "turbo": {"decoder_layers": 1, "encoder_layers": 3, "num_mel_bins": 128},
    "narrow": {"encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_source_positions": 500},
}
WAVS = {
    "group": {},
    "layer": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    "odd": {"num_conv_pos_embeddings": 7, "num_conv_pos_embedding_groups": 4, "conv_bias": True},
    "mixed": {"feat_extract_norm": "layer", "intermediate_size": 48, "layer_norm_eps": 1e-4},
}


@pytest.fixture(scope="module")
def spoken(data: Any) -> list[np.ndarray]:
    """Two digits of different lengths (8 kHz, doubled by interpolation) and 2.5 s of singing."""
    found = []
    with tarfile.open(data("fsdd/recordings.tar.xz")) as archive:
        for member in archive:
            if member.name.endswith(("7_jackson_3.wav", "0_lucas_12.wav")):
                samples, rate = sounds.decode(archive.extractfile(member).read())
                assert rate == 8000
                at = np.arange(2 * len(samples)) / 2
                found.append(np.interp(at, np.arange(len(samples)), samples[:, 0]))
    with tarfile.open(data("kathleen/audio.tar")) as archive:
        member = next(m for m in archive if m.name.endswith((".wav", ".flac", ".mp3", ".ogg")))
        samples, rate = sounds.decode(archive.extractfile(member).read())
        at = np.arange(int(2.5 * 16000)) * rate / 16000
        found.append(np.interp(at, np.arange(len(samples)), samples[:, 0]))
    assert len(found) == 3
    return [np.asarray(x, dtype=np.float32) for x in found]


def filled(model: nn.Module, layout: Layout, folder: Path) -> nn.Module:
    """Our module with the tensors of a folder that transformers saved; strict."""
    stored = load_file(folder / "model.safetensors")
    state = {}
    for entry in layout.entries:
        name = next(n for n in (entry.theirs, *entry.also) if n in stored)
        state[entry.ours] = stored.pop(name)
    assert set(stored) <= {p for p in layout.passed if "*" not in p}
    model.load_state_dict(state, strict=True)
    return model.eval()


def save_ours(model: nn.Module, config: dict[str, Any], layout: Layout, folder: Path) -> None:
    """Our module as a folder that transformers loads."""
    folder.mkdir()
    (folder / "config.json").write_text(transformers.PreTrainedConfig(**config).to_json_string())
    state = model.state_dict()
    assert {e.ours for e in layout.entries} == set(state)
    save_file(
        {e.theirs: state[e.ours].contiguous() for e in layout.entries},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


@torch.no_grad()
def stirred(model: nn.Module) -> nn.Module:
    """Norms and biases off their start, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(3)
    for name, p in model.named_parameters():
        if p.ndim == 1 or "original0" in name:
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.2)
    return model.eval()


def whisper_of(fields: dict[str, Any]) -> Any:
    values = {
        "vocab_size": 320,
        "d_model": 24,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 3,
        "encoder_ffn_dim": 96,
        "decoder_ffn_dim": 96,
        "max_source_positions": 150,
        "max_target_positions": 80,
        "decoder_start_token_id": 300,
        "bos_token_id": 301,
        "eos_token_id": 301,
        "pad_token_id": 301,
        "begin_suppress_tokens": None,
        "init_std": 0.3,
        **fields,
    }
    if values["d_model"] != 24:
        values |= {"encoder_ffn_dim": 4 * values["d_model"]}
        values |= {"decoder_ffn_dim": 4 * values["d_model"]}
    torch.manual_seed(5)
    config = transformers.WhisperConfig(**values)
    return stirred(transformers.WhisperForConditionalGeneration(config))


@pytest.mark.parametrize("name", WHISPERS)
def test_whisper_agrees_both_ways(name: str, spoken: list[np.ndarray], tmp_path: Path) -> None:
    theirs = whisper_of(WHISPERS[name])
    theirs.save_pretrained(tmp_path / "theirs")
    config = whisper.config_from(theirs.config.to_dict())
    layout = whisper.layout(config)
    ours = filled(config.build(), layout, tmp_path / "theirs")

    seconds = config.frames / 50
    mel = torch.stack([_frames(s, config.bands, seconds) for s in spoken])
    # Texts of 9, 5 and 2 tokens: the rest is padding, which no true position may see.
    tokens = torch.randint(0, 299, (3, 9), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = config.start_token
    true = torch.arange(9) < torch.tensor([9, 5, 2])[:, None]
    with torch.no_grad():
        wanted = theirs(
            input_features=mel, decoder_input_ids=tokens, decoder_attention_mask=true.long()
        ).logits
        found = ours(mel, tokens)
        torch.testing.assert_close(found[true], wanted[true], **NEAR)
        assert wanted.std() > 0.1

        # Token by token with a cache gives what the whole text gives.
        cache = ours.new_cache(ours.encoder(mel), 9)
        pieces = [
            ours.head(ours.hidden(part, cache))
            for part in (tokens[:, :4], *tokens[:, 4:].split(1, 1))
        ]
        torch.testing.assert_close(torch.cat(pieces, 1), found, **NEAR)

        save_ours(ours, whisper.config_to(config), layout, tmp_path / "ours")
        back, report = transformers.WhisperForConditionalGeneration.from_pretrained(
            tmp_path / "ours", output_loading_info=True
        )
        assert not report["missing_keys"] and not report["unexpected_keys"]
        again = back.eval()(
            input_features=mel, decoder_input_ids=tokens, decoder_attention_mask=true.long()
        ).logits
        torch.testing.assert_close(again[true], found[true], **NEAR)
    _same_greedy(ours, back, config, mel)


def _frames(samples: np.ndarray, bands: int, seconds: float) -> torch.Tensor:
    return torch.from_numpy(
        speech.whisper_frames(samples, speech.RATE, bands=bands, seconds=seconds)
    )


@torch.no_grad()
def _same_greedy(ours: nn.Module, theirs: Any, config: Any, mel: torch.Tensor) -> None:
    """64 tokens by plain greedy decoding, without the rules that generate() adds for Whisper."""
    start = torch.full((len(mel), 1), config.start_token)
    written = ours.greedy(mel, start, 64)
    read, cache = start, None
    memory = theirs.model.encoder(mel)
    alive = torch.ones(len(mel), dtype=torch.bool)
    for step in range(written.shape[1]):
        answer = theirs(
            encoder_outputs=memory, decoder_input_ids=read, past_key_values=cache, use_cache=True
        )
        cache = answer.past_key_values
        best = answer.logits[:, -1].argmax(-1)
        assert torch.equal(best[alive], written[alive, step])
        alive &= best != config.end_token
        read = best[:, None]
    assert written.shape[1] == 64 or not alive.any()
    assert len(set(written.flatten().tolist())) > 3


@pytest.mark.parametrize("bands", [80, 128])
def test_whisper_frames_are_those_of_the_published_extractor(
    bands: int, spoken: list[np.ndarray]
) -> None:
    extractor = transformers.WhisperFeatureExtractor(feature_size=bands)
    wanted = extractor(spoken, sampling_rate=16000, return_tensors="np").input_features
    for samples, frames in zip(spoken, wanted, strict=True):
        found = speech.whisper_frames(samples, 16000, bands=bands)
        assert found.shape == (bands, 3000) and found.dtype == np.float32
        np.testing.assert_allclose(found, frames, rtol=0, atol=1e-4)


def test_standardised_samples_are_those_of_the_published_extractor(
    spoken: list[np.ndarray],
) -> None:
    wanted = transformers.Wav2Vec2FeatureExtractor()(spoken, sampling_rate=16000).input_values
    for samples, expected in zip(spoken, wanted, strict=True):
        np.testing.assert_allclose(speech.standardised(samples, 16000), expected, atol=1e-5)


def wav_of(fields: dict[str, Any]) -> Any:
    values = {
        "vocab_size": 30,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "conv_dim": [16] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "initializer_range": 0.2,
        **fields,
    }
    torch.manual_seed(6)
    return stirred(transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**values)))


@pytest.mark.parametrize("name", WAVS)
def test_wav2vec2_agrees_both_ways(name: str, spoken: list[np.ndarray], tmp_path: Path) -> None:
    theirs = wav_of(WAVS[name])
    theirs.save_pretrained(tmp_path / "theirs")
    config = wav2vec2.config_from(theirs.config.to_dict())
    layout = wav2vec2.layout(config)
    ours = filled(config.build(), layout, tmp_path / "theirs")

    lengths = torch.tensor([len(s) for s in spoken])
    samples = torch.zeros(3, int(lengths.max()))
    for row, sound in zip(samples, spoken, strict=True):
        row[: len(sound)] = torch.from_numpy(speech.standardised(sound, 16000))
    mask = (torch.arange(samples.shape[1]) < lengths[:, None]).long()
    counts = ours.frame_counts(lengths)
    assert counts.tolist() == [config.frames(int(n)) for n in lengths]
    with torch.no_grad():
        wanted = theirs(samples, attention_mask=mask).logits
        found = ours(samples, lengths)
        true = torch.arange(found.shape[1]) < counts[:, None]
        torch.testing.assert_close(found[true], wanted[true], **NEAR)
        torch.testing.assert_close(ours(samples), theirs(samples).logits, **NEAR)
        assert wanted.std() > 0.1
        if config.norm == "layer":  # then nothing of the padding is seen
            alone = ours(samples[:1, : lengths[0]])
            torch.testing.assert_close(found[:1, : counts[0]], alone, **NEAR)

        save_ours(ours, wav2vec2.config_to(config), layout, tmp_path / "ours")
        back, report = transformers.Wav2Vec2ForCTC.from_pretrained(
            tmp_path / "ours", output_loading_info=True
        )
        assert not report["missing_keys"] and not report["unexpected_keys"]
        again = back.eval()(samples, attention_mask=mask).logits
        torch.testing.assert_close(again[true], found[true], **NEAR)


def test_the_weight_norm_is_read_by_its_older_names_too(tmp_path: Path) -> None:
    theirs = wav_of({})
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    old = {"parametrizations.weight.original0": "weight_g"}
    old |= {"parametrizations.weight.original1": "weight_v"}
    stored = load_file(path)
    for name in list(stored):
        for new, former in old.items():
            if name.endswith(new):
                stored[name.removesuffix(new) + former] = stored.pop(name)
    assert any(name.endswith("weight_g") for name in stored)
    save_file(stored, path)
    config = wav2vec2.config_from(theirs.config.to_dict())
    ours = filled(config.build(), wav2vec2.layout(config), tmp_path)
    samples = torch.randn(1, 4000, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(ours(samples), theirs(samples).logits, **NEAR)


@pytest.mark.parametrize(
    ("room", "field", "value"),
    [
        (whisper, "activation_function", "relu"),
        (whisper, "decoder_attention_heads", 2),
        (whisper, "tie_word_embeddings", False),
        (wav2vec2, "hidden_act", "relu"),
        (wav2vec2, "add_adapter", True),
        (wav2vec2, "vocab_size", None),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_field(room: Any, field: str, value: Any) -> None:
    with pytest.raises(ModelwrightError, match=f"config.json: .*{field}"):
        room.config_from({field: value})


def test_published_sizes_have_the_published_numbers_of_parameters() -> None:
    counted = {
        "whisper-tiny": 37_760_640,
        "whisper-base": 72_593_920,
        "whisper-small": 241_734_912,
        "whisper-medium": 763_857_920,
        "whisper-large": 1_543_304_960,
        "whisper-large-v3": 1_543_490_560,
        "whisper-large-v3-turbo": 808_878_080,
    }
    for name, wanted in counted.items():
        with torch.device("meta"):
            model = whisper.Config(**whisper.Config.sizes[name]).build()
        held = [*model.parameters(), *model.buffers()]  # positions are fixed, yet published
        assert sum(t.numel() for t in held) == wanted, name
    with torch.device("meta"):
        large = wav2vec2.Config(**wav2vec2.Config.sizes["wav2vec2-large-lv60"]).build()
        base = wav2vec2.Config().build()
    # Theirs have one vector more, of masked frames.
    assert sum(p.numel() for p in base.parameters()) == 94_396_320 - 768
    assert sum(p.numel() for p in large.parameters()) == 315_471_520 - 1024


def test_sound_that_cannot_be_read_is_refused() -> None:
    config = whisper.Config(**whisper.Config.specimen)
    with pytest.raises(ModelwrightError, match="pads with silence"):
        config.build()(torch.zeros(1, 8, 11), torch.zeros(1, 1, dtype=torch.long))
    with pytest.raises(ModelwrightError, match=r"17 tokens .* model\.context=16"):
        config.build()(torch.zeros(1, 8, 12), torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(ModelwrightError, match="8000 samples a second"):
        speech.whisper_frames(np.zeros(100, np.float32), 8000)
    with pytest.raises(ModelwrightError, match="mono"):
        speech.standardised(np.zeros((100, 2), np.float32), 16000)
    small = wav2vec2.Config(**wav2vec2.Config.specimen).build()
    with pytest.raises(ModelwrightError, match="too few for one frame"):
        small(torch.zeros(1, 20))
