"""PyTorch's own exported program, ``model.pt2``: the same graph, without this package's code.

``torch.export.load`` reads weights as raw bytes and the graph as JSON, but it also follows entries
that name a pickle, which can run anything. Ours has none, which ``check`` makes sure of before it
loads the file; load only files that you made or trust.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.exporting.front import (
    exporter_noise,
    graph_of,
    layer_name,
    traced,
    write_beside,
)
from modelwright.exporting.samples import Raw, prove
from modelwright.exporting.subject import Options, Subject
from modelwright.exporting.usage import snippet
from modelwright.hub.replay import Replayed
from modelwright.types import Array

LIBRARY = "pytorch"
FILE = "model.pt2"


def write(folder: Path, subject: Subject, options: Options) -> None:
    """Write ``model.pt2``, ``preprocessing.json`` and the files of a tokenizer.

    Raises:
        ModelwrightError: no graph can be made of this model, or an option is not this format's.
    """
    graph = graph_of(subject, options, "torch-export")
    with exporter_noise():
        torch.export.save(traced(graph), folder / FILE)
    write_beside(folder, graph)


def check(folder: Path, subject: Subject, options: Options) -> Replayed:
    """Replay the stored samples through the file, loaded again.

    Raises:
        ModelwrightError: the file holds a pickle, or answers differently.
    """
    path = folder / FILE
    _check_plain(path)
    graph = graph_of(subject, options, "torch-export")
    with exporter_noise():
        module: Any = torch.export.load(path).module()

    def answer(raw: Raw) -> list[Array]:
        with torch.inference_mode():
            made: list[Array] = [t.numpy() for t in module(*_tensors(raw))]
        return made

    return prove(folder, subject, graph, answer, lambda raw: layers(module, raw))


def usage(subject: Subject) -> str:
    """How to run it without this package, for the card."""
    graph = graph_of(subject, Options(), "torch-export")
    return snippet(
        graph,
        install="torch",
        load=f'import torch\n\nmodel = torch.export.load("{FILE}").module()',
        run="model(*(torch.from_numpy(a) for a in {names}.values()))",
        about=(
            f"`{FILE}` was written by PyTorch {torch.__version__.partition('+')[0]}; axes with a "
            "name take any length. PyTorch's loader follows pickles that a `.pt2` may "
            "hold (this one holds none): load only files that you trust."
        ),
    )


def layers(module: Any, raw: Raw) -> Mapping[str, Array]:
    """What the last node of every module makes of some inputs, by the module's name."""
    recorder = _Recorder(module)
    with torch.inference_mode():
        recorder.run(*_tensors(raw))
    return recorder.made


class _Recorder(torch.fx.Interpreter):
    """Runs a graph and keeps the last tensor of every module."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.made: dict[str, Array] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run a node."""
        found = super().run_node(n)
        stack = n.meta.get("nn_module_stack")
        if stack and isinstance(found, Tensor):
            module = list(stack.values())[-1][0]
            self.made[layer_name(module)] = found.numpy().copy()
        return found


def _tensors(raw: Raw) -> list[Tensor]:
    return [torch.from_numpy(array) for array in raw.values()]


def _check_plain(path: Path) -> None:
    """No weight or constant of the archive may be a pickle."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("_config.json"):
                entries = json.loads(archive.read(name)).get("config", {})
                if any(entry.get("use_pickle") for entry in entries.values()):
                    raise ModelwrightError(
                        f"export: {FILE}: {name} holds a pickle; nothing was exported"
                    )
