"""One measurement of a transcriber in a process of its own: prints a line of JSON.

    python -m benchmarks.serving.whisper ours|ctranslate2

The shape is that of Whisper-tiny, float32, random weights. A window of 30 seconds is encoded
before; what is timed is from its stream to the last of the tokens, which follow greedily.
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

TOKENS, REPEATS, VOCABULARY = 128, 5, 51865
END, BEGIN, SILENT, PLAIN = 50257, 50258, 50362, 50363
NAMES = {
    END: "<|endoftext|>",
    BEGIN: "<|startoftranscript|>",
    BEGIN + 1: "<|en|>",
    SILENT: "<|nospeech|>",
    PLAIN: "<|notimestamps|>",
}


def main() -> None:
    """What the command line says."""
    import torch  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415

    torch.set_num_threads(runtime.cores())
    torch.manual_seed(0)
    mel = torch.randn(1, 80, 3000)
    made: dict[str, Callable[[Any], Callable[[], int]]] = {"ours": _ours, "ctranslate2": _peer}
    with torch.inference_mode():
        once = made[sys.argv[1]](mel)
        once()
        rates = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            written = once()
            rates.append(written / (time.perf_counter() - began))
    print(json.dumps({"rate": statistics.median(rates)}))


def _ours(mel: Any) -> Callable[[], int]:
    import torch  # noqa: PLC0415

    from modelwright.models.whisper import Config  # noqa: PLC0415

    model = Config(vocabulary=VOCABULARY, end_token=END).build().eval()
    sound = model.encoder(mel)
    prompt = torch.tensor([[BEGIN, PLAIN]])

    def once() -> int:
        cache, read = model.new_cache(sound, prompt.shape[1] + TOKENS), prompt
        for _ in range(TOKENS):
            scores = model.head(model.hidden(read, cache)[:, -1])
            scores[:, END] = -torch.inf
            read = scores.argmax(-1)[:, None]
        return TOKENS

    return once


def _peer(mel: Any) -> Callable[[], int]:
    import ctranslate2  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415

    folder = folder_of("whisper-tiny")
    if not (folder / "model.bin").exists():
        _converted(folder)
    model = ctranslate2.models.Whisper(
        str(folder), device="cpu", compute_type="float32", intra_threads=runtime.cores()
    )
    sound = model.encode(ctranslate2.StorageView.from_array(mel.numpy()))

    def once() -> int:
        (found,) = model.generate(
            sound,
            [[BEGIN, PLAIN]],
            beam_size=1,
            max_length=2 * TOKENS,  # of which it writes half
            suppress_blank=False,
            suppress_tokens=[END],
        )
        return len(found.sequences_ids[0])

    return once


def _converted(folder: Path) -> None:
    """A model of transformers with random weights, as CTranslate2 keeps it."""
    from ctranslate2.converters.transformers import WhisperLoader  # noqa: PLC0415
    from transformers import WhisperConfig, WhisperForConditionalGeneration  # noqa: PLC0415

    config = WhisperConfig(vocab_size=VOCABULARY)  # its other defaults are those of tiny
    spec = WhisperLoader().get_model_spec(WhisperForConditionalGeneration(config).eval())
    spec.register_vocabulary([NAMES.get(i, f"t{i}") for i in range(VOCABULARY)])
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.alignment_heads, spec.config.lang_ids = [(0, 0)], [BEGIN + 1]
    spec.validate()
    spec.optimize(quantization=None)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))


if __name__ == "__main__":
    main()
