"""Where the time of a step goes: a trace of some steps, and their costs by part, operator, module.

Profiling does not change training (law 12): what it adds are marks around calls and hooks that
look on. It costs time, so profiled steps are slower than the rest.

A step's time is divided by self time: an event's own, without the events inside it. Events
between steps (validation, saving) do not count. The cost of a backward node goes to the module
whose forward call made it, by the sequence number that both carry.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.hooks import RemovableHandle

from modelwright.training.examples import Examples
from modelwright.training.parallel.placed import Placed
from modelwright.training.train import Trainer
from modelwright.types import Array, Batch, Columns, Objective

WARM_UP = 5  # steps before the first one that is traced
SHOWN = 12  # operators and modules in the table
MARK = "modelwright: "
MODULE = "module: "
BACKWARD = "autograd::engine::evaluate_function"
ENDS = MARK + "step ends"
PARTS = ("data", "forward", "backward", "optimizer", "other")
NO_OPERATOR = "(no operator: Python, waiting)"
NO_MODULE = "(no module: {})"  # of which part

Say = Callable[[str], None]

ADVICE = (
    (
        r"(add|b)?mm$|linear|convolution|baddbmm|addmv",
        "matrix products are the useful work; a precision or a batch that the machine multiplies "
        "faster helps, nothing else does",
    ),
    (r"dropout|bernoulli", "random numbers for dropout; set the model's dropout to 0 or lower it"),
    (
        r"attention|softmax",
        "attention grows with the square of the length; shorten model.context, or sort by length",
    ),
    (
        r"copy_|::to$|contiguous|clone|cat$|stack$",
        "memory is being copied; a larger model or batch makes that a smaller share",
    ),
    (r"_local_scalar_dense|item$|synchronize", "the host waits for the device; log less often"),
    (r"embedding|index|gather|scatter", "rows are looked up; a smaller codec.vocabulary helps"),
    (
        r"_foreach|_fused|Optimizer|lerp",
        "the update itself; a larger batch makes fewer updates of the same data",
    ),
    (
        re.escape(NO_OPERATOR),
        "operators are too small to fill the machine; raise the batch, or take fewer threads",
    ),
)


@dataclass(frozen=True)
class Cost:
    """A name, its share of the step (0..1), and how often it is called in one step."""

    name: str
    share: float
    calls: float


@dataclass(frozen=True)
class Costs:
    """Mean costs of one step over ``steps`` profiled ones.

    ``seconds`` is its wall time, ``unprofiled`` that of the fastest step before them (0: none).
    """

    steps: int
    seconds: float
    unprofiled: float
    parts: list[Cost]
    operators: list[Cost]
    modules: list[Cost]

    def lines(self) -> list[str]:
        """The costs as a person reads them, the last line with advice."""
        plain = f" ({self.unprofiled * 1e3:.2f} ms unprofiled)" if self.unprofiled else ""
        said = [f"{self.steps} steps of {self.seconds * 1e3:.2f} ms{plain}"]
        said.append("  ".join(f"{c.name} {c.share:.0%}" for c in self.parts))
        for title, costs in (("operator", self.operators), ("module", self.modules)):
            said.append(f"{'share':>6} {'calls':>7}  {title}")
            said += [f"{c.share:>6.1%} {c.calls:>7.1f}  {c.name}" for c in costs[:SHOWN]]
        return [*said, self.advice()]

    def advice(self) -> str:
        """One line: the largest cost, and what to do about it where that is known."""
        top = self.operators[0]
        known = next((text for sign, text in ADVICE if re.search(sign, top.name)), "")
        told = f"largest cost: {top.name}, {top.share:.0%} of a step"
        return f"{told}: {known}" if known else told


class Profiler:
    """Profiles ``steps`` steps of a training after a few of warm-up; 0 does nothing.

    ``close`` is safe at any time; what was traced until then is written to ``folder``.
    """

    def __init__(self, trainer: Trainer, steps: int, first: int, folder: Path, say: Say) -> None:
        self.trainer, self.folder, self.say = trainer, folder, say
        to_come = max(0, trainer.steps - first)
        self.wanted = min(steps, to_come)
        # The first traced step pays for the start of the tracing: it is traced, not counted.
        self.spare = int(self.wanted > 0 and to_come > self.wanted)
        self.wait = min(WARM_UP, max(0, to_come - self.wanted - self.spare))
        self.seconds: list[float] = []
        self.fastest = 0.0  # of the steps of the warm-up
        self.tracing: profile | None = None
        self.undo: list[Callable[[], None]] = []
        if self.wanted and not self.wait:
            self._start()

    def after_step(self, seconds: float) -> None:
        """Told at once after every step, with the time that it took."""
        if self.tracing is not None:
            with record_function(ENDS):
                self.seconds.append(seconds)
            if len(self.seconds) == self.wanted + self.spare:
                self.close()
        elif self.wanted:
            self.fastest = min(self.fastest or seconds, seconds)
            self.wait -= 1
            if self.wait <= 0:
                self._start()

    def _start(self) -> None:
        self._mark()
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it reports its own start and stop
        on_gpu = self.trainer.device.type == "cuda"
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
        self.tracing = profile(activities=activities, acc_events=True)
        self.tracing.start()

    def close(self) -> None:
        """Stop, take the marks away, write the trace and say the costs."""
        if self.tracing is None:
            return
        tracing, self.tracing, self.wanted = self.tracing, None, 0
        tracing.stop()
        for undo in self.undo:
            undo()
        counted = self.seconds[self.spare :]
        if not counted:
            return
        costs = analysed(
            tracing.events(),  # type: ignore[no-untyped-call]
            self.seconds,
            self.spare,
            self.fastest,
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_trace(tracing, self.folder / "trace.json.gz")
            (self.folder / "costs.json").write_text(json.dumps(asdict(costs), indent=1))
        except OSError as error:  # a full disk ends the profile, not the training
            self.say(f"profile: {self.folder}: cannot be written ({error.strerror})")
        for line in costs.lines():
            self.say(f"profile: {line}")
        self.say(f"profile: {self.folder / 'trace.json.gz'} (chrome://tracing, ui.perfetto.dev)")

    def _mark(self) -> None:
        """Put marks around the trainer's parts, and hooks on the modules that are not compiled."""
        trainer = self.trainer
        objective, examples, held = trainer.objective, trainer.examples, trainer.held
        trainer.objective = cast(Objective, _MarkedObjective(objective))
        trainer.examples = _MarkedExamples(examples)
        trainer.held = cast(Placed, _MarkedPlaced(held))

        def back() -> None:
            trainer.objective, trainer.examples, trainer.held = objective, examples, held

        self.undo.append(back)
        modules = dict(trainer.model.named_modules())
        # A hook would break a compiled graph in two, and with it the order of its sums.
        if any(getattr(m, "_compiled_call_impl", None) for m in modules.values()):
            return
        if trainer.whole is not None:
            return
        open_calls: list[Any] = []
        for name, module in modules.items():
            label = MODULE + (re.sub(r"\.\d+(?=\.|$)", ".*", name) or type(module).__name__)
            self.undo += [hook.remove for hook in _hooks(module, label, open_calls)]


def _write_trace(tracing: profile, path: Path) -> None:
    """Export the trace and compress it in blocks: torch's own way, line by line, takes minutes."""
    whole = path.with_suffix("")
    tracing.export_chrome_trace(str(whole))
    with whole.open("rb") as source, gzip.open(path, "wb", compresslevel=3) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    whole.unlink()


class _MarkedObjective:
    """An objective whose making of batches shows in the trace; all else is the inner one's."""

    def __init__(self, inner: Objective) -> None:
        self.inner = inner

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:
        """The inner objective's batch."""
        with record_function(MARK + "data"):
            return self.inner.collate(columns, generator)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _MarkedPlaced:
    """A placed model whose forward passes show in the trace; all else is the inner one's."""

    def __init__(self, inner: Placed) -> None:
        self.inner = inner

    def loss(self, batch: Batch, *, last: bool = True) -> Tensor:
        """The inner loss."""
        with record_function(MARK + "forward"):
            return self.inner.loss(batch, last=last)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _MarkedExamples:
    """Examples whose reading shows in the trace."""

    def __init__(self, inner: Examples) -> None:
        self.inner, self.per_step, self.total = inner, inner.per_step, inner.total

    def __call__(self, step: int) -> list[Columns]:
        """The inner examples of a step."""
        with record_function(MARK + "data"):
            return self.inner(step)

    def rows(self, step: int) -> list[Array]:
        """The inner examples' row numbers."""
        return self.inner.rows(step)


def _hooks(module: nn.Module, label: str, open_calls: list[Any]) -> Iterator[RemovableHandle]:
    """Marks around the calls of one module; ``open_calls`` are those under way, of all modules."""

    def enter(*_: Any) -> None:
        mark = record_function(label)
        mark.__enter__()  # type: ignore[no-untyped-call]
        open_calls.append(mark)

    def leave(*_: Any) -> None:
        open_calls.pop().__exit__(None, None, None)

    yield module.register_forward_pre_hook(enter)
    yield module.register_forward_hook(leave, always_call=True)


def analysed(
    events: Sequence[Any], seconds: Sequence[float], spare: int, unprofiled: float = 0.0
) -> Costs:
    """The costs of the steps that took ``seconds``, the first ``spare`` of them left out.

    ``events`` are torch's ``FunctionEvent``s of all steps. On a GPU the time of an event is that
    of the kernels it started, else that of the processor.
    """
    events = sorted(events, key=lambda e: e.time_range.start)
    ends = [e.time_range.start for e in events if e.name == ENDS]
    spans = [(end - s * 1e6, end) for end, s in zip(ends, seconds, strict=True)][spare:]
    events = list(_inside([e for e in events if e.device_type.name == "CPU"], spans))
    own = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    homes = _homes(events)
    parts: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in events:
        part, module = homes[id(event)]
        cost = getattr(event, own)
        parts[part] += cost
        modules[module or NO_MODULE.format(part)] += cost
        calls[event.name] += 1
        if not event.name.startswith((MARK, MODULE)):
            operators[event.name] += cost
    steps, total = len(spans), sum(end - start for start, end in spans)
    parts["other"] += total - parts.total()
    operators[NO_OPERATOR] = total - operators.total()
    modules[NO_MODULE.format("other")] += total - modules.total()

    def ranked(costs: Counter[str]) -> list[Cost]:
        found = [(n, c / total) for n, c in costs.most_common() if c > 0]
        return [
            Cost(n, share, calls[MODULE + n if n in modules else n] / steps) for n, share in found
        ]

    shown = [Cost(p, max(0.0, parts[p]) / total, 0.0) for p in PARTS]
    mean = total / steps / 1e6
    return Costs(steps, mean, unprofiled, shown, ranked(operators), ranked(modules))


def _inside(events: Sequence[Any], spans: Sequence[tuple[float, float]]) -> Iterator[Any]:
    """The events, in order, that begin in one of the spans, in order."""
    at = 0
    for event in events:
        while at < len(spans) and event.time_range.start >= spans[at][1]:
            at += 1
        if at < len(spans) and event.time_range.start >= spans[at][0]:
            yield event


def _homes(events: Sequence[Any]) -> dict[int, tuple[str, str]]:
    """The part and the module that each event belongs to, by its ``id``; parents come first."""
    homes: dict[int, tuple[str, str]] = {}
    makers: dict[int, str] = {}  # sequence number of a backward node -> module of its forward call
    for event in events:
        part, module = homes.get(id(event.cpu_parent), ("other", ""))
        name = event.name
        if name.startswith(BACKWARD):
            part = "backward" if part == "other" else part
            module = makers.get(event.sequence_nr, "")
        elif name.startswith(MODULE):
            module = name.removeprefix(MODULE)
        elif name.startswith("Optimizer."):
            part = "optimizer"
        elif name.startswith(MARK):
            part = name.removeprefix(MARK)
        if part == "forward" and event.sequence_nr >= 0:
            makers[event.sequence_nr] = module  # the last operator before the node made it
        homes[id(event)] = (part, module)
    return homes
