"""The same random weights for everyone: packed checkpoints, GGUF files, a folder for transformers.

    python -m benchmarks.serving.weights SHAPE

makes what is missing and prints the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from modelwright import checkpoint
from modelwright.errors import MachineError
from modelwright.exporting.gguf import files, graphs, tools
from modelwright.hub.families import writer_of
from modelwright.hub.loading import Unfilled
from modelwright.hub.writing import write
from modelwright.models import llama
from modelwright.models.quantized import KINDS, layout, quantize

SHAPES = {
    "125M": llama.Config(
        vocabulary=32000, depth=12, width=768, heads=12, kv_heads=12, hidden=2048, context=2048
    ),
    "1.1B": llama.Config(
        vocabulary=32000, depth=22, width=2048, heads=32, kv_heads=4, hidden=5632, context=2048
    ),
}
PEERS = {"int4": "q4_0", "int8": "q8_0", "bfloat16": "bf16"}
FOLDER = "MODELWRIGHT_BENCH_FOLDER"


def folder_of(shape: str) -> Path:
    """Where the weights of a shape lie."""
    place = os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / "modelwright-serving"
    return Path(place) / shape


def tensors_of(config: llama.Config) -> dict[str, Tensor]:
    """Weights as of a model that was never trained, in bfloat16."""
    with Unfilled():
        model = config.build()
    drawn = torch.Generator().manual_seed(0)
    found = {}
    for name, value in model.state_dict().items():
        if name.endswith("gain"):
            found[name] = torch.ones(value.shape)
        else:
            found[name] = (0.02 * torch.randn(value.shape, generator=drawn)).bfloat16()
    return found


def prepare(shape: str) -> Path:
    """Make what is missing of a shape's weights; the folder."""
    folder, config = folder_of(shape), SHAPES[shape]
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that did not end
    (folder / "transformers").mkdir(parents=True)
    tensors = tensors_of(config)
    for kind in KINDS:
        with Unfilled():
            model = config.build()
        model.load_state_dict(tensors, assign=True)
        quantize(model, kind)
        document = json.dumps({"layout": layout(model), "shape": shape}).encode()
        checkpoint.save(folder / kind, 0, {"model": model.state_dict()}, {"shape.json": document})
    with Unfilled():
        model = config.build()
    model.load_state_dict(tensors, assign=True)
    write(folder / "transformers", model, config, writer_of(config))
    _gguf(folder, config, tensors)
    (folder / "done").touch()
    return folder


class _Widened(Mapping[str, Tensor]):
    """The same in float32, each made when it is asked for: all of them are too large."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        self._held = held

    def __getitem__(self, name: str) -> Tensor:
        return self._held[name].float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


def _gguf(folder: Path, config: llama.Config, tensors: dict[str, Tensor]) -> None:
    count = config.vocabulary
    vocabulary = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(3, count))],
        "tokenizer.ggml.scores": [-float(i) for i in range(count)],
        "tokenizer.ggml.token_type": [2, 3, 3] + [1] * (count - 3),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    whole = _Widened(tensors)
    graph = graphs.graph_of(config)
    for stored in ("bf16", "q8_0"):
        content = files.Content(graph, vocabulary, whole, {}, files.KINDS[stored])
        files.write(folder / f"{stored}.gguf", content)
    program = tools.tool("llama-quantize")
    if program is None:
        raise MachineError("bench: llama-quantize is not there; set MODELWRIGHT_LLAMA_CPP")
    command = [str(program), str(folder / "bf16.gguf"), str(folder / "q4_0.gguf"), "q4_0"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


if __name__ == "__main__":
    print(prepare(sys.argv[1]))
