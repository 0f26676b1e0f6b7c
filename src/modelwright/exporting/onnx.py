"""ONNX: one graph from raw numbers or tokens to logits, of any batch and length.

Written by PyTorch's exporter, checked by ``onnx.checker``, replayed by ONNX Runtime on the CPU.
Every node names the module it comes from (metadata ``module``), so that a difference has a place.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from modelwright.errors import MachineError, ModelwrightError
from modelwright.exporting.front import (
    Graph,
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

LIBRARY = "onnx"
FILE = "model.onnx"
OPSET = 20  # of the standard operators; ONNX Runtime has it since 1.17
WHOLE = 1 << 30  # bytes of weights beyond which they lie in a file of their own; protobuf ends at 2
NEEDS = ("onnx", "onnxscript", "onnxruntime")


def write(folder: Path, subject: Subject, options: Options) -> None:
    """Write ``model.onnx``, ``preprocessing.json`` and the files of a tokenizer.

    Raises:
        ModelwrightError: no graph can be made of this model, or an option is not this format's.
        MachineError: the libraries are missing.
    """
    _check_libraries()
    graph = graph_of(subject, options, "onnx")
    with torch.no_grad(), exporter_noise(), _quiet():
        program = torch.onnx.export(
            traced(graph),
            dynamo=True,
            opset_version=OPSET,
            input_names=[i.name for i in graph.inputs],
            output_names=list(graph.outputs),
            verbose=False,
        )
    if program is None:
        raise ModelwrightError("--to onnx: PyTorch's exporter gave no graph; use --to hub")
    _named(program.model, graph)
    size = sum(t.numel() * t.element_size() for t in graph.module.state_dict().values())
    program.save(folder / FILE, external_data=size > WHOLE)
    write_beside(folder, graph)


def check(folder: Path, subject: Subject, options: Options) -> Replayed:
    """Replay the stored samples through ONNX Runtime.

    Raises:
        ModelwrightError: the file is no valid ONNX, or answers differently.
    """
    import onnx  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    path = folder / FILE
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        line = " ".join(str(error).split())[:200]
        raise ModelwrightError(f"export: {FILE} is not valid: {line}; nothing was exported") from (
            error
        )
    session = onnxruntime.InferenceSession(str(path), _settings())

    def answer(raw: Raw) -> list[Array]:
        made: list[Array] = session.run(None, dict(raw))
        return made

    graph = graph_of(subject, options, "onnx")
    return prove(folder, subject, graph, answer, lambda raw: layers(path, raw))


def usage(subject: Subject) -> str:
    """How to run it without this package, for the card."""
    graph = graph_of(subject, Options(), "onnx")
    return snippet(
        graph,
        install="onnxruntime",
        load=f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{FILE}")',
        run="session.run(None, {names})",
        about=f"`{FILE}`: operators of opset {OPSET}; axes with a name take any length.",
    )


def layers(path: Path, raw: Raw) -> Mapping[str, Array]:
    """What the last node of every module makes of some inputs, by the module's name."""
    import onnx  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    model = onnx.load(str(path), load_external_data=False)
    last = {}
    for node in model.graph.node:
        for prop in node.metadata_props:
            if prop.key == "module":
                last[layer_name(prop.value)] = node.output[0]
    there = {o.name for o in model.graph.output}
    wanted = sorted(set(last.values()) - there)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    names = sorted(set(last.values()))
    beside = path.with_suffix(".layers")  # weights in a file of their own are found from here
    try:
        onnx.save(model, str(beside))
        session = onnxruntime.InferenceSession(str(beside), _settings())
        made = dict(zip(names, session.run(names, dict(raw)), strict=True))
    finally:
        beside.unlink(missing_ok=True)
    return {module: made[name] for module, name in last.items()}


def _settings() -> Any:
    """Quiet, and with no more threads than PyTorch has here."""
    import onnxruntime  # noqa: PLC0415

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors
    settings.intra_op_num_threads = torch.get_num_threads()
    return settings


def _named(model: Any, graph: Graph) -> None:
    """Give axes their names, and nodes that of their module in place of the exporter's notes."""
    axes = {}
    for value, given in zip(model.graph.inputs, graph.inputs, strict=True):
        for dim, name in zip(value.shape, given.shape, strict=True):
            if isinstance(name, str):
                axes[str(dim.value)] = name
    values = [*model.graph.inputs, *model.graph.outputs]
    for node in model.graph:
        values += node.outputs
        scopes = re.findall(r"'([^']*)'", node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
        node.metadata_props.clear()
        if len(scopes) > 1 and scopes[-2]:
            node.metadata_props["module"] = scopes[-2]
    for value in values:
        for at, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int) and str(dim.value) in axes:
                value.shape[at] = axes[str(dim.value)]
    for tensor in model.graph.initializers.values():
        tensor.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.producer_name, model.producer_version = "modelwright", graph.facts["modelwright"]


def _check_libraries() -> None:
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise MachineError(
            f"--to onnx needs {', '.join(missing)}, which is not installed: "
            "pip install 'modelwright[onnx]'"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of operators of torchvision, which nothing here uses."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
