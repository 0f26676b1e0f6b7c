"""The proof of a graph: stored samples, from text or numbers on, through it and the trained model.

The artefact is used as a stranger would: ``preprocessing.json``, ``tokenizer.json`` and the graph
are read from its folder and nothing of this package helps them. The trained model takes its own
way, codec included. Samples go alone, then all as one batch, padded where their lengths differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from modelwright.data.codecs import text_codec
from modelwright.errors import ModelwrightError
from modelwright.exporting.front import FIRST, PREPROCESSING, Graph
from modelwright.exporting.subject import Subject, same_tokens
from modelwright.hub.replay import Replayed, difference, recorded
from modelwright.types import Array, Example, stack

TOLERANCE = 1e-4  # of the largest value of an output: float32 sums in another order
LONGEST = 256  # tokens of a replayed text at most

Raw = Mapping[str, Array]  # the inputs of a graph by name
Answer = Callable[[Raw], Sequence[Array]]  # an artefact: its outputs, in their order
Layers = Callable[[Raw], Mapping[str, Array]]  # what an artefact's layers make, by module


@dataclass(frozen=True)
class Sample:
    """A stored example: its name for messages, how a user gives it, and what is right."""

    name: str
    raw: Raw
    expected: Sequence[Tensor]
    layers: Sequence[tuple[str, Tensor]]


def prove(folder: Path, subject: Subject, graph: Graph, answer: Answer, layers: Layers) -> Replayed:
    """Compare an artefact with the trained model on the stored examples.

    Args:
        folder: of the artefact.
        subject: what was exported.
        graph: of it.
        answer: runs the artefact.
        layers: runs it as well, and gives the outputs of its layers; only asked when it is wrong.

    Raises:
        ModelwrightError: an answer differs; names the sample, and the layer where it begins.
    """
    _same_facts(folder, graph)
    samples = [_sample(folder, subject, graph, i) for i in range(len(subject.examples))]
    outputs, largest = 0, 0.0
    for sample in samples:
        found = _worst(answer(sample.raw), sample.expected)
        if not found <= TOLERANCE:
            raise _wrong(sample.name, _first_layer(sample, layers), found)
        outputs, largest = outputs + len(sample.expected), max(largest, found)
    pad = int(graph.facts.get("text", {}).get("pad", 0))
    together = answer(_batch([s.raw for s in samples], pad))
    for number, sample in enumerate(samples):
        found = _worst(_rows(together, number, sample.expected), sample.expected)
        if not found <= TOLERANCE:
            raise _wrong(f"{sample.name} in a batch with others", "", found)
        outputs, largest = outputs + len(sample.expected), max(largest, found)
    return Replayed(len(samples), outputs, largest, TOLERANCE)


def _same_facts(folder: Path, graph: Graph) -> None:
    """The labels' order and the rest of ``preprocessing.json``."""
    written = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
    meant = json.loads(json.dumps(graph.facts))
    for name in {**meant, **written}:
        if written.get(name) != meant.get(name):
            raise ModelwrightError(
                f"export: {PREPROCESSING} differs from the model in {name!r}; nothing was exported"
            )


def _wrong(name: str, layer: str, found: float) -> ModelwrightError:
    where = f", {layer}" if layer else ""
    return ModelwrightError(
        f"export: the written graph answers differently: {name}{where}: differs by {found:.2g} of "
        f"its largest value, {TOLERANCE:.0e} is allowed; nothing was exported"
    )


def _worst(ours: Sequence[Array], expected: Sequence[Tensor]) -> float:
    if len(ours) != len(expected):
        return float("inf")
    pairs = zip(ours, expected, strict=True)
    found = [difference(torch.from_numpy(np.array(one)), other) for one, other in pairs]
    return float(np.max(found))  # NaN among them is what comes out


def _rows(together: Sequence[Array], number: int, like: Sequence[Tensor]) -> list[Array]:
    """The answers to one sample of a batch, without what stands at its padding."""
    if len(like[0].shape) < 3:  # not for every token
        return [made[number : number + 1] for made in together]
    return [
        made[number : number + 1, : one.shape[1]] for made, one in zip(together, like, strict=False)
    ]


def _first_layer(sample: Sample, layers: Layers) -> str:
    """The first layer of the trained model whose counterpart answers differently."""
    theirs = layers(sample.raw)
    for name, made in sample.layers:
        found = theirs.get(name)
        if found is None or found.shape != tuple(made.shape):
            continue  # run in another way, or several times
        if not difference(torch.from_numpy(np.array(found)), made) <= TOLERANCE:
            return name
    return "output"


def _batch(raws: Sequence[Raw], pad: int) -> Raw:
    """Batches of one as one batch, the shorter ones padded on the right."""
    joined = {}
    for name in raws[0]:
        parts = [raw[name] for raw in raws]
        if parts[0].ndim > 1:
            longest = max(part.shape[1] for part in parts)
            value = pad if name == "input_ids" else 0
            parts = [
                np.pad(
                    part,
                    [(0, 0), (0, longest - part.shape[1]), *[(0, 0)] * (part.ndim - 2)],
                    constant_values=value,
                )
                for part in parts
            ]
        joined[name] = np.concatenate(parts)
    return joined


# Samples ----------------------------------------------------------------------------------------


def _sample(folder: Path, subject: Subject, graph: Graph, number: int) -> Sample:
    example = subject.examples[number]
    name = subject.example_name(number)
    labels: list[str] | None = getattr(subject.codec, "labels", None)
    inputs = _inputs(subject, example, labels)
    made = graph.front.raw(example) if graph.front else _text(folder, subject, example, name)
    raw = {given.name: np.array(made[given.name]) for given in graph.inputs}

    def run(model: nn.Module, _: int) -> Sequence[Tensor]:
        return graph.said(model, inputs)

    found = recorded(subject.model, run, 0)
    count = len(graph.outputs)
    layers = [(k, v) for k, v in inputs.items() if v.is_floating_point()][:1]
    before = [(FIRST, v) for _, v in layers]
    return Sample(name, raw, [t for _, t in found[-count:]], [*before, *found[:-count]])


def _inputs(subject: Subject, example: Example, labels: list[str] | None) -> dict[str, Any]:
    """What the trained model reads of an example, as in training and serving."""
    codec = cast(Any, subject.codec)
    encoded = codec.encode(example)
    if labels is None:  # batches of text cut off or hide tokens to be guessed
        tokens = np.asarray(encoded["tokens"], dtype=np.int64)[: _longest(subject)]
        return {"tokens": torch.from_numpy(tokens)[None]}
    columns = stack([encoded], codec.ragged)
    batch = subject.objective.collate(columns, torch.Generator().manual_seed(0))
    return batch.inputs


def _longest(subject: Subject) -> int:
    return min(LONGEST, int(getattr(subject.config, "context", LONGEST)))


def _text(folder: Path, subject: Subject, example: Example, name: str) -> Raw:
    """The ids of an example's text, by the files of the folder alone.

    Raises:
        ModelwrightError: they are not the trained tokenizer's.
    """
    rule = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))["text"]
    tokenizer = Tokenizer.from_file(str(folder / rule["tokenizer"]))
    codec = cast(Any, subject.codec)
    if text_codec(codec) is not codec:
        ids = token_ids(rule, tokenizer, example.given[-1].text)
        same_tokens(ids, codec.encode(example)["tokens"].tolist(), name)
    elif [turn.role for turn in example.turns] == ["document"]:
        ids = token_ids({**rule, "longest": None}, tokenizer, example.turns[0].text)
        same_tokens(ids, codec.layout(example.turns)[0], name)
        ids = ids[: _longest(subject)]
    else:  # a conversation: its texts, and then the layout of its turns
        bare: dict[str, Any] = {"before": [], "after": [], "longest": None}
        for turn in example.turns:
            same_tokens(token_ids(bare, tokenizer, turn.text), codec.tokens(turn.text), name)
        ids = codec.layout(example.turns)[0][: _longest(subject)]
    array = np.array([ids], dtype=np.int64)
    raw = {"input_ids": array}
    if not hasattr(subject.model, "new_cache"):
        raw["attention_mask"] = np.ones_like(array)
    return raw


def token_ids(rule: Mapping[str, Any], tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text as the ``text`` of ``preprocessing.json`` says."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    if rule["longest"]:
        ids = ids[: max(0, rule["longest"] - len(rule["before"]) - len(rule["after"]))]
    return [*rule["before"], *ids, *rule["after"]]
