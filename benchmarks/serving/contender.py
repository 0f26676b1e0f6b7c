"""One measurement in a process of its own: prints a line of JSON.

    python -m benchmarks.serving.contender ours|llama.cpp|transformers SHAPE KIND [load|batch]

Prefill: tokens a second of a prompt of 512. Decode: tokens a second of 64 after 16. Load: seconds
and peak memory until the first token, of a file that the system holds in its memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.serving.weights import PEERS, SHAPES, folder_of

PROMPT, BEGUN, ANSWER = 512, 16, 64


def main() -> None:
    """What the command line says."""
    who, shape, kind, *more = sys.argv[1:]
    work = {"ours": _ours, "llama.cpp": _llama_cpp, "transformers": _transformers}[who]
    if more:
        work = {"load": _load, "batch": _batch}[more[0]]
    print(json.dumps(work(shape, kind)))


def load_model(shape: str, kind: str) -> Any:
    from modelwright import checkpoint  # noqa: PLC0415
    from modelwright.hub.loading import Unfilled  # noqa: PLC0415
    from modelwright.models.quantized import laid_out  # noqa: PLC0415

    newest = checkpoint.newest(folder_of(shape) / kind)
    assert newest is not None
    found = checkpoint.load(newest)
    with Unfilled():
        model = SHAPES[shape].build()
    laid_out(model, json.loads(found.documents["shape.json"])["layout"])
    model.load_state_dict(found.tensors["model"], assign=True)
    return model.eval()


def _ours(shape: str, kind: str) -> dict[str, float]:
    import torch  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415

    torch.set_num_threads(runtime.cores())
    model = load_model(shape, kind)
    return _timed(
        lambda: model.new_cache(1, PROMPT + ANSWER),
        lambda tokens, cache: model.head(model.hidden(tokens, cache=cache)[:, -1]),
    )


def _transformers(shape: str, kind: str) -> dict[str, float]:
    del kind
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415
    from transformers.cache_utils import DynamicCache  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415

    torch.set_num_threads(runtime.cores())
    folder = folder_of(shape) / "transformers"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def step(tokens: Any, cache: Any) -> Any:
        out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1]

    return _timed(lambda: DynamicCache(config=model.config), step)


def _timed(new_cache: Any, step: Any) -> dict[str, float]:
    """The best of some prompts and of three answers, as llama-bench is asked for, too."""
    import torch  # noqa: PLC0415

    drawn = torch.Generator().manual_seed(1)
    prompt = torch.randint(3, 32000, (1, PROMPT), generator=drawn)
    with torch.inference_mode():
        reads = []
        for _ in range(4):
            cache = new_cache()
            began = time.perf_counter()
            step(prompt, cache)
            reads.append(time.perf_counter() - began)
        answers = []
        for _ in range(3):
            cache = new_cache()
            token = step(prompt[:, :BEGUN], cache).argmax(-1)[:, None]
            began = time.perf_counter()
            for _ in range(ANSWER):
                token = step(token, cache).argmax(-1)[:, None]
            answers.append(time.perf_counter() - began)
    return {"prefill": PROMPT / min(reads[1:]), "decode": ANSWER / min(answers)}


def _llama_cpp(shape: str, kind: str) -> dict[str, float]:
    from modelwright import runtime  # noqa: PLC0415
    from modelwright.errors import MachineError  # noqa: PLC0415
    from modelwright.exporting.gguf.tools import tool  # noqa: PLC0415

    program = tool("llama-bench")
    if program is None:
        raise MachineError("bench: llama-bench is not there; set MODELWRIGHT_LLAMA_CPP")
    command = [str(program), "-m", str(folder_of(shape) / f"{PEERS[kind]}.gguf"), "-o", "json"]
    command += ["-t", str(runtime.cores()), "-r", "3", "-p", str(PROMPT), "-n", str(ANSWER)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    best = {bool(one["n_gen"]): max(one["samples_ts"]) for one in found}
    return {"prefill": best[False], "decode": best[True]}


def _load(shape: str, kind: str) -> dict[str, float]:
    import torch  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415
    from modelwright.processor import peak_resident_bytes  # noqa: PLC0415

    torch.set_num_threads(runtime.cores())
    before = peak_resident_bytes()
    began = time.perf_counter()
    model = load_model(shape, kind)
    with torch.inference_mode():
        model(torch.ones(1, 1, dtype=torch.long), cache=model.new_cache(1, 64))
    seconds = time.perf_counter() - began
    held = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    return {
        "seconds": seconds,
        "peak": peak_resident_bytes() - before,
        "weights": sum(t.nbytes for t in held.values()),
    }


def _batch(shape: str, kind: str) -> dict[str, float]:
    """transformers, 16 questions of 64 tokens answered with 64 each, all at once."""
    del kind
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    from modelwright import runtime  # noqa: PLC0415

    torch.set_num_threads(runtime.cores())
    folder = folder_of(shape) / "transformers"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    drawn = torch.Generator().manual_seed(1)
    prompts = torch.randint(3, 32000, (16, 64), generator=drawn)
    began = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            min_new_tokens=64,
            max_new_tokens=64,
            pad_token_id=0,
        )
    assert out.shape == (16, 128)
    return {"rate": 16 * 64 / (time.perf_counter() - began)}


if __name__ == "__main__":
    main()
