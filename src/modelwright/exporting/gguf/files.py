"""A GGUF file: written from tensors of ours, and read back as such."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelwright.errors import MachineError, ModelwrightError
from modelwright.exporting.gguf.graphs import Graph, Place
from modelwright.version import __version__

Floats = NDArray[np.float32]
_WIDE = ("position_embd", "ffn_gate_inp")  # small, and added or compared: float32, as vectors are


@dataclass(frozen=True)
class Kind:
    """How the matrices of a file are stored; vectors are always float32.

    Attributes:
        name: what ``--quantize`` calls it.
        stored: the type of the matrices, a name of ``gguf.GGMLQuantizationType``.
        number: ``general.file_type``.
        tool: whether llama.cpp's own quantiser makes it, from a file of float32.
        rounding: how far a tensor may be from ours, as a share of its norm.
        outputs: how far an output may be from the trained model's, as a share of its largest
            value.
        layers: whether that is asked of every layer, or of the model as a whole.
        logits: how far llama.cpp's log-probabilities may be from what our model makes of the same
            file, as a share of the largest distance of a logit from their mean. Its products
            round what they read as the weights are rounded.
    """

    name: str
    stored: str
    number: int
    tool: bool
    rounding: float
    outputs: float
    layers: bool
    logits: float


KINDS = {
    kind.name: kind
    for kind in (
        Kind("f32", "F32", 0, False, 1e-7, 1e-5, True, 1e-3),
        Kind("f16", "F16", 1, False, 1e-3, 1e-2, True, 1e-2),
        Kind("bf16", "BF16", 32, False, 6e-3, 6e-2, True, 6e-2),
        Kind("q8_0", "Q8_0", 7, False, 2e-2, 1e-1, False, 5e-2),
        Kind("q4_K_M", "F32", 15, True, 2e-1, 5e-1, False, 5e-2),
    )
}


def library() -> Any:
    """llama.cpp's own library for these files.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import gguf  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise MachineError(
            "export: gguf files need llama.cpp's library for them: pip install 'modelwright[gguf]'"
        ) from error
    return gguf


@dataclass(frozen=True)
class Content:
    """All that a file holds.

    Attributes:
        graph: its settings, and where the tensors go.
        vocabulary: settings of the tokenizer.
        tensors: ours, by our names.
        extra: tensors that have no place among ours, by the file's names.
        kind: how matrices are stored.
    """

    graph: Graph
    vocabulary: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    extra: Mapping[str, Tensor]
    kind: Kind


def write(path: Path, content: Content) -> None:
    """Write a file that is not there.

    Raises:
        ModelwrightError: a value is not finite, or too large for the type.
    """
    graph, kind = content.graph, content.kind
    gguf = library()
    writer = gguf.GGUFWriter(path, graph.arch)
    writer.add_string("general.name", "model")
    writer.add_string("general.quantized_by", f"modelwright {__version__}")
    writer.add_uint32("general.file_type", 0 if kind.tool else kind.number)
    writer.add_uint32("general.quantization_version", gguf.GGML_QUANT_VERSION)
    for name, value in {**graph.keys, **content.vocabulary}.items():
        _add(writer, name, value)
    for name, values in _stored(content):
        matrix = values.ndim > 1 and not any(part in name for part in _WIDE)
        data, stored = _narrowed(gguf, name, values, kind.stored if matrix else "F32")
        writer.add_tensor(name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: Any, name: str, value: Any) -> None:
    """A setting under the type that llama.cpp expects."""
    match value:
        case bool():
            writer.add_bool(name, value)
        case int():
            writer.add_uint32(name, value)
        case float():
            writer.add_float32(name, value)
        case str():
            writer.add_string(name, value)
        case _:
            writer.add_array(name, value)


def _stored(content: Content) -> Iterator[tuple[str, Floats]]:
    for place in content.graph.places:
        yield place.name, there(place, [content.tensors[name] for name in place.ours])
    for name, tensor in content.extra.items():
        yield name, tensor.float().numpy()


def _narrowed(gguf: Any, name: str, values: Floats, stored: str) -> tuple[NDArray[Any], Any]:
    """The values in the type wished for; in float16 where its blocks do not fit the rows."""
    kinds = gguf.GGMLQuantizationType
    if values.shape[-1] % gguf.GGML_QUANT_SIZES[kinds[stored]][0]:
        stored = "F16"
    if not np.isfinite(values).all():
        raise ModelwrightError(f"export: {name} holds values that are not finite; train it anew")
    if stored == "F16" and np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
        raise ModelwrightError(
            f"export: {name} has values too large for f16; use --quantize bf16 or q8_0"
        )
    return gguf.quants.quantize(values, kinds[stored]), kinds[stored]


# One tensor ----------------------------------------------------------------------------------


def there(place: Place, ours: list[Tensor]) -> Floats:
    """Tensors of ours as the file has them, in float32, rows first."""
    found = [t.detach().float() for t in ours]
    value = found[0] if len(found) == 1 else torch.stack(found)
    if place.pairs:  # (heads, 2, d/2, ...) -> (heads, d/2, 2, ...)
        cut = value.view(place.pairs, 2, -1, *value.shape[1:])
        value = cut.transpose(1, 2).reshape(value.shape)
    if place.flat:
        value = value.flatten()
    made: Floats = (value + place.offset).contiguous().numpy()
    return made


def back(place: Place, value: Tensor, shape: torch.Size) -> list[Tensor]:
    """The inverse of ``there``: tensors of ours, each of ``shape``."""
    value = value - place.offset
    if place.pairs:
        cut = value.view(place.pairs, -1, 2, *value.shape[1:])
        value = cut.transpose(1, 2).reshape(value.shape)
    return [part.reshape(shape) for part in (value if len(place.ours) > 1 else [value])]


# Reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """A file's settings by name, and its tensors in float32, rows first."""

    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def arch(self) -> str:
        """The graph that it names."""
        return str(self.settings.get("general.architecture"))


def read(path: Path) -> Read:
    """Read a file whole.

    Raises:
        ModelwrightError: it is none, or holds a type that cannot be read here.
    """
    gguf = library()
    try:
        reader = gguf.GGUFReader(path)
        settings = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {}
        for tensor in reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            shape = tuple(int(n) for n in reversed(tensor.shape))
            tensors[tensor.name] = torch.tensor(values, dtype=torch.float32).view(shape)
    except (ValueError, IndexError, KeyError, NotImplementedError, OSError) as error:
        line = " ".join(str(error).split())[:100]
        raise ModelwrightError(f"{path}: cannot be read back as gguf ({line})") from error
    return Read(settings, tensors)


def restored(found: Read, content: Content) -> dict[str, Tensor]:
    """The tensors of a file under our names.

    Raises:
        ModelwrightError: a tensor is missing, has another shape, or is another; names it.
    """
    meant, kind = content.tensors, content.kind
    wanted = {place.name for place in content.graph.places} | set(content.extra)
    for name in sorted(wanted ^ set(found.tensors)):
        what = "missing from" if name in wanted else "unexpected in"
        raise ModelwrightError(f"export: {name} is {what} the written file; nothing was exported")
    tensors: dict[str, Tensor] = {}
    for place in content.graph.places:
        value = found.tensors[place.name]
        wished = there(place, [meant[name] for name in place.ours])
        _check(place.name, value, torch.from_numpy(wished), kind)
        parts = back(place, value, meant[place.ours[0]].shape)
        tensors |= zip(place.ours, parts, strict=True)
    for name, value in content.extra.items():
        _check(name, found.tensors[name], value.float(), kind)
    return tensors


def _check(name: str, found: Tensor, meant: Tensor, kind: Kind) -> None:
    if found.shape != meant.shape:
        raise ModelwrightError(
            f"export: {name} has the shape {tuple(found.shape)} in the written file, "
            f"{tuple(meant.shape)} is meant; nothing was exported"
        )
    off = float((found - meant).norm() / meant.norm().clamp_min(1e-12))
    if not off <= kind.rounding:
        raise ModelwrightError(
            f"export: {name} is not the trained tensor: it differs by {off:.2g} of its norm, "
            f"{kind.rounding:.0e} is allowed; nothing was exported"
        )
