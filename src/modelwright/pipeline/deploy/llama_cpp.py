"""llama.cpp's server over one file: a decoder on a CPU or a small GPU."""

from __future__ import annotations

from modelwright.exporting.gguf import tools
from modelwright.pipeline.deploy import MODEL, Order, write_launch
from modelwright.pipeline.export import export
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint

PROGRAM = "llama-server"


def write(order: Order) -> None:
    """Write the file and the command."""
    export(
        order.run,
        order.folder / MODEL,
        order.say,
        to="gguf",
        stage=order.stage,
        options=order.options,
        license=order.license,
    )
    (file,) = (order.folder / MODEL).glob("*.gguf")
    context = load_fitted(newest_checkpoint(order.run, order.stage)).config
    found = tools.tool(PROGRAM)
    write_launch(
        order,
        [
            str(found or PROGRAM),
            *("--model", f"./{MODEL}/{file.name}", "--alias", order.name),
            *("--host", order.host, "--port", "$PORT"),
            *("--ctx-size", str(getattr(context, "context", 0)), "--parallel", "1"),
            *("--jinja", "--offline"),
        ],
        key="LLAMA_API_KEY",
    )


def absent() -> str:
    """Whether there is a server."""
    return "" if tools.tool(PROGRAM) else f"no {PROGRAM} on PATH or in {tools.PLACE}"


def check(order: Order) -> str:
    """Its export has compared every tensor, and the answers where llama.cpp is installed."""
    (file,) = (order.folder / MODEL).glob("*.gguf")
    return f"{MODEL}/{file.name}: {file.stat().st_size:,} bytes, read back and compared"
