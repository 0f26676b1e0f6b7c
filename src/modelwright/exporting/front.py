"""The graph of an artefact: from raw numbers or tokens to logits, preprocessing included.

The numeric part of a codec (``codec.front()``, see ``types.Front``) becomes part of the graph, so
that it cannot be left out or done otherwise. A text's way to token ids is no graph; it lies beside
it as ``tokenizer.json``, and ``preprocessing.json`` says what to do with the ids.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError

from modelwright.data.codecs import text_codec
from modelwright.errors import ModelwrightError
from modelwright.exporting import pictures
from modelwright.exporting.scanned import Scanned
from modelwright.exporting.subject import Options, Subject
from modelwright.extensions import own_name, short
from modelwright.files import write_file
from modelwright.hub.tokenizer import files_of
from modelwright.kernels.attention import Grid
from modelwright.models.rnn import Recurrent, Stacked
from modelwright.types import Front, RawInput
from modelwright.version import __version__

PREPROCESSING = "preprocessing.json"
FIRST = "preprocessing"  # in messages: what comes before the first layer
Said = Callable[[nn.Module, Mapping[str, Any]], Sequence[Tensor]]
Shares = Callable[[Tensor], Tensor]  # a codec's: logits (B, outputs) to probabilities (B, labels)
LABEL_SHOWN = 'print(facts["labels"][probabilities[0].argmax()])'
NEXT_SHOWN = "print(tokenizer.decode([logits[0, -1].argmax()]))  # what follows"
EVERY_SHOWN = "print(tokenizer.decode(logits[0].argmax(-1)))  # what stands everywhere"
BATCH, TIME = 3, 5  # of the inputs that a graph is traced with; it takes any


@dataclass(frozen=True)
class Graph:
    """What is traced, and what its users must know.

    Attributes:
        module: raw inputs, in order, to the outputs, in order; the trained model is its ``model``.
        inputs: of the graph.
        outputs: name -> axes.
        front: of the codec; None where text is read.
        facts: the content of ``preprocessing.json``.
        files: to lie beside the graph: name -> content.
        said: the same outputs by the trained model, of its own inputs.
        shown: of its card's script, the line that shows them.
    """

    module: nn.Module
    inputs: tuple[RawInput, ...]
    outputs: Mapping[str, tuple[int | str, ...]]
    front: Front | None
    facts: Mapping[str, Any]
    files: Mapping[str, bytes]
    said: Said
    shown: str

    @property
    def example(self) -> tuple[Tensor, ...]:
        """Inputs to trace with."""
        sizes: dict[int | str, Any] = {"batch": BATCH, "time": TIME}
        return tuple(
            torch.ones([sizes.get(n, n) for n in i.shape], dtype=i.dtype) for i in self.inputs
        )


class Numbers(nn.Module):
    """Raw features to logits and probabilities."""

    def __init__(self, front: Front, model: nn.Module, shares: Shares) -> None:
        super().__init__()
        self.front, self.model, self.shares = cast(nn.Module, front), model, shares

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, outputs) and probabilities (B, labels)."""
        return _answers(self.model(**self.front(features)), self.shares)


class Sequences(nn.Module):
    """Raw frames to logits and probabilities."""

    def __init__(self, front: Front, model: nn.Module, shares: Shares) -> None:
        super().__init__()
        self.front, self.shares = cast(nn.Module, front), shares
        self.model = Scanned(model) if isinstance(model, Recurrent | Stacked) else model

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, outputs) and probabilities (B, labels)."""
        return _answers(self.model(**self.front(frames, lengths)), self.shares)


class Texts(nn.Module):
    """Tokens, padded on the right, to what an encoder's head gives."""

    def __init__(self, model: nn.Module, shares: Shares | None) -> None:
        super().__init__()
        self.model, self.shares = model, shares

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Logits and probabilities of every text, or logits (B, T, vocabulary) of every token."""
        logits = self.model(input_ids, starts=Grid(attention_mask != 0))
        if self.shares is None:
            return (logits.view(*input_ids.shape, -1),)
        return _answers(logits, self.shares)


class Continued(nn.Module):
    """Tokens to the logits of the next one, at every position."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, T, vocabulary)."""
        grid = Grid(torch.ones_like(input_ids, dtype=torch.bool))
        return (self.model(input_ids, starts=grid),)


def graph_of(subject: Subject, options: Options, form: str) -> Graph:
    """The graph of a trained model.

    Args:
        subject: what is exported.
        options: of which these formats have none.
        form: the format's name, for messages.

    Raises:
        ModelwrightError: no graph can be made of this model, or an option is not the format's.
    """
    for name in ("dtype", "quantization"):
        if getattr(options, name):
            flag = {"quantization": "--quantize"}.get(name, f"--{name}")
            raise ModelwrightError(f"{flag}: not for --to {form}, whose weights are float32")
    codec = cast(Any, subject.codec)
    kind, family = short(own_name(type(codec))), short(subject.config.family)
    if hasattr(subject.model, "candidates") and hasattr(codec, "front"):
        return _of_boxes(subject, codec.front())
    if hasattr(subject.objective, "velocity"):
        return _of_flow(subject)
    if hasattr(subject.objective, "predict"):
        raise ModelwrightError(
            f"--to {form}: the objective of this {family} asks it in a way of its own, which no"
            " graph here holds; use --to hub"
        )
    if hasattr(codec, "front") and hasattr(codec, "probabilities"):
        return _of_numbers(subject, codec.front())
    inner = text_codec(codec)
    texts = inner is codec or (inner is not None and hasattr(codec, "probabilities"))
    if not texts or hasattr(subject.model, "encode"):  # of an encoder and a decoder
        raise ModelwrightError(
            f"--to {form}: a {family} that reads what the {kind} codec makes has no graph"
            " here; use --to hub"
        )
    return _of_text(subject)


def _of_numbers(subject: Subject, front: Front) -> Graph:
    codec = cast(Any, subject.codec)
    wrapper = Numbers if len(front.reads) == 1 else Sequences
    facts = {"labels": codec.labels, **front.facts}
    module = wrapper(front, subject.model, codec.probabilities)
    said = _labelled(codec.probabilities)
    return _graph(module, front.reads, facts, said=said, shown=LABEL_SHOWN, front=front)


def _of_boxes(subject: Subject, front: Front) -> Graph:
    outputs, rule = pictures.of_boxes(subject)
    facts = {"labels": cast(Any, subject.codec).labels, **front.facts, **rule}
    module = pictures.Boxes(front, subject.model)
    return _graph(
        module,
        front.reads,
        facts,
        said=pictures.candidates,
        shown=pictures.BOXES_SHOWN,
        front=front,
        outputs=outputs,
    )


def _of_flow(subject: Subject) -> Graph:
    front = pictures.Noised(subject)
    module = pictures.Flow(subject.model)
    facts = {"labels": cast(Any, subject.codec).labels, **front.facts}

    def said(model: nn.Module, inputs: Mapping[str, Any]) -> Sequence[Tensor]:
        return [model(**inputs).float()]

    return _graph(
        module,
        front.reads,
        facts,
        said=said,
        shown=pictures.VELOCITY_SHOWN,
        front=cast(Front, front),
        outputs={"velocity": front.reads[0].shape},
    )


def _labelled(shares: Shares) -> Said:
    """Logits and probabilities."""

    def said(model: nn.Module, inputs: Mapping[str, Any]) -> Sequence[Tensor]:
        logits = model(**inputs)
        return [logits, shares(logits)]

    return said


def _of_every_token(model: nn.Module, inputs: Mapping[str, Any]) -> Sequence[Tensor]:
    logits = model(**inputs)
    return [logits.view(1, -1, logits.shape[-1])]


def _of_text(subject: Subject) -> Graph:
    codec = cast(Any, subject.codec)
    labels: list[str] | None = getattr(codec, "labels", None)
    inner = text_codec(codec)
    longest = getattr(codec, "longest", None) or getattr(subject.config, "context", None)
    rule: dict[str, Any] = {"tokenizer": "tokenizer.json", "longest": longest, "pad": inner.end}
    before, after = list(inner.before), list(inner.after)
    framed = labels is not None and after  # elsewhere the end token alone, as in training
    rule |= {"before": before, "after": after if framed else [inner.end]}
    if hasattr(inner, "role"):
        rule["roles"] = inner.role
    most = f", at most {longest}" if longest else ""
    about = f"token ids{most}, padded on the right"
    ids = RawInput("input_ids", torch.int64, ("batch", "time"), about)
    kept = RawInput("attention_mask", torch.int64, ("batch", "time"), "1 for a token, 0 beyond")
    facts = {"labels": labels or [], "text": rule}
    files = files_of(codec, longest)
    if hasattr(subject.model, "new_cache"):
        module: nn.Module = Continued(subject.model)
        said: Said = _of_every_token
        return _graph(module, (ids,), facts, said=said, shown=NEXT_SHOWN, files=files)
    shares = codec.probabilities if labels is not None else None
    said = _of_every_token if shares is None else _labelled(shares)
    shown = LABEL_SHOWN if labels else EVERY_SHOWN
    module = Texts(subject.model, shares)
    return _graph(module, (ids, kept), facts, said=said, shown=shown, files=files)


def _graph(
    module: nn.Module,
    inputs: tuple[RawInput, ...],
    facts: Mapping[str, Any],
    *,
    said: Said,
    shown: str,
    files: Mapping[str, bytes] | None = None,
    front: Front | None = None,
    outputs: Mapping[str, tuple[int | str, ...]] | None = None,
) -> Graph:
    labels = facts["labels"]
    if outputs is None and labels:
        outputs = {"logits": ("batch", "outputs"), "probabilities": ("batch", len(labels))}
    elif outputs is None:
        outputs = {"logits": ("batch", "time", "vocabulary")}
    named = [
        {
            "name": i.name,
            "dtype": str(i.dtype).removeprefix("torch."),
            "shape": list(i.shape),
            "about": i.about,
        }
        for i in inputs
    ]
    written = {
        "modelwright": __version__,
        "inputs": named,
        "outputs": [{"name": n, "dtype": "float32", "shape": list(s)} for n, s in outputs.items()],
        **facts,
    }
    return Graph(module.eval(), inputs, outputs, front, written, files or {}, said, shown)


def _answers(logits: Tensor, shares: Shares) -> tuple[Tensor, Tensor]:
    return logits.float(), shares(logits)


def traced(graph: Graph) -> torch.export.ExportedProgram:
    """The graph as PyTorch's exporter records it, for batches and lengths of any size."""
    axes = {name: torch.export.Dim(name) for name in ("batch", "time")}
    shapes = tuple(
        {at: axes[str(n)] for at, n in enumerate(i.shape) if n in axes} for i in graph.inputs
    )
    try:
        with torch.no_grad(), exporter_noise():
            program = torch.export.export(
                graph.module, graph.example, dynamic_shapes=shapes, strict=False
            )
    except UserError as error:
        line = " ".join(str(error).split())[:120]
        raise ModelwrightError(
            f"export: PyTorch's exporter finds no graph for inputs of any length ({line}); such"
            " models are served here, by `modelwright serve`"
        ) from error
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # paths of this machine are nobody's business
    return program


@contextmanager
def exporter_noise() -> Iterator[None]:
    """PyTorch's exporter warns of its own deprecated calls; those alone are not repeated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*LeafSpec.*", FutureWarning)
        yield


def layer_name(module: str) -> str:
    """A module of the graph by its name in the trained model, or "preprocessing"."""
    if module == "front":
        return FIRST
    return module.removeprefix("model.").removeprefix("trained.")


def write_beside(folder: Path, graph: Graph) -> None:
    """Write ``preprocessing.json`` and the files of a tokenizer."""
    facts = json.dumps(graph.facts, indent=2, ensure_ascii=False) + "\n"
    write_file(folder / PREPROCESSING, [facts.encode()])
    for name, content in graph.files.items():
        write_file(folder / name, [content])
