"""``modelwright export``, ``quantize``, ``answers``: a model elsewhere, in fewer bits, as data."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from modelwright.errors import EXIT_OK, ModelwrightError
from modelwright.exporting import formats
from modelwright.places import existing_run

KINDS = ("int4", "int8", "bfloat16")  # of models.quantized, which imports torch
DTYPES = ("float32", "bfloat16", "float16")

# Imports are inside the command: `modelwright --help` must not wait for torch.


def add_command(commands: Any) -> None:
    """Add ``export``, ``quantize`` and ``answers`` to the commands of the command line."""
    text = "write a trained model for other programs, and prove it equal"
    export = commands.add_parser("export", help=text, description=text)
    export.add_argument("run", type=existing_run)
    export.add_argument("out", type=Path, help="a folder that does not exist yet")
    export.add_argument("--to", required=True, metavar="FORMAT", help=" | ".join(formats()))
    export.add_argument("--stage", choices=("train", "tune"), help="which (default: the last)")
    export.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as trained)")
    export.add_argument(
        "--shard-size", default="5GB", metavar="SIZE", help="of a weight file (default 5GB)"
    )
    export.add_argument("--quantize", metavar="TYPE", help="of the weights, by the format's name")
    export.add_argument("--license", default="", help="of the weights, for the card: apache-2.0")
    export.set_defaults(work=_export)
    _add_quantize(commands)
    _add_answers(commands)


def add_weights(command: argparse.ArgumentParser) -> None:
    """Add the option that answers with fewer bits a weight."""
    help_ = "answer with fewer bits a weight; see `quantize` (default: as trained)"
    command.add_argument("--weights", choices=KINDS, help=help_)


def _add_quantize(commands: Any) -> None:
    text = "keep a trained model in fewer bits a weight, and say what that costs"
    command = commands.add_parser("quantize", help=text, description=text)
    command.add_argument("run", type=existing_run)
    command.add_argument("--to", default="int4", metavar="KIND", help=" | ".join(KINDS))
    command.add_argument("--stage", choices=("train", "tune"), help="which (default: the last)")
    command.set_defaults(work=_quantize)


def _add_answers(commands: Any) -> None:
    text = "write rows with a trained model's answers, for a smaller one to learn from"
    command = commands.add_parser("answers", help=text, description=text)
    command.add_argument("run", type=existing_run, help="the teacher")
    command.add_argument("out", type=Path, help="a file that does not exist yet: answers.jsonl")
    command.add_argument("--on", metavar="FILE", help="rows to answer (default: its train part)")
    command.add_argument("--rows", type=int, help="at most so many, the first ones")
    command.add_argument("--stage", choices=("train", "tune"), help="which (default: the last)")
    own = "(default: as its recipe's evaluate has it)"
    command.add_argument("--max-tokens", type=int, help=f"longest answer {own}")
    command.add_argument("--beams", type=int, help=f"search for likelier answers, such as 5 {own}")
    command.set_defaults(work=_answers)


def _answers(options: argparse.Namespace) -> int:
    from modelwright import api  # noqa: PLC0415

    given = {"max_tokens": options.max_tokens, "beams": options.beams, "stage": options.stage}
    params = {name: value for name, value in given.items() if value is not None}
    written = api.answers(options.run, options.on, options.out, rows=options.rows, **params)
    told = "" if options.on else "; learn from it with data.split.by=given"
    print(f"{options.out}: {written:,} answers{told}")
    return EXIT_OK


def _quantize(options: argparse.Namespace) -> int:
    from modelwright import api  # noqa: PLC0415
    from modelwright.pipeline.quantized import quantize  # noqa: PLC0415

    made = quantize(api.existing(options.run), options.to, api.say, options.stage)
    print(f"weights  {made.bytes_before / 1e6:,.1f} MB -> {made.bytes_after / 1e6:,.1f} MB")
    if made.loss_before is None or made.loss_after is None:
        print("loss     not compared: the run holds nothing out as validation")
    else:
        more = made.loss_after / made.loss_before - 1
        print(f"loss     {made.loss_before:.4f} -> {made.loss_after:.4f} ({more:+.2%}, validation)")
    print(f"written  {made.path}; answer with it: modelwright serve RUN --weights {made.kind}")
    return EXIT_OK


def _export(options: argparse.Namespace) -> int:
    import torch  # noqa: PLC0415

    from modelwright import api  # noqa: PLC0415
    from modelwright.exporting.subject import Options  # noqa: PLC0415
    from modelwright.pipeline.export import export  # noqa: PLC0415

    run = api.existing(options.run)
    proof = export(
        run,
        options.out,
        api.say,
        to=options.to,
        stage=options.stage,
        options=Options(
            dtype=getattr(torch, options.dtype) if options.dtype else None,
            shard_bytes=size(options.shard_size),
            quantization=options.quantize,
        ),
        license=options.license,
    )
    print(
        f"{options.out}: {proof.samples} samples replayed, {proof.outputs} outputs differ by at "
        f"most {proof.largest:.1e} ({proof.tolerance:.0e} allowed)"
    )
    if proof.remark:
        print(proof.remark)
    return EXIT_OK


def size(text: str) -> int:
    """Bytes of a size such as 500MB or 5GB, in powers of ten."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    found = int(float(match[1]) * units[match[2].upper()]) if match else 0
    if found < 1:
        raise ModelwrightError(f"--shard-size: {text!r} is no size; write it like 500MB or 5GB")
    return found
