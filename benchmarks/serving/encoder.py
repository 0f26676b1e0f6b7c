"""One measurement of a classifier of texts in a process of its own: prints a line of JSON.

    python -m benchmarks.serving.encoder WHO BATCH

WHO is ours-float32, ours-bfloat16, ours-int8, onnxruntime-float32, onnxruntime-int8,
transformers-bfloat16 or compiled-bfloat16 (its weights frozen into the graph). The shape is that of
BERT-base with two classes, texts of 128 tokens without padding, random weights.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.serving.weights import folder_of

TOKENS, VOCABULARY, REPEATS = 128, 30522, 5


def main() -> None:
    """What the command line says."""
    who, batch = sys.argv[1], int(sys.argv[2])
    import torch  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415

    torch.set_num_threads(runtime.cores())
    torch.manual_seed(0)
    tokens = torch.randint(5, VOCABULARY, (batch, TOKENS))
    name, _, kind = who.partition("-")
    made = {"ours": _ours, "onnxruntime": _onnx, "transformers": _peer, "compiled": _compiled}
    with torch.inference_mode():
        print(json.dumps({"rate": batch / _seconds(made[name](kind, tokens))}))


def _seconds(once: Callable[[], Any]) -> float:
    for _ in range(3):
        once()
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        once()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _ours(kind: str, tokens: Any) -> Callable[[], Any]:
    from modelwright.models.bert import Config  # noqa: PLC0415
    from modelwright.models.quantized import quantize  # noqa: PLC0415
    from modelwright.models.ready import ready  # noqa: PLC0415

    model = Config(vocabulary=VOCABULARY, classes=2).build().eval()
    if kind != "float32":
        quantize(model, kind)
    ready(model)  # as a server does
    return lambda: model(tokens)


def _classifier(**given: Any) -> Any:
    from transformers import BertConfig, BertForSequenceClassification  # noqa: PLC0415

    return BertForSequenceClassification(BertConfig(**given)).eval()


def _peer(kind: str, tokens: Any) -> Callable[[], Any]:
    del kind
    import torch  # noqa: PLC0415

    model = _classifier().to(torch.bfloat16)
    mask = torch.ones_like(tokens)
    return lambda: model(input_ids=tokens, attention_mask=mask).logits


def _compiled(kind: str, tokens: Any) -> Callable[[], Any]:
    del kind
    import torch  # noqa: PLC0415
    from torch._inductor import config  # noqa: PLC0415

    config.freezing = True
    model = torch.compile(_classifier().to(torch.bfloat16))
    mask = torch.ones_like(tokens)
    return lambda: model(input_ids=tokens, attention_mask=mask).logits


def _onnx(kind: str, tokens: Any) -> Callable[[], Any]:
    import onnxruntime  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415

    folder = folder_of("bert-base")
    folder.mkdir(parents=True, exist_ok=True)
    whole, packed = folder / "float32.onnx", folder / "int8.onnx"
    if not whole.exists():
        _exported(whole, tokens)
    if kind == "int8" and not packed.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

        quantize_dynamic(whole, packed, weight_type=QuantType.QInt8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = runtime.cores()
    path = packed if kind == "int8" else whole
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {"tokens": tokens.numpy(), "mask": tokens.numpy() * 0 + 1}
    return lambda: session.run(None, given)


def _exported(path: Path, tokens: Any) -> None:
    """The graph as PyTorch's exporter writes it, for batches of any size."""
    import torch  # noqa: PLC0415

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = _classifier(attn_implementation="eager")

        def forward(self, tokens: Any, mask: Any) -> Any:
            return self.model(input_ids=tokens, attention_mask=mask).logits

    torch.onnx.export(
        Plain(),
        (tokens, torch.ones_like(tokens)),
        path,
        input_names=["tokens", "mask"],
        output_names=["logits"],
        dynamic_axes={"tokens": {0: "batch"}, "mask": {0: "batch"}},
        dynamo=False,
        opset_version=17,
    )


if __name__ == "__main__":
    main()
