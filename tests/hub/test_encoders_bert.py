"""BERT, RoBERTa and DistilBERT are those of transformers, both ways, on real text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from modelwright.errors import ModelwrightError
from modelwright.hub import bert as family
from modelwright.models.bert import Config
from tests.hub import oracle_text as oracle

transformers = pytest.importorskip("transformers")

BERT = {"vocab_size": 260, "max_position_embeddings": 160, "num_hidden_layers": 2, "num_labels": 3}
SHAPES: dict[str, dict[str, Any]] = {
    "narrow": {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
    "wide": {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 64},
    "other": {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "layer_norm_eps": 1e-5,
        "type_vocab_size": 1,
        "hidden_act": "gelu_new",
    },
}
SMALL = {"hidden_size": "dim", "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim"}
SMALL |= {"num_hidden_layers": "n_layers", "hidden_act": "activation"}
HEADS = {
    "ForMaskedLM": "masked_language",
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "span",
    "Model": "none",
}


def published(kind: str, shape: str, head: str) -> Any:
    fields = {**BERT, **SHAPES[shape]}
    if kind == "Roberta":
        fields |= {"max_position_embeddings": 162, "pad_token_id": 1}
        if head == "ForMaskedLM":
            fields |= {"hidden_act": "gelu"}
    if head == "ForQuestionAnswering":
        fields["num_labels"] = 2
    if kind == "DistilBert":
        known = {SMALL.get(k, k): v for k, v in fields.items()}
        fields = {k: v for k, v in known.items() if k not in ("layer_norm_eps", "type_vocab_size")}
    config = getattr(transformers, f"{kind}Config")(**fields)
    torch.manual_seed(0)
    return oracle.stirred(getattr(transformers, kind + head)(config))


def answers(theirs: Any, rows: list[list[int]], types: bool) -> torch.Tensor:
    """What theirs says of a padded batch, the padding taken away."""
    filler = theirs.config.pad_token_id
    tokens, real = oracle.padded(rows, filler)
    given = {"input_ids": tokens, "attention_mask": real}
    if types:
        given["token_type_ids"] = (tokens % 2).long()
    found = theirs(**given)
    if hasattr(found, "start_logits"):
        return torch.stack((found.start_logits, found.end_logits), -1)[real.bool()]
    logits = found.logits if hasattr(found, "logits") else found.last_hidden_state
    return logits if logits.ndim == 2 else logits[real.bool()]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_both_say_the_same(
    kind: str, shape: str, head: str, data: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = oracle.lines(data("multi30k"), "val.en.gz", 5)
    theirs = published(kind, shape, head)
    ours, config, again = oracle.there_and_back(theirs, family, tmp_path)
    assert config.head == HEADS[head]
    tokens, starts = oracle.packed(rows)
    types = kind == "Bert" and shape != "other"
    said = ours(tokens, starts, tokens % 2 if types else None)
    torch.testing.assert_close(said, answers(theirs, rows, types), rtol=0, atol=1e-4)
    torch.testing.assert_close(said, answers(again, rows, types), rtol=0, atol=1e-4)
    assert said.std() > 0.01


def test_twenty_steps_cost_the_same(data: Callable[[str], Path], tmp_path: Path) -> None:
    """AdamW on masked text: the same losses, step by step, theirs padded and ours packed."""
    rows = oracle.lines(data("multi30k"), "val.en.gz", 6)
    theirs = published("Bert", "narrow", "ForMaskedLM")
    ours = oracle.there_and_back(theirs, family, tmp_path)[0]
    tokens, starts = oracle.packed(rows)
    filled, real = oracle.padded(rows, 0)
    chosen = torch.arange(len(tokens)) % 7 == 3
    masked = tokens.masked_fill(chosen, 1)
    theirs_masked = filled.masked_scatter(real.bool(), masked)
    labels = torch.full_like(filled, -100)
    labels[real.bool()] = tokens.where(chosen, -100)
    models = [ours, theirs]
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=0.01) for m in models]
    costs: list[list[float]] = [[], []]
    for _ in range(20):
        hidden = ours.hidden(masked, starts)[chosen]
        mean = ours.negative_log_likelihood(hidden, tokens[chosen]) / int(chosen.sum())
        found = theirs(input_ids=theirs_masked, attention_mask=real, labels=labels)
        for loss, optimizer, kept in zip((mean, found.loss), optimizers, costs, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            kept.append(float(loss.detach()))
    torch.testing.assert_close(torch.tensor(costs[0]), torch.tensor(costs[1]), rtol=0, atol=1e-3)
    assert costs[0][-1] < costs[0][0] - 0.5


def test_an_untied_output_is_read_and_written(tmp_path: Path) -> None:
    theirs = transformers.BertForMaskedLM(
        transformers.BertConfig(**{**BERT, **SHAPES["narrow"]}, tie_word_embeddings=False)
    )
    theirs = oracle.stirred(theirs)
    ours, config, again = oracle.there_and_back(theirs, family, tmp_path)
    assert not config.tied
    tokens = torch.arange(12).view(2, 6)
    with torch.no_grad():
        for model in (theirs, again):
            torch.testing.assert_close(ours(tokens), model(tokens).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("is_decoder", True),
        ("hidden_act", "mish"),
        ("position_embedding_type", "relative_key"),
        ("architectures", ["BertForMultipleChoice"]),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_field(field: str, value: object) -> None:
    stored = transformers.BertConfig(**BERT, **SHAPES["narrow"]).to_dict()
    with pytest.raises(ModelwrightError, match=rf"config\.json: {field} "):
        family.config_from({**stored, field: value})


def test_a_shape_that_is_none_of_the_published_is_refused() -> None:
    with pytest.raises(ModelwrightError, match=r"model\.pooling"):
        family.config_to(Config(vocabulary=9, depth=1, width=8, heads=1, pooling="relu"))


def test_dropout_of_the_attention_thins_out_in_training_only() -> None:
    torch.manual_seed(0)
    shape = {"vocabulary": 40, "depth": 1, "width": 16, "heads": 2}
    model = Config(**shape, dropout=0, head_dropout=0, attention_dropout=0.5).build()
    tokens = torch.arange(20).view(1, 20)
    torch.manual_seed(1)
    first, second = model(tokens), model(tokens)
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_the_cost_in_chunks_is_the_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large vocabularies are costed piece by piece: the same sum and gradient."""
    torch.manual_seed(0)
    model = Config(vocabulary=50, depth=1, width=16, heads=2, head="masked_language").build()
    hidden, targets = torch.randn(23, 16), torch.randint(50, (23,))
    whole = model.negative_log_likelihood(hidden, targets)
    whole.backward()
    gradient = model.embedding.weight.grad.clone()
    model.zero_grad()
    monkeypatch.setattr("modelwright.models.packed.LOGIT_BYTES", 4 * 50 * 5)
    pieces = model.negative_log_likelihood(hidden, targets)
    pieces.backward()
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(whole, F.cross_entropy(model.head(hidden), targets, reduction="sum"))
    torch.testing.assert_close(model.embedding.weight.grad, gradient)
