"""One new token a row through all blocks of a packed decoder, in one call of a kernel.

Decoding one token through modules costs a few microseconds for every operation, which with few bits
a weight is as long as the products take. So a block says once what it does, in the words of
``Steps``, and a token is one call (``kernels.quantized.run_steps``). The modules stay the meaning:
what a block writes here is held against its ``cached`` by tests.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.kernels.quantized import GROUP, KINDS, Step, available, run_steps
from modelwright.models.attention import Cache
from modelwright.models.quantized import PackedLinear

_NORM, _PRODUCT, _ATTEND, _GATE, _MIX = range(5)
ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "relu": 2, "relu2": 3, "gelu": 4}
Table = tuple[Tensor, Tensor] | None  # cosine and sine
_HEAD = 256  # widest head that the kernel has room for
# The buffers are a model's, and threads may share it. Not one of a model's own: models are copied.
_ONE = threading.Lock()


class UnsteppableError(Exception):
    """A part of a block has no step."""


class Steps:
    """Steps written down, with the buffers between them; ``rows`` is the most of a call.

    ``stream`` (rows, width) is what blocks add to, ``first`` what it was before them.
    """

    def __init__(self, model: nn.Module, rows: int, width: int) -> None:
        kinds = {m.kind for m in model.modules() if isinstance(m, PackedLinear)}
        if len(kinds) != 1 or width % GROUP:
            raise UnsteppableError
        self.rows, self._kind = rows, KINDS[kinds.pop()]
        self._list: list[Step] = []
        self._held: list[Tensor] = []  # what pointers of steps point to stays alive
        self._attends: list[int] = []  # numbers of the steps that reach into the cache
        self.tables: list[Table] = []  # of every block so far
        self._extras: list[Tensor | None] = []
        self._widest = width
        self.stream, self.first = self.buffer(width), self.buffer(width)

    def buffer(self, width: int) -> Tensor:
        """Numbers (rows, width) that steps write and read."""
        made = torch.zeros(self.rows, width)
        self._held.append(made)
        return made

    def begin(self, table: Table, known: Table) -> None:
        """The steps of another block; ``known`` are the buffers of its rotary ``table``, if any."""
        if table is not None and known is None:
            known = (self.buffer(table[0].shape[-1]), self.buffer(table[0].shape[-1]))
        self.tables.append(known)
        self._extras.append(None)

    def given(self, width: int) -> Tensor:
        """The buffer of what this block is given with every token."""
        made = self._extras[-1] = self.buffer(width)
        return made

    def _add(self, op: int, width: int, *tensors: Tensor | None, **values: Any) -> Step:
        names = ("first", "second", "third", "to", "weight", "bias")
        given = dict(zip(names, tensors, strict=False))
        self._held += [t for t in tensors if t is not None]
        pointers = {k: t.data_ptr() for k, t in given.items() if t is not None}
        step = Step(op=op, kind=self._kind, wait=1, width=width, **pointers, **values)
        self._list.append(step)
        return step

    def norm(self, module: Any, source: Tensor | None = None) -> None:
        """What follows multiplies the normed stream: RMSNorm of any family, or LayerNorm."""
        source = self.stream if source is None else source
        if source.shape[1] % GROUP:
            raise UnsteppableError
        if isinstance(module, nn.LayerNorm):
            gain, bias = module.weight, module.bias
        else:
            gain, bias = module.gain, None
            if getattr(module, "centred", False):
                gain = 1.0 + gain
        held = [None if t is None else t.detach().float().contiguous() for t in (gain, bias)]
        centres = int(isinstance(module, nn.LayerNorm))
        self._add(
            _NORM, source.shape[1], source, None, None, None, *held, eps=module.eps, centres=centres
        )

    def project(self, module: nn.Module, *, onto: Tensor | None = None) -> Tensor:
        """A product with what was made last: a new buffer, or added ``onto`` one."""
        if not isinstance(module, PackedLinear) or module.inputs % GROUP:
            raise UnsteppableError
        last = self._list[-1]
        if last.op == _PRODUCT and last.width == module.inputs and onto is None:
            last.wait = 0  # both read the same and write apart
        to = self.buffer(module.outputs) if onto is None else onto
        self._widest = max(self._widest, module.inputs)
        bias = None if module.bias is None else module.bias.detach()
        shape = {"width": module.inputs, "outputs": module.outputs}
        self._add(
            _PRODUCT,
            shape["width"],
            None,
            None,
            None,
            to,
            module.data,
            bias,
            outputs=shape["outputs"],
            adds=int(onto is not None),
        )
        return to

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attention: Any,
        *,
        norms: tuple[Any, Any] | None = None,
        joined: bool = False,
    ) -> None:
        """Put keys and values into the cache of the next layer and attend.

        ``joined``: the three lie one after another in each row of ``q``. ``norms`` of queries and
        keys come before their rotation.
        """
        heads, kv_heads, d = attention.heads, attention.kv_heads, attention.head_width
        if d % GROUP or d > _HEAD:
            raise UnsteppableError
        strides = [q.shape[1], k.shape[1], v.shape[1]]
        if joined:
            k, v = q[:, heads * d :], q[:, (heads + kv_heads) * d :]
            strides = [q.shape[1]] * 3
        gains = [None, None]
        if norms is not None:
            gains = [(1.0 + n.gain if getattr(n, "centred", False) else n.gain) for n in norms]
            gains = [cast(Any, g).detach().float().contiguous() for g in gains]
        step = self._add(
            _ATTEND,
            heads * d,
            q,
            k,
            v,
            None,
            *gains,
            heads=heads,
            kv_heads=kv_heads,
            head=d,
            window=getattr(attention, "window", 0),
            scale=getattr(attention, "scale", d**-0.5),
            eps=norms[0].eps if norms else 0.0,
        )
        step.strides[:] = strides
        if (table := self.tables[-1]) is not None:
            if table[0].shape[1] * 2 != d:
                raise UnsteppableError
            step.cos, step.sin = (t.data_ptr() for t in table)
        self._widest = max(self._widest, heads * d)
        self._attends.append(len(self._list) - 1)

    def gate(self, activation: str, x: Tensor, times: Tensor | None = None) -> None:
        """What follows multiplies f(x) * times, or f(x)."""
        if activation not in ACTIVATIONS or x.shape[1] % GROUP:
            raise UnsteppableError
        self._widest = max(self._widest, x.shape[1])
        self._add(_GATE, x.shape[1], x, times, activation=ACTIVATIONS[activation])

    def mix(self, scales: Tensor, x: Tensor, y: Tensor, to: Tensor) -> None:
        """``to`` = scales[0] x + scales[1] y."""
        a, b = scales.detach().float().tolist()
        self._add(_MIX, x.shape[1], x, y, None, to, eps=a, scale=b)

    def finished(self) -> Steps:
        """Ready to run."""
        self._array = (Step * len(self._list))(*self._list)
        self._room = torch.zeros(self.rows * (self._widest // GROUP) * 72, dtype=torch.uint8)
        self._at: list[tuple[int, int, torch.dtype]] = []
        return self

    def run(
        self, x: Tensor, cache: Cache, tables: Sequence[Table], extras: Sequence[Tensor | None]
    ) -> Tensor:
        """See ``Stepping.__call__``."""
        at = [(t.data_ptr(), t.shape[2], t.dtype) for t in (*cache.keys, *cache.values)]
        if at != self._at:
            for number, k, v in zip(self._attends, cache.keys, cache.values, strict=True):
                step = self._array[number]
                step.keys, step.values, step.capacity = k.data_ptr(), v.data_ptr(), k.shape[2]
                step.half = k.dtype == torch.bfloat16
            self._at = at
        count = len(x)
        self.stream[:count] = x[:, 0]
        self.first[:count] = x[:, 0]
        pairs = zip(self.tables, tables, strict=True)
        for mine, table in {id(mine): (mine, table) for mine, table in pairs}.values():
            if mine is not None and table is not None:
                mine[0][:count] = table[0].view(count, -1)
                mine[1][:count] = table[1].view(count, -1)
        for extra, buffer in zip(extras, self._extras, strict=True):
            if extra is not None and buffer is not None:
                buffer[:count] = extra[:, 0]
        run_steps(self._array, cache.lengths.contiguous(), self._room)
        return self.stream[:count, None].clone()


class Stepping:
    """What a packed model says of its blocks, and the call that runs it.

    The model's blocks have ``write(steps, extra)``; one that has not, or whose parts have no step,
    goes on by its modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = [model]  # in a list: this belongs to the model, not the model to this
        self._steps: Steps | None = None
        self._offered = any(isinstance(m, PackedLinear) for m in model.modules()) and available()

    def __deepcopy__(self, memo: dict[int, Any]) -> Stepping:
        """Of the copied model; what is written down points into the old one and is left behind."""
        made = object.__new__(Stepping)
        made._model = copy.deepcopy(self._model, memo)
        made._steps, made._offered = None, self._offered
        return made

    def __call__(
        self, x: Tensor, cache: Cache, tables: Sequence[Table], extras: Sequence[Tensor | None]
    ) -> Tensor | None:
        """The stream (B, 1, width) behind the blocks; None where steps are not offered.

        Args:
            x: (B, 1, width), the stream before them.
            cache: of these rows, without the token.
            tables: cosine and sine (B, 1, 1, d/2) of every layer, or None.
            extras: (B, 1, width) or None for every layer: what its ``write`` is given a buffer for.
        """
        keys = cache.keys[0]
        known = keys.dtype in (torch.float32, torch.bfloat16)
        plain = keys.device.type == "cpu" and known and keys.is_contiguous()
        if not (self._offered and plain):
            return None
        with _ONE:
            if self._steps is None or len(x) > self._steps.rows:
                try:
                    self._steps = self._written(len(x), x.shape[-1], tables, extras)
                except UnsteppableError:
                    self._offered = False
                    return None
            return self._steps.run(x, cache, tables, extras)

    def _written(
        self,
        rows: int,
        width: int,
        tables: Sequence[Table],
        extras: Sequence[Tensor | None],
    ) -> Steps:
        (model,) = self._model
        steps = Steps(model, rows, width)
        seen: list[Table] = []
        for block, table, extra in zip(cast(Any, model).blocks, tables, extras, strict=True):
            if not hasattr(block, "write"):
                raise UnsteppableError
            # Layers that rotate alike are given one table.
            known = (m for m, t in zip(steps.tables, seen, strict=True) if t is table)
            steps.begin(table, next(known, None))
            seen.append(table)
            block.write(steps, None if extra is None else steps.given(extra.shape[-1]))
        return steps.finished()
