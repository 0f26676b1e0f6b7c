"""``modelwright label``: label rows with single keys, on the terminal or on a page.

Beside it, what goes with a file of labels: agreement, labelling functions, Label Studio's format.
"""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import EXIT_OK, ModelwrightError

if TYPE_CHECKING:
    from modelwright.data.labelling.label_model import Floats
    from modelwright.types import Row

MEASURES = ("margin", "entropy", "least_confidence", "given")
SHOWN = 20  # suspects that are printed


def add_command(commands: Any) -> None:
    """Add ``label`` to the commands of the command line."""
    text = "label rows with single keys, on the terminal or on a page"
    label = commands.add_parser("label", help=text, description=text)
    label.add_argument("source", help="a file, a folder (of images, too), or a data set")
    label.add_argument("--labels", required=True, metavar="A,B", help="the labels to choose from")
    label.add_argument("--out", type=Path, default=Path("labels.jsonl"), help="the file of labels")
    label.add_argument("--who", help="whose labels these are (default: your user name)")
    label.add_argument("--column", default="text", help="the column with the text")
    label.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="a model's probabilities: .npy, or .jsonl of id and probabilities",
    )
    label.add_argument(
        "--functions",
        type=Path,
        metavar="FILE",
        help="labelling functions: .yaml rules, or .py, which is run",
    )
    label.add_argument(
        "--order",
        choices=MEASURES,
        default="margin",
        help="which rows first, where predictions or functions are given",
    )
    label.add_argument("--page", action="store_true", help="serve a page instead")
    label.add_argument("--host", default="127.0.0.1", help="another address needs a key")
    label.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    label.add_argument("--api-key", help="required of clients (or MODELWRIGHT_API_KEY)")
    ways = label.add_mutually_exclusive_group()
    ways.add_argument(
        "--agreement",
        action="store_true",
        help="only print who agrees with whom in --out, and each row's consensus",
    )
    ways.add_argument(
        "--weak", type=Path, metavar="FILE", help="only write the labels that the --functions give"
    )
    ways.add_argument(
        "--import",
        type=Path,
        metavar="FILE",
        dest="imported",
        help="only add the annotations of a Label Studio export to --out",
    )
    ways.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="only write rows and labels as Label Studio tasks",
    )
    label.set_defaults(work=_label, terminable=True)


# Imports are inside: `modelwright --help` must not wait for numpy and torch.


def _label(options: argparse.Namespace) -> int:
    from modelwright.data.labelling.items import labelling_rows  # noqa: PLC0415

    labels = [name.strip() for name in options.labels.split(",")]
    if not all(labels) or len(set(labels)) < len(labels):
        raise ModelwrightError("--labels: give names divided by commas, each once: pos,neg")
    if options.agreement:
        return _agreement(options.out, labels)
    rows = labelling_rows(options.source, options.column)
    if options.weak is not None and options.functions is None:
        raise ModelwrightError("--weak: name a file of labelling functions with --functions")
    if options.imported is not None:
        return _import(options, labels, rows)
    thought = _thought(options, rows, labels)
    if options.weak is not None:
        return _weak(options.weak, rows, labels, thought)
    if options.export is not None:
        return _export(options, labels, rows, thought)
    return _ask(options, rows, labels, thought)


def _thought(options: argparse.Namespace, rows: Sequence[Row], labels: list[str]) -> Floats | None:
    """Probabilities (rows, labels) from the predictions or the labelling functions, if given."""
    if options.predictions is not None and options.functions is not None:
        raise ModelwrightError("label: give --predictions or --functions, not both")
    if options.predictions is not None:
        from modelwright.data.labelling.probabilities import read_probabilities  # noqa: PLC0415

        return read_probabilities(options.predictions, [str(r["id"]) for r in rows], labels)
    if options.functions is None:
        return None
    from modelwright.data.labelling import functions  # noqa: PLC0415
    from modelwright.data.labelling.label_model import dawid_skene  # noqa: PLC0415

    votes = functions.apply_functions(functions.read_functions(options.functions), rows, labels)
    model = dawid_skene(votes, abstains=True)
    table = functions.figures(votes)
    size = max(len(f.name) for f in table)
    print(f"{'function':<{size}}  coverage  overlaps  conflicts  accuracy (estimated)")
    for line, accuracy in zip(table, model.accuracy, strict=True):
        print(
            f"{line.name:<{size}}  {line.coverage:8.1%}  {line.overlaps:8.1%}"
            f"  {line.conflicts:9.1%}  {accuracy:8.1%}"
        )
    silent = int(((votes.given < 0).all(axis=1)).sum())
    print(f"{silent} of {len(rows)} rows: every function abstains")
    found = model.probabilities
    found[(votes.given < 0).all(axis=1)] = 1 / len(labels)  # nothing is known of these
    return found


def _ask(
    options: argparse.Namespace, rows: Sequence[Row], labels: list[str], thought: Floats | None
) -> int:
    from modelwright.data.labelling.label_file import LabelFile  # noqa: PLC0415
    from modelwright.data.labelling.session import Session, Suggestion  # noqa: PLC0415

    suggestions = {}
    if thought is not None:
        best = thought.argmax(axis=1)
        suggestions = {
            str(row["id"]): Suggestion(labels[k], float(thought[i, k]))
            for i, (row, k) in enumerate(zip(rows, best.tolist(), strict=True))
        }
        rows = _ordered(options, rows, thought)
    who = options.who or _user()
    with LabelFile(options.out) as file:
        if options.page:
            from modelwright.serving.labelling import build_app, serve  # noqa: PLC0415

            key = options.api_key or os.environ.get("MODELWRIGHT_API_KEY") or None
            app = build_app(
                rows, labels, file,
                column=options.column, who=who, suggestions=suggestions, api_key=key,
            )  # fmt: skip
            serve(app, options.source, host=options.host, port=options.port, api_key=key)
        else:
            from modelwright.label_terminal import label_rows  # noqa: PLC0415

            session = Session(rows, labels, file, who, suggestions)
            label_rows(session, options.column)
            counts = session.counts()
            said = ", ".join(f"{name} {count}" for name, count in counts.items())
            print(f"{options.out}: {said}; the same command goes on")
    return EXIT_OK


def _ordered(options: argparse.Namespace, rows: Sequence[Row], thought: Floats) -> list[Row]:
    """The rows in the order of the queue; texts of one batch are unlike each other."""
    if options.order == "given":
        return list(rows)
    from modelwright.data.labelling.features import sketches  # noqa: PLC0415
    from modelwright.data.labelling.queue import queue  # noqa: PLC0415

    texts = [row.get(options.column) for row in rows]
    known = [text for text in texts if isinstance(text, str)]
    near = sketches(known) if len(known) == len(rows) else None
    return [rows[i] for i in queue(thought, options.order, features=near).tolist()]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a table of users
        return "me"


def _agreement(out: Path, labels: list[str]) -> int:
    from modelwright.data.labelling import agreement  # noqa: PLC0415
    from modelwright.data.labelling.consensus import consensus  # noqa: PLC0415
    from modelwright.data.labelling.label_file import labels_in  # noqa: PLC0415
    from modelwright.data.labelling.votes import votes_of  # noqa: PLC0415

    if not out.is_file():
        raise ModelwrightError(f"{out}: no such file of labels; name it with --out")
    votes = votes_of(labels_in(out), labels)
    people = ", ".join(votes.voters) or "nobody"
    print(f"{len(votes.items)} rows labelled by {people}")
    if len(votes.voters) < 2:
        print("agreement needs two people or more on the same rows")
        return EXIT_OK
    found = agreement.bootstrap(agreement.krippendorff_alpha, votes)
    print(
        f"Krippendorff's alpha {found.value:.3f} (95 % interval {found.low:.3f} to"
        f" {found.high:.3f}; 1 is perfect, 0 is chance)"
    )
    for i, first in enumerate(votes.voters):
        for j in range(i + 1, len(votes.voters)):
            kappa = agreement.cohen_kappa(votes, i, j)
            print(f"Cohen's kappa of {first} and {votes.voters[j]}: {kappa:.3f}")
    settled = consensus(votes)
    for person in settled.annotators:
        print(
            f"{person.name}: {person.labelled} labels, estimated accuracy {person.accuracy:.1%},"
            f" agrees with the consensus on {person.agreement:.1%}"
        )
    torn = [item for item in settled.items if item.agreement < 1]
    print(f"{len(torn)} rows on which people differ")
    for item in sorted(torn, key=lambda item: item.probability)[:SHOWN]:
        print(f"  {item.id}: {item.label} ({item.probability:.0%}, {item.votes} labels)")
    return EXIT_OK


def _weak(path: Path, rows: Sequence[Row], labels: list[str], thought: Floats | None) -> int:
    """What the label model says of every row on which a function spoke."""
    import json  # noqa: PLC0415

    from modelwright.files import replace_file  # noqa: PLC0415

    lines = []
    for row, shares in zip(rows, () if thought is None else thought.tolist(), strict=True):
        if max(shares) - min(shares) > 1e-9:
            best = labels[shares.index(max(shares))]
            told = {name: round(p, 6) for name, p in zip(labels, shares, strict=True)}
            line = {"id": str(row["id"]), "label": best, "probabilities": told}
            lines.append(json.dumps(line, ensure_ascii=False))
    replace_file(path, "".join(f"{x}\n" for x in lines).encode("utf-8", "surrogatepass"))
    print(f"{path}: {len(lines)} of {len(rows)} rows have a label of the functions")
    return EXIT_OK


def _import(options: argparse.Namespace, labels: list[str], rows: Sequence[Row]) -> int:
    from modelwright.data.labelling import exchange, label_studio  # noqa: PLC0415
    from modelwright.data.labelling.label_file import LabelFile  # noqa: PLC0415

    tasks = label_studio.read_tasks(options.imported)
    made, unknown = exchange.decisions_of(tasks, [str(r["id"]) for r in rows], labels)
    with LabelFile(options.out) as file:
        fresh = exchange.new_ones(made, file.decisions)
        for one in fresh:
            file.append(one)
    print(
        f"{options.out}: {len(fresh)} decisions added of {len(tasks)} tasks,"
        f" {len(made) - len(fresh)} were there, {unknown} annotations are not of these rows or"
        " not one of these labels"
    )
    return EXIT_OK


def _export(
    options: argparse.Namespace, labels: list[str], rows: Sequence[Row], thought: Floats | None
) -> int:
    from modelwright.data.labelling import exchange, label_studio  # noqa: PLC0415
    from modelwright.data.labelling.label_file import read_decisions  # noqa: PLC0415

    tasks = exchange.tasks_of_rows(
        rows, labels, read_decisions(options.out), column=options.column, thought=thought
    )
    label_studio.write_tasks(options.export, tasks)
    print(f"{options.export}: {len(tasks)} tasks; its labelling interface:")
    image = any("image" in row for row in rows)
    column = "image" if image else options.column
    print(label_studio.interface(labels, column, image=image), end="")
    return EXIT_OK


def label_errors(options: argparse.Namespace) -> int:
    """``modelwright data errors``: print the suspects, and write them where ``--out`` says."""
    from modelwright.data.labelling.suspicion import examine, write_suspects  # noqa: PLC0415

    found = examine(
        options.source,
        label=options.label,
        column=options.column,
        probabilities=options.probabilities,
        seed=options.seed,
    )
    total, listed = len(found.ids), len(found.suspects)
    right = float((found.probabilities.argmax(axis=1) == found.given).mean())
    print(f"{listed} of {total} labels look wrong (out-of-fold agreement {right:.1%})")
    for s in found.suspects[: options.show]:
        print(
            f"{s.id}: given {s.given} ({s.given_probability:.1%}),"
            f" suggested {s.suggested} ({s.suggested_probability:.1%})"
        )
    if options.out is not None:
        write_suspects(options.out, found.suspects)
        print(f"{options.out}: the whole list")
    return EXIT_OK


def add_errors(commands: Any) -> None:
    """Add ``errors`` to the commands of ``modelwright data``."""
    text = "list labels that look wrong (confident learning)"
    errors = commands.add_parser("errors", help=text, description=text)
    errors.add_argument("source", help="a file, a folder (of images, too), or a data set")
    errors.add_argument("--label", default="label", metavar="COLUMN", help="the column of labels")
    errors.add_argument("--column", default="text", help="the column with the text")
    errors.add_argument(
        "--probabilities",
        type=Path,
        metavar="FILE",
        help="a model's own out-of-fold probabilities: .npy or .jsonl",
    )
    errors.add_argument("--out", type=Path, help="write the whole list as JSON Lines")
    errors.add_argument("--show", type=int, default=SHOWN, help="how many to print")
    errors.add_argument("--seed", type=int, default=0, help="of the folds")
    errors.set_defaults(work=label_errors)
