"""What the tests of published decoders share: real text, and the two implementations side by side.

Each case is a tiny model of transformers with random weights, saved, read by ours, compared, and
written back for transformers.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.data.codecs.text import Codec
from modelwright.hub.families import writer_of
from modelwright.hub.files import find
from modelwright.hub.loading import Loaded, load
from modelwright.hub.writing import write
from modelwright.types import Example, text_turn

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers
VOCABULARY = 300
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LENGTHS = (40, 5, 23)  # of the documents: longer and shorter than a window of 8
BOUND = 1e-4


@functools.cache
def text(folder: Path) -> tuple[int, ...]:
    """The first tokens of Shakespeare, by our own tokenizer."""
    written = (folder / "input.txt").read_text(encoding="utf-8")[:4000]
    codec = Codec.fit([Example((text_turn("document", written),))], vocabulary=VOCABULARY)
    return tuple(codec.tokens(written))


def documents(folder: Path) -> list[list[int]]:
    """Three documents of real text, of different lengths."""
    tokens, first = text(folder), 0
    found = []
    for length in LENGTHS:
        found.append(list(tokens[first : first + length]))
        first += length
    return found


def published(kind: str, fields: Mapping[str, Any], *, seed: int = 0, tiny: bool = True) -> Any:
    """A model of transformers with random weights large enough to tell tokens apart."""
    import transformers

    name = "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config"
    config = getattr(transformers, name)(**{**(TINY if tiny else {}), **fields})
    config._attn_implementation = "eager"  # the one that has soft caps
    head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    torch.manual_seed(seed)
    model = getattr(transformers, kind + head)(config)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            # With a tied head a large embedding would make every token its own successor.
            alpha = 0.15 if not config.tie_word_embeddings else 0.03 if "embed" in name else 0.3
            p.add_(torch.randn(p.shape, generator=generator), alpha=alpha)
    return model.eval()


def loaded(theirs: Any, folder: Path) -> Loaded:
    """Their model, saved and read by us."""
    theirs.save_pretrained(folder)
    return load(find(str(folder)))


def written(ours: Loaded, kind: type, folder: Path) -> Any:
    """Our model, saved and read by transformers."""
    folder.mkdir()
    write(folder, ours.model, ours.config, writer_of(ours.config))
    again, report = kind.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"], report["missing_keys"]
    assert not report["unexpected_keys"], report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return again.eval()


@torch.no_grad()
def apart(theirs: Any, ours: nn.Module, rows: list[list[int]]) -> float:
    """How far logits are apart at most: ours of packed documents, theirs of each alone."""
    expected = torch.cat([theirs(torch.tensor([row])).logits[0] for row in rows])
    starts = torch.tensor([0, *map(len, rows)]).cumsum(0)
    packed = torch.tensor([[t for row in rows for t in row]])
    return float((ours(packed, starts=starts)[0] - expected).abs().max())


@torch.no_grad()
def greedy(ours: Any, prompt: list[int], count: int = 64) -> list[int]:
    """The likeliest tokens one after another, with the cache."""
    cache = ours.new_cache(1, len(prompt) + count)
    tokens = torch.tensor([prompt])
    found: list[int] = []
    for _ in range(count):
        logits = ours.head(ours.hidden(tokens, cache)[:, -1])
        tokens = logits.argmax(dim=-1, keepdim=True)
        found.append(int(tokens))
    return found


@torch.no_grad()
def their_greedy(theirs: Any, prompt: list[int], count: int = 64) -> list[int]:
    """The same by transformers."""
    settings = theirs.generation_config
    settings.eos_token_id, settings.pad_token_id = None, 0
    tokens = torch.tensor([prompt])
    out = theirs.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=count, do_sample=False
    )
    return out[0, len(prompt) :].tolist()


def check(kind: str, fields: Mapping[str, Any], data: Path, folder: Path, *, tiny: bool) -> None:
    """There and back: logits of packed documents, and 64 greedy tokens."""
    theirs, rows = published(kind, fields, tiny=tiny), documents(data)
    ours = loaded(theirs, folder / "theirs")
    assert not ours.passed
    assert not ours.fresh
    assert apart(theirs, ours.model, rows) <= BOUND
    again = written(ours, type(theirs), folder / "ours")
    assert apart(again, ours.model, rows) <= BOUND
    prompt = rows[2]
    tokens = greedy(ours.model, prompt)
    assert len(set(tokens)) > 1, "one token again and again says little"
    assert tokens == their_greedy(again, prompt)
    assert load(find(str(folder / "ours"))).config == ours.config


def losses(kind: str, fields: Mapping[str, Any], data: Path, folder: Path, *, tiny: bool) -> float:
    """How far the losses of 20 steps of AdamW on one batch are apart at most, ours and theirs."""
    theirs = published(kind, fields, tiny=tiny)
    ours = loaded(theirs, folder).model.train()
    theirs.train()
    tokens = torch.tensor(text(data)[:100]).view(4, 25)
    before, after = tokens[:, :-1], tokens[:, 1:].reshape(-1)

    def of_ours() -> Tensor:
        hidden = ours.hidden(before).flatten(0, 1)  # type: ignore[operator]
        found: Tensor = ours.negative_log_likelihood(hidden, after) / len(after)  # type: ignore[operator]
        return found

    def of_theirs() -> Tensor:
        out = theirs(before)
        loss = nn.functional.cross_entropy(out.logits.flatten(0, 1), after)
        if getattr(theirs.config, "output_router_logits", False):
            loss = loss + theirs.config.router_aux_loss_coef * out.aux_loss
        return loss

    found = []
    for model, loss in ((ours, of_ours), (theirs, of_theirs)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
        seen = []
        for _ in range(20):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            optimizer.step()
            seen.append(float(value.detach()))
        found.append(torch.tensor(seen))
    assert found[0][-1] < found[0][0] - 0.1, "nothing was learned"
    return float((found[0] - found[1]).abs().max())
