"""A model of which every process holds a part: FSDP2, tensor parallel, or both.

The optimisers see plain tensors that share memory with the shards: what works element by element
needs to know nothing of sharding, and nothing is dispatched twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.checkpoint import Piece, Region
from modelwright.errors import MachineError, ModelwrightError
from modelwright.training.parallel.placed import Loss, Placed
from modelwright.training.parallel.world import World
from modelwright.types import Batch, Objective


class Sharded(Placed):
    """Every process holds a part of every tensor: FSDP2, tensor parallel, or both.

    The optimisers see plain tensors that share memory with the shards: what works element by
    element needs to know nothing of sharding, and nothing is dispatched twice.
    """

    sharded = True

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        world: World,
        shard: str,
        precision: torch.dtype,
    ) -> None:
        super().__init__(model, objective, world)
        if world.mesh is None:
            raise MachineError("the processes are not connected; call World.connect first")
        self.mesh = world.mesh
        cut: dict[str, int] = {}  # name -> the dimension that tensor parallelism cuts
        self.partial: tuple[str, ...] = ()
        if world.tensor > 1:
            cut, self.partial = _tensor_parallel(model, self.mesh["tensor"], world.tensor)
        self.root = Loss(model, objective)
        names = self.mesh.mesh_dim_names or ()
        self.shards = 1
        if shard != "none":
            outer = ("replicate", "shard") if "replicate" in names else "shard"
            _fully_shard(self.root, model, self.mesh[outer], precision)
            self.shards = self.mesh["shard"].size()
        at = dict(zip(names, self.mesh.get_coordinate() or (), strict=True))
        self.first_copy = at.get("replicate", 0) == 0
        self.regions: dict[str, Region] = {}
        self.owned: set[str] = set()
        for name, p in model.named_parameters():
            region = Region.all(_shape(p))
            if name in cut:
                region = region.chunk(cut[name], world.tensor, at["tensor"])
            if self.shards > 1:
                region = region.chunk(0, self.shards, at["shard"])
            self.regions[name] = region
            if self.first_copy and (name in cut or at["tensor"] == 0):
                self.owned.add(name)
        locals_ = {n: _local(p) for n, p in model.named_parameters()}
        self.optimizable = _Parts(locals_)
        self.pairs = [(p, locals_[n]) for n, p in model.named_parameters()]
        self.named = {
            id(part): (n, p)
            for (n, p), part in zip(model.named_parameters(), locals_.values(), strict=True)
        }

    def loss(self, batch: Batch, *, last: bool = True) -> Tensor:
        """As on one process; copies of a shard exchange with the last micro-batch only."""
        if self.shards > 1:
            self.root.set_requires_all_reduce(last)  # type: ignore[operator]
        scale = self.world.parts if batch.count else 0.0
        loss: Tensor = self.root(batch) * scale
        return loss

    def evaluated(self, batch: Batch) -> Tensor:
        """The summed loss, through the hooks that collect the shards."""
        loss: Tensor = self.root(batch)
        return loss

    def clip(self, limit: float) -> Tensor:
        """The norm over all shards: each element of the whole gradient counts once."""
        import torch.distributed as dist  # noqa: PLC0415

        parts = [_gradient(p) for p, _ in self.pairs]
        self._add_up(parts)
        owned = [
            g
            for (p, part), g in zip(self.pairs, parts, strict=True)
            if g is not None and g.numel() and self._counts(part)
        ]
        device = self.pairs[0][1].device
        square = torch.zeros((), dtype=torch.float32, device=device)
        if owned:
            square = torch.stack(torch._foreach_norm(owned)).square().sum()
        dist.all_reduce(square)
        norm = square.sqrt()
        if math.isfinite(limit):
            scale = (limit / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([g for g in parts if g is not None], scale)
        return norm

    def _add_up(self, gradients: list[Tensor | None]) -> None:
        """Sum what the processes of one tensor group have each a share of."""
        import torch.distributed as dist  # noqa: PLC0415

        names = (self.named[id(part)][0] for _, part in self.pairs)
        open_ = [
            g
            for n, g in zip(names, gradients, strict=True)
            if g is not None and n.endswith(self.partial)
        ]
        if self.partial and open_:
            flat = torch.cat([g.flatten() for g in open_])
            dist.all_reduce(flat, group=self.mesh["tensor"].get_group())
            for g, part in zip(open_, torch.split(flat, [g.numel() for g in open_]), strict=True):
                g.copy_(part.view_as(g))

    def _counts(self, part: nn.Parameter) -> bool:
        return self.named[id(part)][0] in self.owned

    def hand_over(self) -> None:
        """Move the shards' gradients to the plain tensors."""
        for p, part in self.pairs:
            part.grad = _gradient(p)
            if part is not p:
                p.grad = None

    def plain(self) -> nn.Module:
        """A copy collected from the shards, on the first process."""
        state = {n: _full(t) for n, t in self.model.state_dict().items()}
        if not self.world.is_main:
            return self.model
        config: Any = self.model.config
        whole: nn.Module = config.build().to(self.pairs[0][1].device)
        whole.load_state_dict(state)
        return whole

    def whole(self, parameter: nn.Parameter, part: Tensor) -> Tensor:
        """Collect a tensor that is cut as ``parameter`` is."""
        from torch.distributed.tensor import DTensor  # noqa: PLC0415

        _, p = self.named[id(parameter)]
        if not isinstance(p, DTensor):
            return part
        return DTensor.from_local(
            part, p.device_mesh, p.placements, shape=p.shape, stride=p.stride(), run_check=False
        ).full_tensor()

    def part(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """What lies here of a whole tensor."""
        return self.regions[self.named[id(parameter)][0]].of(whole)

    # The state as pieces, for a checkpoint --------------------------------------------------

    def pieces(self, groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Piece]]:
        """The model's state and what is beside it, as this process holds them.

        What lies beside is named ``parameter:key`` and cut as its parameter is, if it has the
        same shape.
        """
        model: dict[str, Piece] = {}
        first: dict[int, str] = {}  # tied parameters have several names
        for name, t in self.model.state_dict(keep_vars=True).items():
            same = first.setdefault(id(t), name)
            if same != name:
                model[name] = replace(model[same], same_as=same)
            elif name in self.regions:
                model[name] = self._piece(name, _local(t))
            else:  # a buffer: the same everywhere
                model[name] = Piece(t, Region.all(t.shape), self.world.is_main)
        beside = {
            group: {key: self._beside(key, t) for key, t in named.items()}
            for group, named in groups.items()
        }
        return {"model": model, **beside}

    def _beside(self, key: str, tensor: Tensor) -> Piece:
        name = key.rpartition(":")[0]
        if name in self.regions and tensor.ndim and tensor.shape == self.regions[name].extent:
            return self._piece(name, tensor)
        return Piece(tensor, Region.all(tensor.shape), self.world.is_main)

    def _piece(self, name: str, tensor: Tensor) -> Piece:
        return Piece(tensor.detach(), self.regions[name], name in self.owned)

    def wanted(self, group: str, name: str, shape: tuple[int, ...]) -> Region:
        """Which part of a stored tensor this process wants."""
        owner = name if group == "model" else name.rpartition(":")[0]
        region = self.regions.get(owner)
        return region if region is not None and region.shape == shape else Region.all(shape)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the parameters that ``wanted`` asked for."""
        parts = dict(self.optimizable.named_parameters())
        if missing := parts.keys() - tensors.keys():
            raise ModelwrightError(f"checkpoint: it has no {min(missing)!r}; start a new run")
        for name, part in parts.items():
            part.copy_(tensors[name])

    def load_whole(self, state: Mapping[str, Tensor]) -> None:
        """Take this process's parts of a whole state."""
        self.load({name: region.of(state[name]) for name, region in self.regions.items()})


class _Parts(nn.Module):
    """Plain tensors under the names of the model they are parts of."""

    def __init__(self, parts: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.parts = parts

    def named_parameters(self, *_: Any, **__: Any) -> Any:
        """The parts, by the names of the wholes."""
        return iter(self.parts.items())

    def parameters(self, recurse: bool = True) -> Any:
        """The parts."""
        del recurse
        return iter(self.parts.values())


def _fully_shard(root: nn.Module, model: nn.Module, mesh: Any, precision: torch.dtype) -> None:
    """FSDP2 on every block and on the rest: a block is collected just before it is needed."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # noqa: PLC0415

    narrow = None if precision == torch.float32 else precision
    # Inputs stay as they are: autocast decides about them, as it does on one process.
    policy = MixedPrecisionPolicy(narrow, torch.float32, cast_forward_inputs=False)
    for block in getattr(model, "blocks", ()):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(root, mesh=mesh, mp_policy=policy)


def _tensor_parallel(
    model: nn.Module, mesh: Any, size: int
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Cut the layers that the model's plan names.

    Returns:
        The dimension along which each cut parameter is cut, and the ends of the names of whole
        parameters of whose gradient each process has a share.
    """
    from torch.distributed.tensor import DTensor, Shard  # noqa: PLC0415
    from torch.distributed.tensor.parallel import parallelize_module  # noqa: PLC0415

    plan = getattr(model, "tensor_plan", None)
    if plan is None:
        raise ModelwrightError("parallel.tensor: this model family has no plan; use tensor: 1")
    styles, partial = plan(size)
    parallelize_module(model, mesh, styles)
    cut = {}
    for name, p in model.named_parameters():
        if isinstance(p, DTensor) and isinstance(p.placements[0], Shard):
            cut[name] = p.placements[0].dim
    return cut, partial


def _local(p: Tensor) -> nn.Parameter:
    """The plain tensor behind a sharded parameter, sharing its memory."""
    from torch.distributed.tensor import DTensor  # noqa: PLC0415

    if isinstance(p, DTensor):
        part: Tensor = DTensor.to_local(p.detach())  # type: ignore[arg-type]
        return nn.Parameter(part, requires_grad=p.requires_grad)
    return p if isinstance(p, nn.Parameter) else nn.Parameter(p, requires_grad=p.requires_grad)


def _gradient(p: nn.Parameter) -> Tensor | None:
    """The local part of a gradient, summed where DTensor has left a sum open."""
    from torch.distributed.tensor import DTensor  # noqa: PLC0415

    grad = p.grad
    if not isinstance(grad, DTensor):
        return grad
    if isinstance(p, DTensor) and grad.placements != p.placements:
        grad = grad.redistribute(p.device_mesh, p.placements)
        p.grad = grad
    return grad.to_local()


def _full(tensor: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor  # noqa: PLC0415

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
