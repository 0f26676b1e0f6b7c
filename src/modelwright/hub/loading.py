"""Reading a published checkpoint into a module of ours: strictly, and with little memory.

The module is built without memory for its parameters, each of which is then made and filled from
the mapped file; so the peak is the weights and a few MiB. Every tensor of ours must be found, and
every stored one used or passed over by the family's own list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from modelwright.errors import CorruptError, ModelwrightError, did_you_mean
from modelwright.hub.families import family_of
from modelwright.hub.files import Published
from modelwright.hub.names import Entry, Family, Layout
from modelwright.hub.tensors import Reader, Stored, table
from modelwright.models.model import ModelConfig

SHOWN = 3  # names in a message; the rest is counted
NEW_HEAD = "head: new"


@dataclass(frozen=True)
class Loaded:
    """A module with published weights.

    Attributes:
        model: on the CPU.
        config: its config.
        passed: stored tensors that were rightly not read.
        fresh: tensors of ours that were not stored and are newly drawn (``head: new``).
    """

    model: nn.Module
    config: ModelConfig
    passed: tuple[str, ...]
    fresh: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Which stored tensor fills which of ours.

    Attributes:
        reads: entry and the stored tensor it is read from.
        passed: stored tensors that are not read.
        fresh: names of ours that are not read.
    """

    reads: tuple[tuple[Entry, Stored], ...]
    passed: tuple[str, ...]
    fresh: tuple[str, ...]


def config_of(published: Published) -> tuple[Family, ModelConfig]:
    """The family of a checkpoint, and our config of it.

    Raises:
        ModelwrightError: the model_type is not supported, or a field of it is not.
    """
    where = str(published.folder / "config.json")
    family = family_of(str(published.config["model_type"]), where)
    try:
        return family, family.config_from(published.config)
    except ModelwrightError as error:
        raise ModelwrightError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelwrightError(
            f"{where}: a field is missing or of a wrong type ({' '.join(str(error).split())}); "
            "get the file again"
        ) from error


def load(
    published: Published,
    *,
    config: ModelConfig | None = None,
    dtype: torch.dtype | None = None,
    new_head: bool = False,
) -> Loaded:
    """The module of a checkpoint, filled, in evaluation mode.

    Args:
        published: what ``find`` gave.
        config: with another head than the stored one, say; left out: as stored.
        dtype: of the parameters; None keeps each as it is stored.
        new_head: whether the head is drawn anew instead of read.

    Raises:
        ModelwrightError: tensors are missing, unexpected, or of another shape.
        CorruptError: a file is damaged.
    """
    config = config or config_of(published)[1]
    if new_head:
        model = config.build()
        for parameter in model.parameters() if dtype else ():
            parameter.data = parameter.data.to(dtype)
    else:
        with Unfilled():
            model = config.build()
    plan = plan_of(published, config, model, new_head=new_head)
    _materialise(model, plan, dtype)
    fill(model, plan)
    return Loaded(model.eval(), config, plan.passed, plan.fresh)


_DRAWN = frozenset(("normal_", "uniform_", "trunc_normal_", "zero_", "fill_", "copy_"))


class Unfilled(TorchFunctionMode):
    """In this block ``torch.empty`` takes no memory: parameters come to be on the meta device.

    Buffers that are computed (tables of positions) are made as ever, which a block of
    ``torch.device("meta")`` would leave without values.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        filled = args[0] if args else given.get("tensor")
        if getattr(func, "__name__", "") in _DRAWN and getattr(filled, "is_meta", False):
            return filled  # there is nothing to fill, and asking loads a second of PyTorch
        if func is torch.empty and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)


# What is read from where -------------------------------------------------------------------------


def stored_tensors(published: Published) -> dict[str, Stored]:
    """Every tensor of every shard.

    Raises:
        CorruptError: a shard is damaged, or does not hold what the index says.
    """
    found: dict[str, Stored] = {}
    for file, names in published.shards.items():
        there = table(published.folder / file)
        if absent := [name for name in names if name not in there]:
            raise CorruptError(
                f"{published.folder / file}: the index expects {absent[0]!r} in it, which is not "
                "there; the shards are of different checkpoints, fetch all of them again"
            )
        for name, one in there.items():
            if name in found:
                raise CorruptError(
                    f"{published.folder / file}: {name!r} lies in {found[name].file.name} too; "
                    "fetch all shards again"
                )
            found[name] = one
    return found


def plan_of(
    published: Published, config: ModelConfig, model: nn.Module, *, new_head: bool = False
) -> Plan:
    """Match our tensors with the stored ones; nothing may be left over on either side."""
    family, stored_config = config_of(published)
    layout = family.layout(config)
    stored = stored_tensors(published)
    groups = _tied(model)
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    reads: list[tuple[Entry, Stored]] = []
    missing: list[Entry] = []
    used: set[str] = set()
    heads = {e.ours for e in layout.entries if _matches(e.ours, layout.heads)}
    trunk = {groups[e.ours] for e in layout.entries if e.ours not in heads and e.ours in groups}
    for entry in layout.entries:
        if entry.ours not in shapes:
            raise ModelwrightError(
                f"{published.source}: the layout names {entry.ours!r}, which a {config.family} of "
                "this shape does not have"
            )
        replaced = new_head and entry.ours in heads and groups[entry.ours] not in trunk
        if replaced and not _matches(entry.ours, layout.kept):
            continue
        names = (_name(n, layout, stored) for n in (entry.theirs, *entry.also))
        name = next(filter(None, names), None)
        if name is None:
            missing += [entry] * (not replaced)
            continue
        used.add(name)
        if problem := _other_shape(entry, name, stored[name], shapes[entry.ours]):
            advice = "config.json and the weights are of different models"
            if entry.ours in heads:
                advice = f"for a new head of the size your data need write {NEW_HEAD} under model"
            raise ModelwrightError(f"{published.source}: {problem}; {advice}")
        reads.append((entry, stored[name]))
    filled = {groups[entry.ours] for entry, _ in reads}
    lacking = [e for e in missing if groups[e.ours] not in filled]
    if lacking:
        raise _missing(published, lacking, heads, stored)
    left = [name for name in stored if name not in used]
    passing = [*layout.passed]
    if new_head:  # the head that is replaced is not read, whatever it looks like
        theirs = family.layout(stored_config)
        passing += [e.theirs for e in theirs.entries if _matches(e.ours, theirs.heads)]
        passing += theirs.passed
    wrong = [name for name in left if not _matches(name, _with_prefixes(passing, layout))]
    if wrong:
        raise ModelwrightError(
            f"{published.source}: {_listed(wrong)} in the file and unknown to a "
            f"{published.config['model_type']} of this config.json; the config and the weights are "
            f"of different models, or this variant is not supported"
        )
    fresh = [n for n in shapes if groups[n] not in filled]
    known = {groups[e.ours] for e in layout.entries}
    if unnamed := [n for n in fresh if groups[n] not in known]:
        raise ModelwrightError(
            f"{published.source}: the layout of {published.config['model_type']} does not say "
            f"where {_listed(unnamed)}"
        )
    return Plan(tuple(reads), tuple(left), tuple(fresh))


def _tied(model: nn.Module) -> dict[str, str]:
    """Name -> the first name of the same tensor: tied weights are one."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(tensor), name)
        for name, tensor in model.state_dict(keep_vars=True).items()
    }


def _name(theirs: str, layout: Layout, stored: Mapping[str, Stored]) -> str | None:
    """The stored name of an entry, with or without a prefix that all of them may carry."""
    candidates = [theirs]
    candidates += [prefix + theirs for prefix in layout.prefixes if prefix]
    candidates += [theirs.removeprefix(prefix) for prefix in layout.prefixes if prefix]
    return next((name for name in candidates if name in stored), None)


def _with_prefixes(patterns: Sequence[str], layout: Layout) -> list[str]:
    return [prefix + p for p in patterns for prefix in ("", *layout.prefixes)]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _stored_shape(entry: Entry, ours: tuple[int, ...], there: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the stored tensor must have."""
    shape = entry.shape or (ours[::-1] if entry.transposed else ours)
    if entry.part is not None and len(there) == len(shape):  # of a joined one: as long as it is
        first, size = entry.part
        at = entry.axis
        if shape[at] == size and there[at] >= first + size:
            shape = (*shape[:at], there[at], *shape[at + 1 :])
    return shape


def _other_shape(entry: Entry, name: str, stored: Stored, ours: tuple[int, ...]) -> str:
    """What is wrong with the shape of a stored tensor, or an empty string."""
    meant = _stored_shape(entry, ours, stored.shape)
    if stored.shape == meant:
        return ""
    return (
        f"{name} has the shape {list(stored.shape)}, {list(meant)} is meant for {entry.ours} "
        f"{list(ours)}"
    )


def _missing(
    published: Published, lacking: Sequence[Entry], heads: set[str], stored: Mapping[str, Stored]
) -> ModelwrightError:
    if all(e.ours in heads for e in lacking):
        advice = f"the checkpoint has no such head; to draw a new one write {NEW_HEAD} under model"
    else:
        advice = "the checkpoint is incomplete, or config.json is of another model"
    near = did_you_mean(lacking[0].theirs, list(stored))
    return ModelwrightError(
        f"{published.source}: {_listed([e.theirs for e in lacking])} not there{near}; {advice}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names[:SHOWN])}{more} {verb}"


# Filling -----------------------------------------------------------------------------------------


def fill(model: nn.Module, plan: Plan) -> None:
    """Copy the stored tensors into a module's own memory, converted to its types."""
    ours = model.state_dict()  # the very memory of parameters and buffers
    with Reader() as reader, torch.no_grad():
        for entry, stored in _in_file_order(plan):
            target = ours[entry.ours]
            if target.ndim > 1 and entry.transposed:
                target = target.t()
            if entry.shape is not None and entry.part is None:
                target = target.view(stored.shape)
            reader.rows(stored, _Put(target, entry))


class _Put:
    """Copies parts of a stored tensor where they belong."""

    def __init__(self, target: Tensor, entry: Entry) -> None:
        self.target, self.entry = target, entry

    def __call__(self, first: int, rows: Tensor) -> None:
        """Take rows first, first + 1, ... of the stored tensor."""
        entry, target = self.entry, self.target
        if entry.part is not None:
            begin, size = entry.part
            if entry.axis:
                rows = rows.narrow(entry.axis, begin, size)
            else:
                low, high = max(begin, first), min(begin + size, first + len(rows))
                if low >= high:
                    return
                rows, first = rows[low - first : high - first], low - begin
        if entry.offset:
            rows = rows.float() + entry.offset
        if target.ndim:
            target.narrow(0, first, len(rows)).copy_(rows)
        else:
            target.copy_(rows)


def _in_file_order(plan: Plan) -> Iterator[tuple[Entry, Stored]]:
    """Tied names once; the files from front to back."""
    yield from sorted(plan.reads, key=lambda read: (str(read[1].file), read[1].begin))


def _materialise(model: nn.Module, plan: Plan, dtype: torch.dtype | None) -> None:
    """Memory for the parameters and buffers that have none, of the type they are to have."""
    kept = {entry.ours: stored.dtype for entry, stored in plan.reads}
    made: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}  # the old ones too: ids stay theirs
    groups = _tied(model)
    known = {groups[name]: kind for name, kind in kept.items()}
    for prefix, module in model.named_modules():
        at = f"{prefix}." if prefix else ""
        for name, parameter in list(module.named_parameters(recurse=False)):
            kind = dtype or known.get(groups[at + name], parameter.dtype)
            if parameter.device.type != "meta" and parameter.dtype == kind:
                continue
            if id(parameter) not in made:
                empty = torch.empty(parameter.shape, dtype=kind)
                made[id(parameter)] = parameter, nn.Parameter(empty, parameter.requires_grad)
            setattr(module, name, made[id(parameter)][1])
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.device.type != "meta":
                continue
            if at + name not in groups:
                raise ModelwrightError(
                    f"model: the buffer {at + name} is computed from torch.empty; compute it from "
                    "torch.arange or the like, so that it can be built without the weights"
                )
            module.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype))
