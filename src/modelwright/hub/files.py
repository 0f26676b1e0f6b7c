"""Finding a published checkpoint: in the hub, or in a folder of the hub's layout.

Nothing of it can run here. Weights are safetensors, settings are JSON, and a checkpoint that
needs its own code, or whose weights are a pickle, is refused with the safe way out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.data.fetching import file_sha256
from modelwright.errors import CorruptError, MachineError, ModelwrightError

Say = Callable[[str], None]

HUB = "hub:"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FETCHED = (
    "*.json",
    "*.safetensors",
    "tokenizer.model",
    "spiece.model",
    "*.spm",
    "*.txt",
    "*.jinja",
)
BESIDE = ("config.json", "preprocessor_config.json")
SETTINGS = 16 << 20  # bytes of a config or an index; tokenizers are read elsewhere
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<at>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONVERT = (
    "a pickle can run code when it is opened, so it is never read here; take a revision with "
    "model.safetensors, or convert it where you trust it: "
    "transformers.AutoModel.from_pretrained(FOLDER).save_pretrained(OUT), or "
    'safetensors.torch.save_file(torch.load(FILE, weights_only=True), "model.safetensors")'
)


@dataclass(frozen=True)
class Published:
    """A published checkpoint on this machine.

    Attributes:
        source: as the user wrote it.
        folder: where its files lie.
        revision: the hub's commit, 40 hexadecimal digits; None for a folder.
        config: what config.json says.
        shards: file -> names of the tensors that the index expects in it; one file without an
            index expects nothing in particular, and its names are empty.
        stated: file -> SHA-256 as the hub states it, where it does.
    """

    source: str
    folder: Path
    revision: str | None
    config: Mapping[str, Any]
    shards: Mapping[str, tuple[str, ...]]
    stated: Mapping[str, str] = field(default_factory=dict)

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of every weight file and of each settings file, compared with the hub's.

        Raises:
            CorruptError: a file is another one than the hub states.
        """
        found = {}
        for name in (*self.shards, *(n for n in BESIDE if (self.folder / n).is_file())):
            path = self.folder / name
            found[name] = file_sha256(path)
            meant = self.stated.get(name)
            if meant is not None and meant != found[name]:
                raise CorruptError(
                    f"{path}: is damaged: its sha256 is {found[name]}, the hub states {meant}; "
                    "delete it and fetch it again"
                )
        return found

    def settings(self, name: str) -> dict[str, Any]:
        """A JSON file beside the weights; empty where there is none."""
        path = self.folder / name
        return read_json(path) if path.is_file() else {}


def is_published(source: str) -> bool:
    """Whether a word names a published checkpoint rather than a family: hub:..., or a path."""
    looks = source.startswith((HUB, ".", "/", "~")) or "/" in source or os.sep in source
    return looks or is_keras(source)


def is_keras(source: str) -> bool:
    """Whether a word names a file that Keras has saved."""
    return source.endswith(".keras") and not source.startswith(HUB)


def find(source: str, *, revision: str | None = None, say: Say | None = None) -> Published:
    """The checkpoint that a recipe names, fetched when it is in the hub and not here yet.

    Args:
        source: ``hub:OWNER/NAME``, ``hub:OWNER/NAME@REVISION``, or the path of a folder, or of a
            state file with the names of torchvision or timm.
        revision: the commit that was found before; taken instead of a branch that may have moved.
        say: takes a line about what is fetched.

    Raises:
        ModelwrightError: no such checkpoint, or one that this house does not open.
        CorruptError: files are missing or unreadable.
        MachineError: the hub cannot be reached, or its library is not installed.
    """
    if source.startswith(HUB):
        folder, commit = _fetched(source, revision, say)
    else:
        folder, commit = Path(source).expanduser(), None
        if folder.is_file():
            return state_file_alone(source, folder)
        if not folder.is_dir():
            raise ModelwrightError(
                f"{source}: no such folder; give the folder of a published checkpoint, a state file"
                " of torchvision or timm (.safetensors), or hub:OWNER/NAME"
            )
    if (lone := _lone(folder)) is not None:
        return dataclasses.replace(
            state_file_alone(source, lone), revision=commit, stated=_stated(folder)
        )
    config = _config(folder)
    return Published(source, folder, commit, config, _shards(folder), _stated(folder))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint.

    Raises:
        CorruptError: it cannot be read, or is none.
    """
    try:
        if path.stat().st_size > SETTINGS:
            raise ValueError(f"over {SETTINGS >> 20} MiB")
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:120]
        raise CorruptError(f"{path}: cannot be read ({line}); get the file again") from error
    return found


def state_file_alone(source: str, path: Path) -> Published:
    """A state file as torchvision and timm publish it, recognised by its tensors.

    Of timm's config.json beside it only ``pretrained_cfg`` is read, which says how pictures are
    prepared.

    Raises:
        ModelwrightError: another kind of file, or a model that is not known.
        CorruptError: it is damaged.
    """
    # The families are needed for files of this kind alone.
    from modelwright.hub.recognised import recognised  # noqa: PLC0415
    from modelwright.hub.tensors import table  # noqa: PLC0415

    if path.suffix in _PICKLES:
        raise ModelwrightError(f"{source}: {_CONVERT}")
    if path.suffix != ".safetensors":
        raise ModelwrightError(
            f"{source}: no folder and no .safetensors file; give the folder of a published "
            "checkpoint, or a state file of torchvision or timm"
        )
    naming, config = recognised({n: t.shape for n, t in table(path).items()}, str(path))
    stored: dict[str, Any] = {"model_type": naming, "model": config.to_dict()}
    beside = path.parent / "config.json"
    if beside.is_file() and isinstance(said := read_json(beside).get("pretrained_cfg"), dict):
        stored |= {"model_type": "timm", "pretrained_cfg": said}
    return Published(source, path.parent, None, stored, {path.name: ()})


# A folder ----------------------------------------------------------------------------------------


def _lone(folder: Path) -> Path | None:
    """The only weight file of a folder without a config.json of the hub's layout."""
    config = folder / "config.json"
    if config.is_file():
        stated = read_json(config)
        if "model_type" in stated or not {"architecture", "pretrained_cfg"} <= stated.keys():
            return None  # timm's names an architecture instead
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1 or (found[0].name == WEIGHTS and not config.is_file()):
        return None  # the hub's name for what lies beside a config.json
    return found[0]


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelwrightError(
            f"{folder}: no config.json, so this is no checkpoint of the hub's layout; give the "
            "folder that holds config.json and model.safetensors"
        )
    config = read_json(path)
    for name in ("auto_map", "trust_remote_code", "custom_pipelines"):
        if config.get(name):
            raise ModelwrightError(
                f"{path}: {name} asks for code from the checkpoint to be run, which is never done "
                "here; if its model_type is a supported one, delete that field from your copy"
            )
    if not isinstance(config.get("model_type"), str):
        raise ModelwrightError(f"{path}: names no model_type; add it as its authors state it")
    return config


def _shards(folder: Path) -> dict[str, tuple[str, ...]]:
    """The weight files, each with the tensors that the index expects in it."""
    index = folder / INDEX
    if index.is_file():
        by_file: dict[str, list[str]] = {}
        named = read_json(index).get("weight_map")
        if not isinstance(named, dict) or not named:
            raise CorruptError(f"{index}: has no weight_map; get the file again")
        for tensor, file in named.items():
            if not isinstance(file, str) or Path(file).name != file:
                raise CorruptError(f"{index}: {tensor} lies in {file!r}, which is no file name")
            by_file.setdefault(file, []).append(tensor)
        missing = [file for file in by_file if not (folder / file).is_file()]
        if missing:
            raise CorruptError(
                f"{folder}: {missing[0]} is missing ({len(missing)} of {len(by_file)} shards that "
                f"{INDEX} names); fetch it again"
            )
        return {file: tuple(names) for file, names in sorted(by_file.items())}
    if (folder / WEIGHTS).is_file():
        return {WEIGHTS: ()}
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise ModelwrightError(f"{folder / pickles[0]}: {_CONVERT}")
    raise ModelwrightError(f"{folder}: no {WEIGHTS} and no {INDEX}; fetch the weights too")


def _stated(folder: Path) -> dict[str, str]:
    """What the hub states of the files' contents, where its client has kept that.

    In the hub's cache a large file is a link to a blob that is named by its SHA-256; beside a
    download into a folder lies a ``.metadata`` file, whose second line is the same.
    """
    stated = {}
    for path in folder.glob("*.safetensors"):
        blob = path.resolve().name if path.is_symlink() else ""
        beside = folder / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
        if not blob and beside.is_file():
            lines = beside.read_text(encoding="utf-8", errors="replace").splitlines()
            blob = lines[1].strip().strip('"') if len(lines) > 1 else ""
        if _SHA256.fullmatch(blob):
            stated[path.name] = blob
    return stated


# The hub -----------------------------------------------------------------------------------------


def _fetched(source: str, revision: str | None, say: Say | None) -> tuple[Path, str]:
    """The folder in the hub's cache, and its commit."""
    match = _NAME.fullmatch(source.removeprefix(HUB))
    if match is None:
        raise ModelwrightError(
            f"{source}: write hub:OWNER/NAME or hub:OWNER/NAME@REVISION, "
            "as in hub:openai-community/gpt2"
        )
    try:
        import huggingface_hub as hub  # noqa: PLC0415 - an extra, and slow to import
        from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            f"{source}: needs huggingface_hub, which is not installed: "
            "pip install 'modelwright[data]'"
        ) from error
    wanted, endpoint = revision or match["at"] or "main", os.environ.get("HF_ENDPOINT") or None
    try:
        if not _COMMIT.fullmatch(wanted):
            about = hub.HfApi(endpoint=endpoint).model_info(match["name"], revision=wanted)
            wanted = about.sha or wanted
            names = {s.rfilename for s in about.siblings or ()}
            _no_pickle(source, names)
        if say is not None:
            say(f"fetching {source} at {wanted}")
        place = hub.snapshot_download(
            match["name"],
            revision=wanted,
            endpoint=endpoint,
            allow_patterns=list(FETCHED),
            ignore_patterns=["*/*"],
        )
    except (LocalEntryNotFoundError, OSError, ValueError, RuntimeError) as error:
        found = _cached(hub, match["name"], wanted)
        if found is None:
            line = " ".join(str(error).split())[:200]
            raise MachineError(
                f"{source}: the hub does not give it ({line}); check the name and the network, or "
                "give the folder of a copy"
            ) from error
        place = found
    folder = Path(place)
    return folder, folder.name if _COMMIT.fullmatch(folder.name) else wanted


def _no_pickle(source: str, names: set[str]) -> None:
    """Refuse what has no safetensors before anything is fetched."""
    if any(n.endswith(".safetensors") for n in names):
        return
    pickles = sorted(n for n in names if Path(n).suffix in _PICKLES)
    if pickles:
        raise ModelwrightError(f"{source}: {pickles[0]}: {_CONVERT}")


def _cached(hub: Any, name: str, revision: str) -> str | None:
    """The copy in the hub's cache when the hub cannot be asked."""
    try:
        place: str = hub.snapshot_download(name, revision=revision, local_files_only=True)
    except (OSError, ValueError, RuntimeError):
        return None
    return place if (Path(place) / "config.json").is_file() else None
