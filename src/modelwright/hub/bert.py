"""Published checkpoints of BERT, RoBERTa and DistilBERT, all of them ``models/bert.py``.

Which of the three a config of ours is written as follows from its shape: DistilBERT knows no
token types, RoBERTa counts positions from a later row than 0, BERT is the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.models.bert import Config
from modelwright.models.model import ModelConfig

model_types = ("bert", "roberta", "distilbert")
_CLASSES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}
_TASKS = {
    "ForMaskedLM": "masked_language",
    "ForPreTraining": "masked_language",
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "span",
    "Model": "none",
}
architectures = tuple(
    f"{name}{task}"
    for name in _CLASSES.values()
    for task in _TASKS
    if (name, task) not in (("Roberta", "ForPreTraining"), ("DistilBert", "ForPreTraining"))
)
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json; refuses by field what it cannot honour."""
    kind = str(stored.get("model_type"))
    for field, only in (
        ("is_decoder", False),
        ("add_cross_attention", False),
        ("position_embedding_type", "absolute"),
    ):
        if stored.get(field, only) != only:
            raise _refused(field, stored[field], f"only {only!r} is known here")
    small = kind == "distilbert"
    act = str(stored.get("activation" if small else "hidden_act", "gelu"))
    if act not in _ACTIVATIONS:
        field = "activation" if small else "hidden_act"
        raise _refused(field, act, f"known: {', '.join(_ACTIVATIONS)}")
    head = _head(stored, _CLASSES[kind])
    if kind == "roberta" and head == "masked_language" and act != "gelu":
        raise _refused("hidden_act", act, "its head for masked tokens is always gelu")
    first = int(stored.get("pad_token_id", 1)) + 1 if kind == "roberta" else 0
    dropout = float(stored.get("dropout" if small else "hidden_dropout_prob", 0.1))
    of_head = stored.get("seq_classif_dropout" if small else "classifier_dropout")
    weights = stored.get("attention_dropout" if small else "attention_probs_dropout_prob", 0.1)
    return Config(
        vocabulary=int(stored["vocab_size"]),
        head=head,
        classes=classes_of(stored),
        depth=int(stored["n_layers" if small else "num_hidden_layers"]),
        width=int(stored["dim" if small else "hidden_size"]),
        heads=int(stored["n_heads" if small else "num_attention_heads"]),
        hidden=int(stored["hidden_dim" if small else "intermediate_size"]),
        context=int(stored["max_position_embeddings"]) - first,
        types=0 if small else int(stored.get("type_vocab_size", 2)),
        first_position=first,
        pooling="relu" if small else "tanh",
        activation=_ACTIVATIONS[act],
        eps=1e-12 if small else float(stored.get("layer_norm_eps", 1e-12)),
        tied=bool(stored.get("tie_word_embeddings", True)),
        dropout=dropout,
        attention_dropout=float(weights),
        head_dropout=dropout if of_head is None else float(of_head),
    )


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config."""
    c = _bert(config)
    kind = _kind(c)
    task = next(t for t, head in _TASKS.items() if head == c.head)
    stored: dict[str, Any] = {
        "architectures": [_CLASSES[kind] + task],
        "model_type": kind,
        "vocab_size": c.vocabulary,
        "max_position_embeddings": c.context + c.first_position,
        "pad_token_id": max(0, c.first_position - 1),
        "tie_word_embeddings": c.tied,
        **labels_to(2 if c.head == "span" else c.classes),
    }
    act = {v: k for k, v in reversed(_ACTIVATIONS.items())}[c.activation]
    if kind == "distilbert":
        return {
            **stored,
            "n_layers": c.depth,
            "dim": c.width,
            "n_heads": c.heads,
            "hidden_dim": c.hidden_width,
            "activation": act,
            "dropout": c.dropout,
            "attention_dropout": c.attention_dropout,
            "seq_classif_dropout": c.head_dropout,
            "sinusoidal_pos_embds": False,
        }
    return {
        **stored,
        "num_hidden_layers": c.depth,
        "hidden_size": c.width,
        "num_attention_heads": c.heads,
        "intermediate_size": c.hidden_width,
        "hidden_act": act,
        "type_vocab_size": c.types,
        "layer_norm_eps": c.eps,
        "hidden_dropout_prob": c.dropout,
        "attention_probs_dropout_prob": c.attention_dropout,
        "classifier_dropout": c.head_dropout,
    }


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies."""
    c = _bert(config)
    kind = _kind(c)
    base = "" if c.head == "none" else f"{kind}."
    table = f"{base}embeddings"
    entries = [
        Entry("embedding.weight", f"{table}.word_embeddings.weight"),
        Entry("position_embedding.weight", f"{table}.position_embeddings.weight"),
        *_both("embedding_norm", f"{table}.LayerNorm"),
    ]
    if c.types:
        entries.append(Entry("type_embedding.weight", f"{table}.token_type_embeddings.weight"))
    names = _SMALL if kind == "distilbert" else _BLOCK
    stack = f"{base}{'transformer' if kind == 'distilbert' else 'encoder'}.layer"
    for i in range(c.depth):
        for ours, theirs in names.items():
            entries += _both(f"blocks.{i}.{ours}", f"{stack}.{i}.{theirs}")
    head = _head_entries(c, kind)
    passed = ["*embeddings.position_ids", "*embeddings.token_type_ids", "cls.seq_relationship.*"]
    if kind != "bert" or c.head != "classification":
        passed.append("*pooler.dense.*")
    if c.head == "masked_language":
        passed += ["cls.predictions.decoder.bias", "lm_head.decoder.bias"]
        passed += [_GUESSING[kind][2 if c.tied else 3]]
    elif c.head == "none":
        passed += ["cls.*", "lm_head.*", "vocab_*", "classifier.*", "pre_classifier.*"]
    heads = ("output.*", "output_bias", "transform.*", "transform_norm.*")
    # BERT's pooler is trained with its next-sentence task, so a new head begins with it.
    kept = ("transform.*",) if kind == "bert" and c.head == "classification" else ()
    return Layout([*entries, *head], passed, ("", f"{kind}."), heads, kept)


_BLOCK = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "feed_norm": "output.LayerNorm",
}
_SMALL = {
    "attention.query": "attention.q_lin",
    "attention.key": "attention.k_lin",
    "attention.value": "attention.v_lin",
    "attention.out": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "feed_forward.up": "ffn.lin1",
    "feed_forward.down": "ffn.lin2",
    "feed_norm": "output_layer_norm",
}
# Transform, its norm, the output's weight and its bias, of the head for masked tokens.
_GUESSING = {
    "bert": (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder.weight",
        "cls.predictions.bias",
    ),
    "roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder.weight", "lm_head.bias"),
    "distilbert": (
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector.weight",
        "vocab_projector.bias",
    ),
}
_CLASSIFYING = {
    "bert": ("bert.pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "classifier"),
}


def _head_entries(c: Config, kind: str) -> list[Entry]:
    if c.head == "classification":
        transform, output = _CLASSIFYING[kind]
        return [*_both("transform", transform), *_both("output", output)]
    if c.head == "masked_language":
        transform, norm, weight, bias = _GUESSING[kind]
        entries = [*_both("transform", transform), *_both("transform_norm", norm)]
        if c.tied:  # the weight is the embedding's, which is stored once
            return [*entries, Entry("output_bias", bias)]
        # The bias beside the decoder's own is the same where tied, else never read.
        own = weight.replace(".weight", ".bias")
        also = () if own == bias else (bias,)
        return [*entries, Entry("output.weight", weight), Entry("output.bias", own, also=also)]
    return {"tokens": _both("output", "classifier"), "span": _both("output", "qa_outputs")}.get(
        c.head, []
    )


def _both(ours: str, theirs: str) -> list[Entry]:
    if not theirs.endswith("LayerNorm"):
        return [Entry(f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias")]
    old = {"weight": "gamma", "bias": "beta"}  # in files that were converted from TensorFlow
    return [
        Entry(f"{ours}.{part}", f"{theirs}.{part}", also=(f"{theirs}.{name}",))
        for part, name in old.items()
    ]


def _bert(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"hub: a {config.family} is not written as a BERT")
    return config


def _kind(c: Config) -> str:
    """Which of the three a config is.

    Raises:
        ModelwrightError: it is none of them.
    """
    kind = "roberta" if c.first_position else "bert" if c.types else "distilbert"
    if c.pooling != ("relu" if kind == "distilbert" else "tanh"):
        raise ModelwrightError(f"model.pooling: no published {kind} has {c.pooling!r}")
    if kind == "distilbert" and c.eps != 1e-12:
        raise ModelwrightError(f"model.eps: {c.eps} is not the 1e-12 of every published distilbert")
    if kind == "roberta" and not c.types:
        raise ModelwrightError("model.types: no published roberta is without token types; give 1")
    return kind


def _head(stored: Mapping[str, Any], name: str) -> str:
    """Our head for the class that their config names."""
    found = [str(a) for a in stored.get("architectures") or [f"{name}Model"]]
    head = _TASKS.get(found[0].removeprefix(name))
    if head is None:
        raise _refused("architectures", found[0], f"known: {', '.join(architectures)}")
    return head


def classes_of(stored: Mapping[str, Any]) -> int:
    """How many labels their config speaks of."""
    return len(stored.get("id2label") or range(int(stored.get("num_labels") or 2)))


def labels_to(classes: int) -> dict[str, Any]:
    """Nameless labels for their config; who knows the names writes them over."""
    names = [f"LABEL_{i}" for i in range(classes)]
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def _refused(field: str, value: object, hint: str) -> ModelwrightError:
    return ModelwrightError(f"config.json: {field} {value!r} is not one that is read here; {hint}")
