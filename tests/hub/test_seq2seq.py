"""T5, BART, mBART and Marian are those of transformers: logits, gradients, greedy writing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modelwright.errors import ModelwrightError
from modelwright.hub import bart, t5
from tests.hub import oracle_text as oracle

transformers = pytest.importorskip("transformers")

T5: dict[str, Any] = {
    "vocab_size": 260,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
BART: dict[str, Any] = {
    "vocab_size": 260,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 200,
    "decoder_start_token_id": 2,
    "pad_token_id": 1,
    "eos_token_id": 3,
    "forced_eos_token_id": None,
}
UNEVEN = {
    "encoder_layers": 1,
    "decoder_layers": 3,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 40,
    "activation_function": "silu",
}
CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "t5": (t5, "T5ForConditionalGeneration", T5),
    "t5-v1.1": (
        t5,
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "d_kv": 12},
    ),
    "t5-uneven": (
        t5,
        "T5ForConditionalGeneration",
        {
            **T5,
            "num_layers": 1,
            "num_decoder_layers": 3,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20,
        },
    ),
    "bart": (bart, "BartForConditionalGeneration", BART),
    "bart-scaled": (bart, "BartForConditionalGeneration", {**BART, "scale_embedding": True}),
    "bart-uneven": (bart, "BartForConditionalGeneration", {**BART, **UNEVEN}),
    "mbart": (bart, "MBartForConditionalGeneration", BART),
    "marian": (bart, "MarianMTModel", BART),
    "marian-scaled": (bart, "MarianMTModel", {**BART, "scale_embedding": True, "d_model": 48}),
    "marian-uneven": (bart, "MarianMTModel", {**BART, **UNEVEN}),
}
every_case = pytest.mark.parametrize("case", CASES)


def published(case: str, *, by: float = 0.0) -> tuple[Any, Any]:
    family, name, fields = CASES[case]
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    made = kind(kind.config_class(**fields))
    theirs = oracle.lively(made, by) if by else oracle.stirred(made)
    if hasattr(theirs, "final_logits_bias"):
        theirs.final_logits_bias.normal_(std=0.1)
    return family, theirs


def pairs(data: Callable[[str], Path], count: int = 4) -> tuple[list[list[int]], list[list[int]]]:
    """German captions and the start of their English ones, of different lengths."""
    folder = data("multi30k")
    sources = oracle.lines(folder, "val.de.gz", count)
    targets = oracle.lines(folder, "val.en.gz", count)
    return sources, [[0, *row[1 : 20 + 7 * i]] for i, row in enumerate(targets)]


@torch.no_grad()
def greedy(model: nn.Module, sources: list[list[int]], start: int, steps: int) -> torch.Tensor:
    tokens, starts = oracle.packed(sources)
    cache = model.new_cache(tokens, steps + 1, starts)
    last = torch.full((len(sources), 1), start)
    found = []
    for _ in range(steps):
        last = model(last, None, cache).argmax(-1)
        found.append(last)
    return torch.cat(found, 1)


@every_case
@torch.no_grad()
def test_both_say_and_write_the_same(
    case: str, data: Callable[[str], Path], tmp_path: Path
) -> None:
    sources, targets = pairs(data)
    # T5 does not scale the products of attention: large matrices make rounding errors grow.
    family, theirs = published(case, by=1.3 if case.startswith("t5") else 2.0)
    ours, config, again = oracle.there_and_back(theirs, family, tmp_path)
    given, real = oracle.padded(sources, config.padding)
    before, known = oracle.padded(targets, config.padding)
    tokens, starts = oracle.packed(targets)
    read, source_starts = oracle.packed(sources)
    said = ours(tokens[None], read, starts=starts, source_starts=source_starts)[0]
    assert said.std() > 0.01
    for model in (theirs, again):
        found = model(
            input_ids=given,
            attention_mask=real,
            decoder_input_ids=before,
            decoder_attention_mask=known,
        )
        torch.testing.assert_close(said, found.logits[known.bool()], rtol=0, atol=1e-4)
        written = model.generate(
            given,
            attention_mask=real,
            do_sample=False,
            num_beams=1,
            max_new_tokens=65,  # some force the end as the last token
            min_new_tokens=65,
            eos_token_id=None,
            # Their cache counts the encoder's layers where the decoder's are meant.
            use_cache=case != "t5-uneven",
        )[:, 1:65]
        mine = greedy(ours, sources, config.start, 64)
        assert torch.equal(mine, written)
        assert len(mine.unique()) > 1, "one token over and over proves little"


@every_case
def test_the_gradients_are_the_same(case: str, data: Callable[[str], Path], tmp_path: Path) -> None:
    sources, targets = pairs(data, 3)
    family, theirs = published(case)
    ours, config, _ = oracle.there_and_back(theirs, family, tmp_path)
    given, real = oracle.padded(sources, config.padding)
    before, known = oracle.padded([row[:-1] for row in targets], config.padding)
    after = oracle.padded([row[1:] for row in targets], -100)[0]
    logits = theirs(
        input_ids=given,
        attention_mask=real,
        decoder_input_ids=before,
        decoder_attention_mask=known,
    ).logits
    nn.functional.cross_entropy(logits.flatten(0, 1), after.flatten(), reduction="sum").backward()
    tokens, starts = oracle.packed([row[:-1] for row in targets])
    read, source_starts = oracle.packed(sources)
    ours.recompute = True
    hidden = ours.hidden(tokens[None], read, starts=starts, source_starts=source_starts)[0]
    ours.negative_log_likelihood(hidden, after[after >= 0]).backward()
    slopes = dict(theirs.named_parameters())
    mine = dict(ours.named_parameters())
    for entry in family.layout(config).entries:
        if entry.ours in mine:
            found = slopes[entry.theirs].grad
            torch.testing.assert_close(mine[entry.ours].grad, found, rtol=1e-3, atol=2e-4)


def test_smoothing_is_that_of_the_formula() -> None:
    for family, fields in (("t5", {}), ("bart", {}), ("bart", {"output_bias": False})):
        module = __import__(f"modelwright.models.{family}", fromlist=["Config"])
        torch.manual_seed(0)
        model = module.Config(vocabulary=50, depth=1, width=16, heads=2, **fields).build()
        hidden, targets = torch.randn(7, 16), torch.randint(50, (7,))
        logp = model.head(hidden).log_softmax(-1)
        right = logp.gather(1, targets[:, None]).sum()
        wanted = -(0.9 * right + 0.1 * logp.mean(1).sum())
        torch.testing.assert_close(model.negative_log_likelihood(hidden, targets, 0.1), wanted)


def test_rows_continue_from_where_each_of_them_is(tmp_path: Path) -> None:
    """A prompt padded on the right, then one token a step, is what one pass says."""
    family, theirs = published("t5")
    ours = oracle.there_and_back(theirs, family, tmp_path)[0]
    generator = torch.Generator().manual_seed(3)
    sources = torch.randint(260, (2, 9), generator=generator)
    tokens = torch.randint(260, (2, 8), generator=generator)
    with torch.no_grad():
        whole = ours(tokens, sources)
        cache = ours.new_cache(sources, 8)
        first = ours(tokens[:, :5], None, cache, torch.tensor([5, 3]))
        torch.testing.assert_close(first[0], whole[0, :5], rtol=0, atol=1e-5)
        torch.testing.assert_close(first[1, :3], whole[1, :3], rtol=0, atol=1e-5)
        assert cache.lengths.tolist() == [5, 3]
        assert cache.previous.tolist() == [int(tokens[0, 4]), int(tokens[1, 2])]
        follows = torch.stack((tokens[0, 5], tokens[1, 3]))[:, None]
        one = ours(follows, None, cache)[:, 0]
    torch.testing.assert_close(one, torch.stack((whole[0, 5], whole[1, 3])), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "field", "value"),
    [
        ("t5", "feed_forward_proj", "gated-mish"),
        ("t5", "architectures", ["T5ForTokenClassification"]),
        ("bart", "activation_function", "mish"),
        ("bart", "encoder_layerdrop", 0.1),
        ("marian", "share_encoder_decoder_embeddings", False),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_field(
    case: str, field: str, value: object
) -> None:
    family, name, fields = CASES[case]
    stored = getattr(transformers, name).config_class(**fields).to_dict()
    with pytest.raises(ModelwrightError, match=rf"config\.json: {field} "):
        family.config_from({**stored, field: value})
