"""ModernBERT is that of transformers, both ways, on real text longer than its window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.hub import modernbert as family
from modelwright.models.packed import attend
from tests.hub import oracle_text as oracle

transformers = pytest.importorskip("transformers")

PLAIN: dict[str, Any] = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "local_attention": 16,
    "num_labels": 3,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "cls_token_id"), 0),
    **dict.fromkeys(("eos_token_id", "sep_token_id"), 1),
}
SHAPES: dict[str, dict[str, Any]] = {
    "narrow": {},
    "biased": {
        "attention_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "classifier_bias": True,
        "classifier_pooling": "mean",
        "num_attention_heads": 4,
        "local_attention": 10,
    },
    "untied": {
        "tie_word_embeddings": False,
        "decoder_bias": False,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 80_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
        },
        "hidden_size": 48,
    },
}
HEADS = {
    "ForMaskedLM": "masked_language",
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "span",
    "Model": "none",
}


def answers(theirs: Any, rows: list[list[int]]) -> torch.Tensor:
    tokens, real = oracle.padded(rows, 0)
    found = theirs(input_ids=tokens, attention_mask=real)
    if hasattr(found, "start_logits"):
        return torch.stack((found.start_logits, found.end_logits), -1)[real.bool()]
    logits = found.logits if hasattr(found, "logits") else found.last_hidden_state
    return logits if logits.ndim == 2 else logits[real.bool()]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_both_say_the_same(
    shape: str, head: str, data: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = oracle.lines(data("multi30k"), "val.en.gz", 4)
    assert min(map(len, rows)) > 17
    rows = [*rows, rows[0][:5]]
    fields = {**PLAIN, **SHAPES[shape]}
    if head == "ForQuestionAnswering":
        fields["num_labels"] = 2
    torch.manual_seed(0)
    kind = getattr(transformers, f"ModernBert{head}")
    theirs = oracle.stirred(kind(transformers.ModernBertConfig(**fields)))
    ours, config, again = oracle.there_and_back(theirs, family, tmp_path)
    assert config.head == HEADS[head]
    said = ours(*oracle.packed(rows))
    torch.testing.assert_close(said, answers(theirs, rows), rtol=0, atol=1e-4)
    torch.testing.assert_close(said, answers(again, rows), rtol=0, atol=1e-4)
    assert said.std() > 0.01


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    window=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_a_window_is_a_band_of_the_whole(lengths: list[int], window: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    starts = torch.tensor([0, *lengths]).cumsum(0)
    q, k, v = torch.randn(3, sum(lengths), 2, 4, generator=generator)
    found = attend(q, k, v, starts, 0.5, window=window)
    for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        numbers = torch.arange(b - a)
        seen = (numbers[:, None] - numbers).abs() <= window
        part = [x[a:b].transpose(0, 1) for x in (q, k, v)]
        plain = F.scaled_dot_product_attention(*part, attn_mask=seen, scale=0.5)
        torch.testing.assert_close(found[a:b], plain.transpose(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layer_types", ["sliding_attention"] * 4),
        ("hidden_activation", "mish"),
        ("mlp_bias", True),
        ("rope_parameters", {k: {"rope_type": "yarn", "rope_theta": 1e4} for k in family._KINDS}),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_field(field: str, value: object) -> None:
    stored = transformers.ModernBertConfig(**PLAIN).to_dict()
    with pytest.raises(ModelwrightError, match=rf"config\.json: {field} "):
        family.config_from({**stored, field: value})


def test_the_old_way_of_writing_is_read() -> None:
    """The published files name bases and layers as version 4 of transformers did."""
    stored = transformers.ModernBertConfig(**PLAIN).to_dict()
    old = {k: v for k, v in stored.items() if k not in ("rope_parameters", "layer_types")}
    old |= {"global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0}
    assert family.config_from({**old, "global_attn_every_n_layers": 3}) == family.config_from(
        {**stored, "architectures": None}
    )
