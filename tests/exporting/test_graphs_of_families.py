"""Every family that a run can hold makes a graph that answers as the model, padded and alone.

Traced only, with drawn parameters: PyTorch's recording of the graph is what both formats write.
"""

from __future__ import annotations

import pytest
import torch

from modelwright.errors import ModelwrightError
from modelwright.exporting.front import graph_of, traced, write_beside
from modelwright.exporting.samples import prove
from modelwright.exporting.subject import Options
from tests.exporting.untrained import subject

TEXT, FRAMES, IMAGE = "text_classification", "sequence_classification", "vector_classification"
GEMMA = {
    "windows": (4, 0), "rope_local": 1000.0, "attention_softcap": 20.0, "softcap": 10.0,
    "centred": True, "sandwich": True, "scaled_embedding": True, "tied": True,
    "rope_scaling": "yarn", "rope_factor": 4.0, "rope_context": 16, "depth": 2,
}  # fmt: skip
FAMILIES = {
    "decoder": (
        "documents",
        {"depth": 2, "bigrams": 64, "softcap": 15.0, "value_embeddings": True},
    ),
    "gpt2": ("docstrings", {"depth": 1}),  # conversations
    "llama": ("documents", GEMMA),
    "mixture": ("documents", {"depth": 1}),
    "bert": (TEXT, {"depth": 1}),
    "bert ": ("masked_text", {"depth": 1}),
    "modernbert": (TEXT, {"window": 3, "depth": 2, "pooling": "mean"}),
    "rnn": (FRAMES, {"cell": "lstm", "layers": 2, "bidirectional": True}),
    "rnn ": (FRAMES, {"cell": "gru"}),
    "rnn  ": (FRAMES, {"layers": 2, "activation": "relu"}),
    "bag_of_frames": (FRAMES, {}),
    "resnet": (IMAGE, {}),
    "convnext": (IMAGE, {}),
    "vit": (IMAGE, {"patch": 4}),
    "fast_cnn": ("image_classification", {}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_answers_as_the_model(family, tmp_path):
    task, fields = FAMILIES[family]
    given = subject(family.strip(), task, pixels=int(task == IMAGE), **fields)
    graph = graph_of(given, Options(), "torch-export")
    write_beside(tmp_path, graph)
    module = traced(graph).module()

    def answer(raw):
        with torch.inference_mode():
            return [t.numpy() for t in module(*(torch.from_numpy(a) for a in raw.values()))]

    proof = prove(tmp_path, given, graph, answer, lambda raw: {})
    assert proof.samples == 4 and proof.largest < 1e-5


def test_a_family_without_a_graph():
    given = subject("bart", "translation")
    with pytest.raises(ModelwrightError, match="^--to onnx: a bart that reads .* use --to hub$"):
        graph_of(given, Options(), "onnx")
