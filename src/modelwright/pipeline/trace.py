"""What a training step of a model would hold, found without holding it.

The model is built on the meta device and run on tensors that have a shape and a type but no
numbers (torch's fake tensors), as they would be on a CPU, forward and backward: so autograd saves
what it would save, autocast makes the copies it would make, and a model of 70 billion parameters
takes no memory. Whatever an operator takes and gives back is written down, and the peak read off.
What an operator takes for itself while it works (scratch, packed weights) is not seen.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    unset_fake_temporarily,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from modelwright.models.model import ModelConfig
from modelwright.models.reading import Inputs
from modelwright.training.forecast import WASTE

LARGE = float(32 << 20)  # bytes from which glibc maps a piece by itself, on 64 bits, at the latest
UNKNOWN = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)


@dataclass(frozen=True)
class Trace:
    """What one forward and backward pass holds beside the parameters, in bytes at its peak.

    The peak is where that and what the heap wastes are the most.

    Attributes:
        passes: all there is: activations, copies, gradients so far.
        gradients: of it what the gradients of the parameters take, which stay.
        heap: of the rest what lies in the C library's heap, being smaller than ``LARGE``.
        again: the most there is at once of what is no gradient of a parameter; with micro-batches
            it comes on top of all gradients, which are there from the first on.
        largest: of the gradients, which a further micro-batch makes once more to add it.
        shapes: of what each module gives, by its name.
        operators: how many were called that are no mere views, forward and backward.
        moved: what these read and wrote, each for itself, nothing kept in caches.
    """

    passes: float
    gradients: float
    heap: float
    again: float
    largest: float
    shapes: dict[str, tuple[int, ...]]
    operators: int = 0
    moved: float = 0.0


Change = Callable[[nn.Module], object]  # what is done to a model in place before it is trained


def meta(config: ModelConfig, change: Change | None = None) -> nn.Module:
    """The module on the meta device: shapes without memory."""
    with torch.device("meta"):
        model = config.build()
        if change is not None:
            change(model)
        return model


def inputs_for(config: ModelConfig, rows: int) -> Inputs | None:
    """A batch of ``rows`` rows as the family reads it, without memory; None: it does not say."""
    with torch.device("meta"):
        return config.inputs(rows)


def item_flops(config: ModelConfig) -> float:
    """FLOPs of forward and backward an item; what a family builds to count takes no memory."""
    with torch.device("meta"):
        return config.flops_per_item()


def traced(
    config: ModelConfig,
    inputs: Inputs,
    precision: str,
    *,
    learning: bool = True,
    recompute: bool = False,
    change: Change | None = None,
) -> Trace | None:
    """Run one forward and backward pass on no memory.

    Not ``learning``, the forward pass alone, for shapes: a batch of one row will do for every norm.
    With ``recompute`` the activations of the blocks are computed again, where the family can;
    ``change`` is done to the model first.
    None where what is done depends on the numbers.
    """
    model = meta(config, change).train(learning)
    if recompute and hasattr(model, "recompute"):
        setattr(model, "recompute", True)  # noqa: B010 - not every module has it
    documents = _bounds(inputs)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _Known():
            _fill(model)
            return _traced(model, inputs, documents, precision, learning=learning)
    except UNKNOWN:
        return None


class _Known(TorchFunctionMode):
    """What is computed of known numbers alone stays known: where documents begin decides shapes."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        tensors = [x for x in (*args, *given.values()) if isinstance(x, Tensor)]
        if tensors and not any(isinstance(x, FakeTensor) for x in tensors):
            with unset_fake_temporarily():
                return func(*args, **given)
        return func(*args, **given)


def _bounds(inputs: Inputs) -> Tensor | None:
    if "tokens" not in inputs.tensors:
        return None
    rows, length = inputs.tensors["tokens"].shape
    return torch.arange(0, rows * length + 1, length)


def _fill(model: nn.Module) -> None:
    """Fake tensors on the CPU in place of those on the meta device; shared ones stay shared."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    hollow = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    if isinstance(tensor, nn.Parameter):
                        hollow = nn.Parameter(hollow, tensor.requires_grad)
                    made[id(tensor)] = hollow
                store[name] = made[id(tensor)]  # type: ignore[assignment]


def _traced(
    model: nn.Module,
    inputs: Inputs,
    documents: Tensor | None,
    precision: str,
    *,
    learning: bool,
) -> Trace:
    given = {n: torch.zeros(t.shape, dtype=t.dtype) for n, t in inputs.tensors.items()}
    narrow = precision != "float32"
    ledger = _Ledger((*model.parameters(), *model.buffers()))
    with (
        ledger,
        torch.set_grad_enabled(learning),
        torch.autocast("cpu", torch.bfloat16, enabled=narrow),
        _shapes(model) as shapes,
    ):
        made = _run(model, given, documents)
        loss = _loss(model, made) if learning else None
        del made
    if loss is None:
        return Trace(0.0, 0.0, 0.0, 0.0, 0.0, shapes)
    with ledger:
        loss.backward()  # type: ignore[no-untyped-call]
    grads = [p.grad.untyped_storage() for p in model.parameters() if p.grad is not None]
    return ledger.trace({s._cdata for s in grads}, shapes)


def _loss(model: nn.Module, made: Any) -> Tensor:
    """A loss that makes what the objectives' losses make: of each output once saved, once anew."""
    if _stream(model) is not None:
        hidden = made.flatten(0, -2)
        targets = torch.zeros(len(hidden), dtype=torch.int64)
        total: Tensor = cast(Any, model).negative_log_likelihood(hidden, targets)
        return total
    real = [t.float() for t in _tensors(made) if t.is_floating_point()]
    return torch.stack([(t - 1.0).square().mean() for t in real]).sum()


def _touched(tensor: Tensor) -> float:
    """Bytes of it: what is only repeated, as by ``expand``, counts once."""
    whole = float(tensor.untyped_storage().nbytes())
    return min(whole, float(tensor.numel() * tensor.element_size()))


def _with_waste(moment: tuple[float, float, float]) -> float:
    live, _, heap = moment
    return live + WASTE["cpu"] * heap


class _Ledger(TorchDispatchMode):
    """Writes down when each piece of memory is taken and given back."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.own = [t.untyped_storage() for t in own]  # held: their numbers are not used again
        self.known = {s._cdata for s in self.own}
        self.events: list[tuple[int, float]] = []  # (which piece, bytes taken or given back)
        self.live: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self.operators, self.moved = 0, 0.0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            self._note(tensor.untyped_storage())
        if not func.is_view and _tensors(made):  # nor a question, as for a tensor's device
            self.operators += 1
            self.moved += sum(map(_touched, _tensors([*args, *(kwargs or {}).values(), made])))
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, float(storage.nbytes())
        if key in self.known or key in self.live:
            return
        piece = len(self.events)

        def gone(_: Any) -> None:
            self.events.append((piece, -size))
            self.live.pop(key, None)

        self.events.append((piece, size))
        self.live[key] = piece, weakref.ref(storage, gone)

    def trace(self, gradients: set[int], shapes: dict[str, tuple[int, ...]]) -> Trace:
        """What was found; ``gradients`` are the pieces that hold the parameters' gradients."""
        kept = {self.live[key][0] for key in gradients if key in self.live}
        live = heap = held = again = 0.0
        most, largest = (0.0, 0.0, 0.0), 0.0
        for piece, size in list(self.events):
            live += size
            if piece in kept:
                held, largest = held + size, max(largest, size)
            elif abs(size) <= LARGE:
                heap += size
            most = max(most, (live, held, heap), key=_with_waste)
            again = max(again, live - held)
        return Trace(*most, again, largest, shapes, self.operators, self.moved)


def _run(model: nn.Module, given: dict[str, Tensor], documents: Tensor | None) -> Any:
    """The forward pass up to where the loss begins."""
    call = _stream(model) or model
    known = inspect.signature(model.forward if call is model else call).parameters
    if documents is not None:
        given |= {n: documents for n in ("starts", "source_starts") if n in known}
    return call(**given)


def _stream(model: nn.Module) -> Callable[..., Any] | None:
    """What a loss with a fused head begins from: ``hidden`` of the same arguments, if any."""
    hidden = getattr(model, "hidden", None)
    if hidden is None or not hasattr(model, "negative_log_likelihood"):
        return None
    starts = inspect.signature(hidden).parameters.get("starts")
    same = starts is not None and starts.default is not starts.empty
    return cast("Callable[..., Any]", hidden) if same else None


@contextmanager
def _shapes(model: nn.Module) -> Iterator[dict[str, tuple[int, ...]]]:
    """The shape of what every module gives, the first time."""
    found: dict[str, tuple[int, ...]] = {}
    handles = []
    for name, module in model.named_modules():

        def note(_module: nn.Module, _given: Any, made: Any, name: str = name) -> None:
            tensors = _tensors(made)
            if len(tensors) == 1:
                found.setdefault(name, tuple(tensors[0].shape))

        handles.append(module.register_forward_hook(note))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(made: Any) -> list[Tensor]:
    """Every tensor in what a module gives."""
    if isinstance(made, Tensor):
        return [made]
    if isinstance(made, dict):
        made = list(made.values())
    return [t for part in made for t in _tensors(part)] if isinstance(made, list | tuple) else []
