"""How to run an artefact without this package: the card's section, made from the graph's facts."""

from __future__ import annotations

from modelwright.exporting.front import Graph

_TEXT = """\
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.encode_special_tokens = True  # what a user types is text
tokenizer.no_padding()
tokenizer.no_truncation()
ids = tokenizer.encode("some text", add_special_tokens=False).ids"""


def snippet(graph: Graph, *, install: str, load: str, run: str, about: str) -> str:
    """Markdown: what goes in, what comes out, and a script.

    Args:
        graph: that was exported.
        install: the packages that the script needs, beside numpy.
        load: lines that load it.
        run: an expression; ``{names}`` stands for a dict of arrays.
        about: the artefact, in a line or two.
    """
    reads_text = "text" in graph.facts
    lines = ["import json", "import numpy as np"]
    lines += ["from tokenizers import Tokenizer"] * reads_text
    lines += [load, 'facts = json.load(open("preprocessing.json"))', ""]
    lines += _of_text(graph) if reads_text else _of_numbers(graph)
    given = ", ".join(f'"{i.name}": {i.name}' for i in graph.inputs)
    made = ", ".join(graph.outputs)
    made = made if len(graph.outputs) > 1 else f"({made},)"
    lines += [f"{made} = {run.format(names='{' + given + '}')}", graph.shown]
    needed = f"pip install numpy {install}" + " tokenizers" * reads_text
    script = "```python\n" + "\n".join(lines) + "\n```"
    return "\n\n".join((about, _table(graph), f"```bash\n{needed}\n```", script))


def _table(graph: Graph) -> str:
    rows = ["| | dtype | axes | |", "| --- | --- | --- | --- |"]
    for i in graph.inputs:
        kind = str(i.dtype).removeprefix("torch.")
        rows.append(f"| `{i.name}` | {kind} | {_axes(i.shape)} | {i.about} |")
    for name, shape in graph.outputs.items():
        rows.append(f"| `{name}` (out) | float32 | {_axes(shape)} | |")
    return "\n".join(rows)


def _axes(shape: tuple[int | str, ...]) -> str:
    return ", ".join(str(n) for n in shape)


def _of_text(graph: Graph) -> list[str]:
    """Lines that make token ids of a text."""
    rule = graph.facts["text"]
    ended = len(graph.inputs) > 1  # a text that is to go on has not ended
    frame = ["*facts['text']['before']", "*ids", *["*facts['text']['after']"] * ended]
    lines = _TEXT.splitlines()
    if rule["longest"]:
        room = rule["longest"] - len(rule["before"]) - len(rule["after"]) * ended
        lines.append(f"ids = ids[:{room}]")
    lines.append(f"input_ids = np.array([[{', '.join(frame)}]], dtype=np.int64)")
    return [*lines, *["attention_mask = np.ones_like(input_ids)"] * ended]


def _of_numbers(graph: Graph) -> list[str]:
    """Lines that make inputs of the right shape: a row of a few frames."""
    lines = []
    for i in graph.inputs:
        shape = tuple({"batch": 1, "time": 4}.get(str(n), n) for n in i.shape)
        kind = f"np.{str(i.dtype).removeprefix('torch.')}"
        filled = f"np.full({shape}, 4, {kind})"  # as many frames as there are
        value = filled if i.name == "lengths" else f"np.zeros({shape}, {kind})"
        lines.append(f"{i.name} = {value}  # yours")
    return lines
