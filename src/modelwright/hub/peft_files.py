"""Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors.

The tensors take the names of the published layout of the base, the same list by which the base is
read and written. Where several layers of ours are one of theirs (joined queries, keys and values),
their adapters become one of the summed rank: A one above the other, B as blocks on the diagonal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from modelwright.data.fetching import file_sha256
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.files import sync_folder, write_file
from modelwright.hub import peft_prompts
from modelwright.hub.names import Entry, Layout
from modelwright.models.lora import Adapter, base_fingerprint, is_head
from modelwright.models.narrow import KINDS, hold, widen
from modelwright.models.routed import put_beside

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# In the metadata of the weights, which PEFT passes over: the base, and how it was held.
FINGERPRINT, QUANTIZED = "base_fingerprint", "base_quantized"
_KEYS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
_TABLE_KEYS = ("lora_embedding_A", "lora_embedding_B")


@dataclass(frozen=True)
class Tuned:
    """An adapter apart from its base.

    Attributes:
        adapter: with the names of the layers as ``targets``, of the parameters as ``trained``.
        tensors: of the adapter, by the names of the adapted model's state dict.
        base: the plain model that it was trained on, on the CPU, its weights not rounded.
        source: how the base is called where others find it; None where it is nowhere.
        revision: of the source.
    """

    adapter: Adapter
    tensors: Mapping[str, Tensor]
    base: nn.Module
    source: str | None = None
    revision: str | None = None


# Writing -----------------------------------------------------------------------------------------


def write_adapter(folder: Path, tuned: Tuned, layout: Layout, *, causal: bool) -> None:
    """Write the two files into a folder that is there.

    Raises:
        ModelwrightError: the format cannot hold this adapter.
    """
    adapter, state = tuned.adapter, tuned.base.state_dict()
    if adapter.prompt or adapter.prefix:
        vectors, kind = peft_prompts.described(adapter, tuned.tensors, tuned.base)
        _store(folder, tuned, vectors, kind, causal=causal, beside=())
        return
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    grouped = _grouped(layout)
    targets = set(adapter.targets or ())
    chosen = {theirs: es for theirs, es in grouped.items() if any(_layer(e) in targets for e in es)}
    if missing := targets - {_layer(e) for es in chosen.values() for e in es}:
        raise ModelwrightError(f"export: the layout does not say where {min(missing)} is stored")
    for theirs, entries in chosen.items():
        _require_plain(theirs, entries, tuned.base)
        used = [e for e in entries if _layer(e) in targets]
        module = theirs.removesuffix(".weight")
        ranks[module] = adapter.rank * len(used)
        for key, tensor in _joined(entries, used, tuned, state).items():
            tensors[f"{PREFIX}{module}.{key}"] = tensor
    whole = sorted({_module(e) for e in layout.entries if e.ours in set(adapter.trained)})
    kept = [e for e in layout.entries if _module(e) in whole and e.ours in state]
    for entry in kept:
        value = tuned.tensors.get(entry.ours, state[entry.ours])
        tensors[PREFIX + entry.theirs] = _stored(entry, value)
    config = _config(
        adapter, ranks, whole, transposed=any(e[0].transposed for e in chosen.values())
    )
    _store(folder, tuned, tensors, config, causal=causal, beside=[e.ours for e in kept])


def _store(
    folder: Path,
    tuned: Tuned,
    tensors: Mapping[str, Tensor],
    config: dict[str, Any],
    *,
    causal: bool,
    beside: Sequence[str],
) -> None:
    """Write the two files; ``beside`` are parameters of ours that were trained whole."""
    config |= {
        "base_model_name_or_path": tuned.source,
        "revision": tuned.revision,
        "task_type": "CAUSAL_LM" if causal else None,
    }
    mark = base_fingerprint(tuned.base, beside)
    ready = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    said = {"format": "pt", FINGERPRINT: mark}
    if tuned.adapter.quantize is not None:
        said[QUANTIZED] = tuned.adapter.quantize
    save_file(ready, folder / WEIGHTS, metadata=said)
    write_file(folder / CONFIG, [json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"])
    sync_folder(folder)


def _config(
    adapter: Adapter, ranks: Mapping[str, int], whole: Sequence[str], *, transposed: bool
) -> dict[str, Any]:
    """What adapter_config.json says, the base's name aside.

    A layer of joined ones has a rank of its own, and an alpha that gives the same scaling.
    """
    usual = min(ranks.values())
    alphas = {
        m: adapter.scaling * (math.sqrt(r) if adapter.rslora else r) for m, r in ranks.items()
    }
    odd = [m for m, r in ranks.items() if r != usual]
    return {
        "peft_type": "LORA",
        "inference_mode": True,
        "r": usual,
        "lora_alpha": next(alphas[m] for m, r in ranks.items() if r == usual),
        "lora_dropout": adapter.dropout,
        "target_modules": sorted(ranks),
        "modules_to_save": list(whole) or None,
        "rank_pattern": {m: ranks[m] for m in odd},
        "alpha_pattern": {m: alphas[m] for m in odd},
        "use_rslora": adapter.rslora,
        "use_dora": adapter.dora,
        "fan_in_fan_out": transposed,
        "bias": "none",
        "init_lora_weights": True,
    }


def _grouped(layout: Layout) -> dict[str, list[Entry]]:
    """Stored weight -> what of ours it holds, in its order."""
    groups: dict[str, list[Entry]] = {}
    for entry in layout.entries:
        if entry.ours.endswith(".weight") and entry.theirs.endswith(".weight"):
            groups.setdefault(entry.theirs, []).append(entry)
    for entries in groups.values():
        entries.sort(key=lambda e: e.part or (0, 0))
    return groups


def _layer(entry: Entry) -> str:
    return entry.ours.rpartition(".")[0]


def _module(entry: Entry) -> str:
    return entry.theirs.rpartition(".")[0]


def _require_plain(theirs: str, entries: Sequence[Entry], base: nn.Module) -> None:
    """Refuse what PEFT would compute otherwise."""
    for entry in entries:
        joined_inputs = entry.part is not None and entry.axis != int(entry.transposed)
        if entry.shape is not None or entry.offset or joined_inputs:
            raise ModelwrightError(
                f"export: {_layer(entry)} is stored in another form as {theirs}, for which PEFT "
                "has no adapter; leave it out of tune.adapter.targets, or export the merged model"
            )
    if _layer(entries[0]) == "embedding" and "output.weight" not in base.state_dict():
        raise ModelwrightError(
            f"export: {_layer(entries[0])} is the head too, which PEFT would not adapt; leave it "
            "out of tune.adapter.targets, or export the merged model"
        )


def _joined(
    entries: Sequence[Entry], used: Sequence[Entry], tuned: Tuned, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of one adapter of theirs by their keys."""
    given = [(tuned.tensors[f"{_layer(e)}.lora_a"], e) for e in used]
    layer = tuned.base.get_submodule(_layer(used[0]))
    if isinstance(layer, nn.Embedding):
        own = [given[0][0], tuned.tensors[f"{_layer(used[0])}.lora_b"]]
        return dict(zip(_TABLE_KEYS, own, strict=True))
    down = torch.cat([a for a, _ in given])
    rank = tuned.adapter.rank
    rows, norms = [], []
    for entry in entries:
        weight = state[entry.ours]
        if entry in used:
            narrow = tuned.tensors[f"{_layer(entry)}.lora_b"]
            wide = narrow.new_zeros(len(weight), len(down), *narrow.shape[2:])
            first = rank * list(used).index(entry)
            wide[:, first : first + rank] = narrow
        else:
            shape = (1,) * (weight.ndim - 2)
            wide = weight.new_zeros(len(weight), len(down), *shape)
        rows.append(wide)
        known = tuned.tensors.get(f"{_layer(entry)}.magnitude")
        norms.append(weight.flatten(1).norm(dim=1) if known is None else known)
    found = {_KEYS[0]: down, _KEYS[1]: torch.cat(rows)}
    if tuned.adapter.dora:
        lengths = torch.cat(norms)
        found[_KEYS[2]] = lengths if down.ndim == 2 else lengths.view(1, -1, 1, 1)
    return found


def _stored(entry: Entry, value: Tensor) -> Tensor:
    """A parameter that is saved whole, as it is stored."""
    if entry.part is not None or entry.shape is not None:
        raise ModelwrightError(
            f"export: {entry.ours} is a part of {entry.theirs}, which PEFT saves whole; leave it "
            "out of tune.adapter.trained, or export the merged model"
        )
    value = value - entry.offset if entry.offset else value
    return value.t() if entry.transposed else value


# Reading -----------------------------------------------------------------------------------------


def is_adapter(folder: Path) -> bool:
    """Whether a folder says that it holds one."""
    return (folder / CONFIG).is_file()


def adapter_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of the two files, by their paths.

    Raises:
        ModelwrightError: there is no adapter.
    """
    _read(folder)
    return {str(folder / name): file_sha256(folder / name) for name in (CONFIG, WEIGHTS)}


@torch.no_grad()
def merge_adapter(folder: Path, model: nn.Module, layout: Layout) -> None:
    """Put an adapter of PEFT's format into the weights of its base, which is a plain model.

    Learned prompts go before its texts.

    One that says that it was trained on a base held in fewer bits gets one that is rounded so.

    Raises:
        CorruptError: a file is damaged.
        ModelwrightError: the adapter is of another kind, or for another base.
    """
    config, tensors, said = _read(folder)
    state, mark = model.state_dict(), said.get(FINGERPRINT)
    if config["peft_type"] != "LORA":
        if mark and mark != base_fingerprint(model, ()):
            raise _another_base(folder, config)
        peft_prompts.put(folder, config, tensors, model)
        return
    grouped, left = _grouped(layout), dict(tensors)
    saved = [e for e in layout.entries if PREFIX + e.theirs in left and e.ours in state]
    if mark and mark != base_fingerprint(model, [e.ours for e in saved]):
        raise _another_base(folder, config)
    if kind := said.get(QUANTIZED):
        _round(folder, model, kind, [e.ours for e in saved])
        state = model.state_dict()
    for entry in saved:
        value = left.pop(PREFIX + entry.theirs)
        if entry.part is not None:
            raise ModelwrightError(f"{folder}: {entry.theirs} saved whole is not supported")
        _put(folder, entry, state[entry.ours], value)
    for part in _parts(folder, grouped, left, config):
        _merge(folder, part, [state[e.ours] for e in part.entries])


@torch.no_grad()
def put_adapter(folder: Path, model: nn.Module, layout: Layout) -> None:
    """Put an adapter of PEFT's format beside the layers of its base, which is a plain model.

    The base's numbers stay as they are: ``models.lora.layers`` has the adapter then.

    Raises:
        CorruptError: a file is damaged.
        ModelwrightError: the adapter is for another base, or is more than matrices beside layers.
    """
    config, tensors, said = _read(folder)
    if config["peft_type"] != "LORA":
        raise _by_itself(folder, f"is learned as {config['peft_type']}")
    if mark := said.get(FINGERPRINT):
        whole = [e.ours for e in layout.entries if PREFIX + e.theirs in tensors]
        if mark != base_fingerprint(model, [n for n in whole if n in model.state_dict()]):
            raise _another_base(folder, config)
    if said.get(QUANTIZED):
        raise _by_itself(folder, "was trained on a base in few bits")
    if odd := next((e.ours for e in layout.entries if PREFIX + e.theirs in tensors), None):
        raise _by_itself(folder, f"changes {odd}, which all rows of a batch share")
    for part in _parts(folder, _grouped(layout), dict(tensors), config):
        first, weights = 0, [model.state_dict()[e.ours] for e in part.entries]
        _require_size(folder, part, weights)
        for entry, weight in zip(part.entries, weights, strict=True):
            name, count = _layer(entry), weight.shape[1] if part.table else len(weight)
            norms = None if part.norms is None else part.norms[first : first + count]
            up = part.up[first : first + count]
            if entry.shape is not None or entry.offset:
                raise _by_itself(folder, f"changes {name}, which is stored in another form")
            put_beside(model, name, part.down, up, scaling=part.scaling, norms=norms)
            first += count


def _by_itself(folder: Path, why: str) -> ModelwrightError:
    return ModelwrightError(
        f"{folder}: {why}; put it into its base (`model: {{from: ..., adapter_from: FOLDER}}`) and"
        " serve that run by itself"
    )


@dataclass(frozen=True)
class _Part:
    """What an adapter has for one layer of theirs, which holds the weights of ``entries``.

    Attributes:
        module: the layer's name.
        down: A (rank, inputs), of a table (rank, rows).
        up: B (outputs, rank), of a table (width, rank).
        norms: of DoRA (outputs,); None: plain.
        table: whether the layer is an embedding.
    """

    module: str
    entries: Sequence[Entry]
    down: Tensor
    up: Tensor
    scaling: float
    norms: Tensor | None
    table: bool


def _parts(
    folder: Path,
    grouped: Mapping[str, Sequence[Entry]],
    left: dict[str, Tensor],
    config: Mapping[str, Any],
) -> Iterator[_Part]:
    """The adapters of all layers, taken out of ``left``.

    Raises:
        CorruptError: one of two matrices is missing.
        ModelwrightError: at the end, if something is left.
    """
    for theirs, entries in grouped.items():
        module = theirs.removesuffix(".weight")
        keys = {k: f"{PREFIX}{module}.{k}" for k in (*_KEYS, *_TABLE_KEYS)}
        keys[_KEYS[2]] += ".weight" * (keys[_KEYS[2]] not in left)  # as older versions name it
        found = {k: left.pop(name) for k, name in keys.items() if name in left}
        if not found:
            continue
        table = _TABLE_KEYS[0] in found
        names = _TABLE_KEYS if table else _KEYS[:2]
        if any(n not in found for n in names):
            said = " and ".join(names)
            raise CorruptError(f"{folder / WEIGHTS}: {module} has one of {said} alone")
        down, up = found[names[0]].float(), found[names[1]].float()
        alpha = float(_of_pattern(config.get("alpha_pattern"), module, config["lora_alpha"]))
        scaling = alpha / (math.sqrt(len(down)) if config.get("use_rslora") else len(down))
        norms = None if _KEYS[2] not in found else found[_KEYS[2]].float().flatten()
        yield _Part(module, entries, down, up, scaling, norms, table)
    if left:
        raise ModelwrightError(
            f"{folder}: {next(iter(left))} is for a layer that this base does not have; load the "
            f"adapter on its own base, {config.get('base_model_name_or_path')}"
        )


def _another_base(folder: Path, config: Mapping[str, Any]) -> ModelwrightError:
    return ModelwrightError(
        f"{folder}: this adapter was trained on another base "
        f"({config.get('base_model_name_or_path')}); load it on that one"
    )


def _round(folder: Path, model: nn.Module, kind: str, whole: Sequence[str]) -> None:
    """Round the weights as training on a base in few bits has them."""
    if kind not in KINDS:
        raise CorruptError(f"{folder / WEIGHTS}: no base is held as {kind!r}; get the file again")
    hold(model, kind, whole, is_head)
    widen(model)


def _put(folder: Path, entry: Entry, target: Tensor, value: Tensor) -> None:
    value = value.t() if entry.transposed else value
    if value.shape != target.shape:
        raise ModelwrightError(f"{folder}: {entry.theirs} has another shape than the base's")
    target.copy_(value.to(target.dtype) + entry.offset)


def _merge(folder: Path, part: _Part, weights: Sequence[Tensor]) -> None:
    """Add one adapter of theirs to the weights of ours that it is for."""
    _require_size(folder, part, weights)
    delta = part.scaling * (
        (part.up @ part.down).t() if part.table else part.up.flatten(1) @ part.down.flatten(1)
    )
    first = 0
    for weight in weights:
        own = delta[first : first + len(weight)]
        summed = weight.float() + own.reshape(weight.shape)
        if part.norms is not None:
            mine = part.norms[first : first + len(weight)]
            factor = mine / summed.flatten(1).norm(dim=1)
            summed = summed * factor.view(-1, *[1] * (summed.ndim - 1))
        weight.copy_(summed)
        first += len(weight)


def _require_size(folder: Path, part: _Part, weights: Sequence[Tensor]) -> None:
    """Refuse matrices whose product is not of the weights' size."""
    rows, inputs = len(part.up), part.down.numel() // max(1, len(part.down))
    if part.table:
        rows, inputs = inputs, rows
    if rows != sum(map(len, weights)) or any(w.numel() != len(w) * inputs for w in weights):
        raise ModelwrightError(f"{folder}: the adapter of {part.module} is of another size than it")


def _of_pattern(pattern: Any, module: str, usual: Any) -> Any:
    """The value for a layer: of the first name in ``pattern`` that the layer's ends with."""
    for name, value in (pattern or {}).items():
        if module == name or module.endswith(f".{name}"):
            return value
    return usual


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """The settings, the tensors, and what the file says beside them: of the base."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            said = dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise ModelwrightError(f"{folder}: no adapter of PEFT: {CONFIG} and {WEIGHTS}") from error
    except (ValueError, SafetensorError) as error:
        raise CorruptError(f"{folder}: damaged ({error}); get the files again") from error
    known = ("LORA", *peft_prompts.TYPES)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in known:
        raise ModelwrightError(
            f"{folder / CONFIG}: peft_type {kind!r} is not supported, {' and '.join(known)} are"
        )
    if config.get("bias", "none") != "none":
        raise ModelwrightError(f"{folder / CONFIG}: bias {config['bias']!r} is not supported")
    return config, tensors, said
