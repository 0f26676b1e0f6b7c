"""Models with random weights and tokenizers of real text, as the GGUF tests export them."""

from __future__ import annotations

import gzip
import json

import torch

from modelwright.data.codecs import published_text, text
from modelwright.exporting.subject import Subject
from modelwright.models import decoder, gpt2, llama, mixture
from modelwright.objectives import next_token
from modelwright.types import Columns, Example, Ragged, text_turn

SHAPE = {"vocabulary": 500, "depth": 2, "width": 64, "heads": 4, "context": 192}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content }}"
    "{{ eos_token if m.role == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
PIECES = 1200  # tokens of the tokenizer of sentencepiece's kind
LLAMA = {**SHAPE, "kv_heads": 2, "hidden": 96}
GEMMA = {
    **LLAMA,
    "tied": True,
    "centred": True,
    "scaled_embedding": True,
    "activation": "gelu_tanh",
    "head_width": 32,
}
STRETCHED = {"rope_factor": 4.0, "rope_context": 64, "rope_base": 1e4}
MIXED = {**LLAMA, "experts": 4, "chosen": 2, "expert_hidden": 64}
CONFIGS = {
    "llama": llama.Config(**LLAMA),
    "llama-biased": llama.Config(
        **LLAMA, tied=True, qkv_bias=True, out_bias=True, feed_bias=True, head_width=32
    ),
    "llama-stretched": llama.Config(**LLAMA, **STRETCHED, rope_scaling="llama3"),
    "llama-linear": llama.Config(**LLAMA, rope_scaling="linear", rope_factor=2.0),
    "llama-yarn": llama.Config(**LLAMA, **STRETCHED, rope_scaling="yarn", rope_high=32.0),
    "qwen2": llama.Config(**LLAMA, qkv_bias=True, eps=1e-5),
    "qwen3": llama.Config(**LLAMA, qk_norm=True, head_width=32, rope_base=1e6),
    "gemma": llama.Config(**GEMMA),
    "gemma2": llama.Config(
        **GEMMA, sandwich=True, windows=(16, 0), softcap=30.0, attention_softcap=50.0
    ),
    "gemma3": llama.Config(
        **{**GEMMA, "depth": 6},
        sandwich=True,
        qk_norm=True,
        windows=(16, 16, 16, 16, 16, 0),
        rope_base=1e6,
        rope_local=1e4,
    ),
    "mixtral": mixture.Config(**MIXED),
    "qwen2moe": mixture.Config(**MIXED, shared_hidden=96, normalised=False, qkv_bias=True),
    "qwen3moe": mixture.Config(**MIXED, qk_norm=True),
    "gpt2": gpt2.Config(**SHAPE),
    "gpt2-untied": gpt2.Config(**SHAPE, tied=False, hidden=96),
    "decoder": decoder.Config(**LLAMA, feed_forward="gated", softcap=0.0),
    "decoder-tied": decoder.Config(**LLAMA, feed_forward="gated", softcap=0.0, tied=True),
}


def real_texts(data, language, number):
    """Paragraphs of encyclopedia articles."""
    path = data(f"xquad/xquad.{language}.json.gz")
    articles = json.loads(gzip.decompress(path.read_bytes()))["data"]
    return [p["context"] for a in articles for p in a["paragraphs"]][:number]


def codec_of(texts, split="gpt2"):
    """A tokenizer of ours, trained on these texts."""
    examples = [Example((text_turn("document", t, learn=True),)) for t in texts]
    return text.Codec.fit(examples, vocabulary=SHAPE["vocabulary"], split=split)


def subject_of(config, codec, texts):
    """A model with random weights that are large enough for its answers to differ."""
    torch.manual_seed(0)
    model = config.build().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.randn_like(value) * (0.15 if value.ndim > 1 else 0.1))
            if value.ndim == 1 and "bias" not in name:
                value.add_(0.0 if getattr(config, "centred", False) else 1.0)
    examples = [Example((text_turn("document", t, learn=True),)) for t in texts]
    encoded = [codec.encode(e) for e in examples]
    objective = next_token.Objective(codec)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for one in encoded:
        columns: Columns = {k: Ragged.of([v[: config.context]]) for k, v in one.items()}
        batches.append(objective.collate(columns, generator))
    return Subject(
        model=model,
        config=config,
        codec=codec,
        objective=objective,
        model_type=None,
        examples=tuple(examples),
        batches=tuple(batches),
        part="train/test",
    )


def pieces_codec(texts, *, prefix, lost=False):
    """A published tokenizer of sentencepiece's kind with byte fallback, as Llama 2 has it."""
    import io

    import sentencepiece

    stored = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for t in texts for line in t.split("\n")),
        model_writer=stored,
        model_type="bpe",
        vocab_size=PIECES,
        hard_vocab_limit=False,
        character_coverage=0.98,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=stored.getvalue())
    vocab = {model.id_to_piece(i): i for i in range(min(model.vocab_size(), PIECES))}
    ranks = {p: model.get_score(i) for p, i in vocab.items() if i > 258}
    merges = [
        (-score, piece[:i], piece[i:])
        for piece, score in ranks.items()
        for i in range(1, len(piece))
        if piece[:i] in ranks and piece[i:] in ranks
    ]
    merges.sort(key=lambda m: m[0])
    if lost:
        del merges[0]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    steps = [{"type": "Prepend", "prepend": "\u2581"}, replace] if prefix else [replace]
    flags = {"special": True, "normalized": False, "lstrip": False, "rstrip": False}
    one = {"id": "<s>", "type_id": 0}
    document = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": t, "single_word": False, **flags}
            for i, t in enumerate(("<unk>", "<s>", "</s>"))
        ],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": one}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteFallback"},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [[a, b] for _, a, b in merges],
        },
    }
    facts = {
        "vocabulary": PIECES,
        "ends": [2],
        "template": TEMPLATE,
        "tokens": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "settings": {},
    }
    return published_text.Codec(json.dumps(document).encode(), facts)
