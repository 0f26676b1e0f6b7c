"""One file with weights, settings and tokenizer, as llama.cpp and what is built on it read it.

The file is read back with llama.cpp's own library: settings and tokenizer are compared with the
model's, tensors by name, and the stored samples pass the trained model and one that is filled
from the file, layer by layer. Where llama.cpp's server is installed, it answers from the file,
too: ids of the stored texts, and 64 greedy tokens a sample with their log-probabilities. What
only llama.cpp can show, that its graph is ours, is not shown without it, and the result says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.exporting.gguf import files, graphs, tools, vocabulary
from modelwright.exporting.gguf.files import KINDS, Content, Kind
from modelwright.exporting.gguf.own_decoder import plain
from modelwright.exporting.subject import Options, Subject, same_tokens
from modelwright.hub.replay import TOLERANCES, Replayed, replay
from modelwright.models import llama, mixture
from modelwright.models.model import ModelConfig
from modelwright.types import text_turn

LIBRARY = "llama.cpp"
STEPS = 64  # greedy tokens of a sample
LIKELY = 64  # of as many tokens llama.cpp's log-probabilities are compared at every step
_PROMPT = 192  # tokens at most
_CONVERSATION = (("user", "Who was it?"), ("assistant", "I was."), ("user", "When, 你说?"))
_LEAST = -80.0  # log-probabilities below are zero in float32


def write(folder: Path, subject: Subject, options: Options) -> None:
    """Write ``model-KIND.gguf``.

    Raises:
        ModelwrightError: llama.cpp has no graph or no tokenizer like these; says what would do.
        MachineError: a library or a program is not installed.
    """
    _, content = _content(subject, options)
    kind = content.kind
    if kind.tool and tools.tool("llama-quantize") is None:
        tools.quantize(folder, folder, kind.name)  # says what to install, before the work
    path = _path(folder, kind)
    first = folder / "whole.gguf" if kind.tool else path
    files.write(first, content)
    if kind.tool:
        tools.quantize(first, path, kind.name)
        first.unlink()


def check(folder: Path, subject: Subject, options: Options) -> Replayed:
    """Compare the file with the trained model on the stored samples.

    Raises:
        ModelwrightError: settings, tokens, tensors or answers differ; names which.
    """
    config, content = _content(subject, options)
    path = _path(folder, content.kind)
    found = files.read(path)
    graphs.check_settings(found.arch, found.settings, content.graph)
    vocabulary.check_settings(found.settings, subject.codec)
    _same_tokens(subject, found.settings)
    filled = _filled(config, files.restored(found, content))
    proof = _replayed(subject, config, content, filled)
    program = tools.tool("llama-server")
    if program is None:
        where = f"on PATH or in {tools.PLACE}"
        missing = f"llama.cpp itself was not asked: there is no llama-server {where}"
        return dataclasses.replace(proof, remark=missing)
    room = min(_context(subject), _PROMPT + STEPS)  # a cache of the whole context may be gigabytes
    with tools.Server(program, path, room, torch.get_num_threads()) as server:
        _same_ids(subject, server)
        remark = _same_answers(subject, filled, server, content.kind)
    return dataclasses.replace(proof, remark=remark)


def usage(subject: Subject) -> str:
    """How to run the file, as Markdown."""
    del subject
    return """\
Weights, settings, tokenizer and chat template are in the one file.

```bash
llama-completion -m model-*.gguf -p "Once upon a time" -n 64 --temp 0 -no-cnv  # goes on with a text
llama-cli -m model-*.gguf                    # a conversation
llama-server -m model-*.gguf                 # the same over HTTP, and a page for the browser
```"""


def _content(subject: Subject, options: Options) -> tuple[ModelConfig, Content]:
    """What is written, and the config of the published family that it is written as."""
    kind = _kind(options)
    config, tensors = plain(subject.config, subject.model.state_dict())
    graph, settings = graphs.graph_of(config), vocabulary.settings_of(subject.codec)
    return config, Content(graph, settings, tensors, _extra(config), kind)


def _kind(options: Options) -> Kind:
    """How the weights are stored."""
    narrow = {torch.float16: "f16", torch.bfloat16: "bf16"}
    name = options.quantization
    if name is None:
        return KINDS[narrow.get(options.dtype or torch.float32, "f32")]
    if options.dtype is not None:
        raise ModelwrightError(f"--dtype: --quantize {name} says it already; leave one out")
    if name not in KINDS:
        raise ModelwrightError(f"--quantize: {name!r} is none of {', '.join(KINDS)}")
    return KINDS[name]


def _path(folder: Path, kind: Kind) -> Path:
    return folder / f"model-{kind.name}.gguf"


def _context(subject: Subject) -> int:
    return int(cast(Any, subject.config).context)


def _extra(config: ModelConfig) -> dict[str, Tensor]:
    """What the frequencies of Llama 3's stretched positions are divided by, pair by pair."""
    if not isinstance(config, llama.Config) or config.rope_scaling != "llama3":
        return {}
    rope = config.rope(local=False)
    whole = dataclasses.replace(rope, scaling="none").frequencies()
    return {"rope_freqs.weight": whole / rope.frequencies()}


# Read back -----------------------------------------------------------------------------------


def _replayed(
    subject: Subject, config: ModelConfig, content: Content, filled: nn.Module
) -> Replayed:
    """The stored samples through the trained model, and through one ``filled`` from the file."""
    names = [subject.name(i) for i in range(len(subject.batches))]
    kind, exact = content.kind, TOLERANCES[torch.float32]
    # A router that is rounded may send a token elsewhere: then only the loss is comparable.
    routed = _routed(config, kind)

    def outputs(model: nn.Module, number: int) -> Sequence[Tensor]:
        batch = subject.batches[number]
        whole = model.held[0] if isinstance(model, _Whole) else model
        loss = subject.objective.loss(whole, batch)
        return [loss] if routed else [loss, whole(**batch.inputs)]

    trained = subject.model
    if config is not subject.config:
        # The decoder of ours stands as another family's: first that must be the same function.
        trained = _filled(config, content.tensors)
        replay(_Whole(subject.model), _Whole(trained), names, outputs, exact)
    if routed or not kind.layers:
        trained, filled = _Whole(trained), _Whole(filled)
    return replay(trained, filled, names, outputs, kind.outputs)


def _routed(config: ModelConfig, kind: Kind) -> bool:
    """Whether rounding may send a token to other experts."""
    return isinstance(config, mixture.Config) and kind.name != "f32"


def _filled(config: ModelConfig, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A model with these tensors."""
    model = config.build()
    model.load_state_dict(dict(tensors))
    return model.eval()


class _Whole(nn.Module):
    """A model whose parts are not looked at."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.held = [model]  # in a list, so that it is no part of this one


def _same_tokens(subject: Subject, settings: vocabulary.Settings) -> None:
    """The tokenizer that the file describes must give the stored tokens again."""
    tokenizer = vocabulary.tokenizer_of(settings)
    for number, text in _texts(subject):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        _compare(subject, number, ids, text, "the written tokenizer")


def _texts(subject: Subject) -> list[tuple[int, str]]:
    """All stored texts with the numbers of their examples."""
    return [(i, turn.text) for i, e in enumerate(subject.examples) for turn in e.turns]


def _compare(subject: Subject, number: int, ids: Sequence[int], text: str, who: str) -> None:
    meant = cast(Any, subject.codec).tokens(text)
    same_tokens(ids, meant, subject.example_name(number), who)


# llama.cpp -----------------------------------------------------------------------------------


def _same_ids(subject: Subject, server: tools.Server) -> None:
    """llama.cpp must give the stored tokens for the stored texts."""
    codec = cast(Any, subject.codec)
    for number, text in _texts(subject):
        _compare(subject, number, server.tokens(text), text, "llama.cpp's tokenizer")
    pairs = [("'a'", server.tokens("a", framed=True), [*codec.before, *codec.tokens("a")])]
    if codec.template:
        said = [text_turn(role, text) for role, text in _CONVERSATION]
        messages = [{"role": role, "content": text} for role, text in _CONVERSATION]
        pairs.append(("a conversation", server.prompt(messages), codec.prompt(said)))
    for what, found, meant in pairs:
        if found != meant:
            raise ModelwrightError(
                f"export: llama.cpp reads {what} as the tokens {found}, {meant} are meant; "
                "nothing was exported"
            )


def _same_answers(subject: Subject, filled: nn.Module, server: tools.Server, kind: Kind) -> str:
    """Its greedy continuations of the stored samples must be those of our model.

    Our models read what llama.cpp wrote, so that every step is compared, also behind one where
    two tokens are equally likely. The model ``filled`` from the file judges llama.cpp's graph; the
    trained one, what the file's type costs.

    Returns:
        What was found, in a line.
    """
    codec, context, allowed = cast(Any, subject.codec), _context(subject), _allowed(subject, kind)
    same = steps = apart = 0
    largest = cost = 0.0
    for number, example in enumerate(subject.examples):
        prompt = codec.layout(example.turns)[0][: min(_PROMPT, context // 2)]
        wanted = min(STEPS, context - len(prompt))
        found = server.greedy(prompt, wanted, min(LIKELY, codec.vocabulary), codec.spell)
        read = torch.tensor([[*prompt, *(step.token for step in found[:-1])]])
        with torch.inference_mode():
            both = [m(read)[0, len(prompt) - 1 :].double() for m in (filled, subject.model)]
        for at, (step, one, other) in enumerate(zip(found, *both, strict=True)):
            off, steps = _off(step, one), steps + 1
            same += int(other.argmax()) == step.token
            cost = max(cost, _off(step, other))
            if off <= allowed:
                largest = max(largest, off)
                continue
            apart += 1
            if not _routed(subject.config, kind) or 4 * apart > len(subject.examples) * STEPS:
                raise ModelwrightError(
                    f"export: llama.cpp answers differently: example {number + 1} of "
                    f"{subject.part}, token {at + 1} after {len(prompt)}: log-probabilities "
                    f"differ by {off:.2g} of the spread of the logits, {allowed:.0e} is "
                    "allowed; nothing was exported"
                )
    elsewhere = f"; {apart} steps apart, where a token went to other experts" if apart else ""
    return (
        f"llama.cpp: the same ids of {len(_texts(subject))} texts; {same} of {steps} greedy tokens "
        f"as trained; log-probabilities within {largest:.1e} of the file's in float32 "
        f"({allowed:.0e} allowed) and {cost:.1e} of the trained, as shares of the spread of the "
        f"logits{elsewhere}"
    )


def _allowed(subject: Subject, kind: Kind) -> float:
    """How far log-probabilities may be; llama.cpp has its GELU from a table in float16."""
    curved = str(getattr(subject.config, "activation", "")).startswith("gelu")
    return max(kind.logits, 1e-2) if curved else kind.logits


def _off(step: tools.Step, logits: Tensor) -> float:
    """The largest difference of log-probabilities as a share of the spread of our logits."""
    theirs = {token: value for token, value in step.likely.items() if value > _LEAST}
    if not theirs:
        return 0.0
    ours = logits.log_softmax(dim=-1)[list(theirs)]
    spread = float((logits - logits.mean()).abs().max().clamp_min(1e-12))
    stated = torch.tensor(list(theirs.values()), dtype=torch.float64)
    return float((ours - stated).abs().max()) / spread
