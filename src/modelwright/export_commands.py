"""``modelwright export``: a trained model for other programs, proved equal before it is named."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from modelwright.errors import EXIT_OK, ModelwrightError
from modelwright.places import existing_run

DTYPES = ("float32", "bfloat16", "float16")

# Imports are inside the command: `modelwright --help` must not wait for torch.


def add_command(commands: Any) -> None:
    """Add ``export`` to the commands of the command line."""
    text = "write a trained model for other programs, and prove it equal"
    export = commands.add_parser("export", help=text, description=text)
    export.add_argument("run", type=existing_run)
    export.add_argument("out", type=Path, help="a folder that does not exist yet")
    export.add_argument("--to", required=True, metavar="FORMAT", help=" | ".join(_formats()))
    export.add_argument("--stage", choices=("train", "tune"), help="which (default: the last)")
    export.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as trained)")
    export.add_argument(
        "--shard-size", default="5GB", metavar="SIZE", help="of a weight file (default 5GB)"
    )
    export.add_argument("--quantize", metavar="TYPE", help="of the weights, by the format's name")
    export.add_argument("--license", default="", help="of the weights, for the card: apache-2.0")
    export.set_defaults(work=_export)


def _export(options: argparse.Namespace) -> int:
    import torch  # noqa: PLC0415

    from modelwright import api  # noqa: PLC0415
    from modelwright.exporting import Options  # noqa: PLC0415
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


def _formats() -> list[str]:
    """The modules of the room, by their files: the room itself imports torch."""
    folder = Path(__file__).parent / "exporting"
    names = {p.stem for p in folder.glob("*.py")}
    names |= {p.parent.name for p in folder.glob("*/__init__.py")}
    names -= {"__init__", "subject", "front", "samples", "scanned", "usage", "keras_layers"}
    return sorted(n.replace("_", "-") for n in names)


def size(text: str) -> int:
    """Bytes of a size such as 500MB or 5GB, in powers of ten."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    found = int(float(match[1]) * units[match[2].upper()]) if match else 0
    if found < 1:
        raise ModelwrightError(f"--shard-size: {text!r} is no size; write it like 500MB or 5GB")
    return found
