"""``modelwright explain``: what an answer among labels rests on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import EXIT_OK
from modelwright.places import existing_run

if TYPE_CHECKING:
    from modelwright.pipeline.explained import Explanation

SHOWN = 12  # words, or numbers, that speak for a label, and that speak against it

# Imports are inside the command: `modelwright --help` must not wait for torch.


def add_command(commands: Any) -> None:
    """Add ``explain`` to the commands of the command line."""
    text = "what an answer rests on: regions of a picture, words of a text"
    command = commands.add_parser("explain", help=text, description=text)
    command.add_argument("run", type=existing_run)
    command.add_argument("question", help="the path of a picture, or a text, as `ask` takes it")
    command.add_argument("--label", help="what speaks for this one (default: the likeliest)")
    command.add_argument("--stage", choices=("train", "tune"), help="which (default: the last)")
    command.add_argument("--out", type=Path, help="of a picture, the PNG (default samples/)")
    command.set_defaults(work=_explain)


def _explain(options: argparse.Namespace) -> int:
    from modelwright import api  # noqa: PLC0415

    model = api.load(options.run, options.stage)
    found = model.explain(options.question, label=options.label)
    print("\n".join(lines(found)))
    if found.picture is not None:
        print(model.keep_explanation(found, options.question, options.out))
    return EXIT_OK


def lines(found: Explanation) -> Iterator[str]:
    """An explanation for people, but for its picture."""
    said, sure = next(iter(found.probabilities.items()))
    yield f"answer {said} ({sure:.1%}); for {found.label} ({found.probabilities[found.label]:.1%}):"
    for sign, what in ((1, "for"), (-1, "against")):
        chosen = sorted((p for p in found.parts if sign * p[1] > 0), key=lambda p: -abs(p[1]))
        for name, value in chosen[:SHOWN]:
            shown = " ".join(name.split()) or "(no word)"
            yield f"  {value:+8.3f}  {what:<7}  {shown}"
    if found.maps:
        yield f"  maps: {', '.join(found.maps)}, from the left"
    yield f"  logits not accounted for: {found.missing:.1e}"
