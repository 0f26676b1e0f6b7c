"""The description of a corpus: sources, steps, deduplication, split, augmentation, tokenizer.

A person writes few lines of YAML; what is left out is derived. Everything that can be wrong with
it is found before anything is read, and said in one line with the line of the file.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from modelwright.data.corpus.steps import make_operation
from modelwright.data.readers.reader import make_reader
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.options import checked, problem_said

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CRAWLED = ("warc", "html")  # kinds of which some are always broken
CRAWL_BUDGET = 0.001
Named = str | dict[str, Any]  # a name, or a name with settings: {language: {keep: [en]}}


class Section(BaseModel):
    """A part of the description: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def named(value: Named) -> tuple[str, dict[str, Any]]:
    """The name and settings of ``name`` or ``{name: {setting: value}}``.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str):
        return value, {}
    if len(value) != 1:
        raise ValueError(f"write it as NAME or as NAME: {{setting: value}} (got {value!r})")
    ((name, settings),) = value.items()
    if settings is None:
        return str(name), {}
    if not isinstance(settings, dict):
        raise ValueError(f"the settings of {name} are written {name}: {{setting: value}}")
    return str(name), settings


class Source(Section):
    """Where rows come from."""

    path: str = Field(
        description="a file, folder or glob; a data set of the catalog; https://, hf:// or s3://"
    )
    name: str = Field(
        "", pattern=NAME + "|^$", description="begins the ids of its rows; left out: from the path"
    )
    reader: Named | None = Field(None, description="how it is read; left out: from its contents")
    license: str | None = Field(None, description="of the content, such as CC BY-SA 4.0")
    budget: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of bad records that may be set aside; left out: 0, "
        "and 0.001 for web pages",
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of a file behind an address"
    )
    revision: str | None = Field(None, description="of a data set on the Hugging Face hub")
    notes: bool = Field(False, description="read README, LICENSE, SOURCE and INDEX files as well")

    def bad_share(self, reader: str) -> float:
        """The share of its records that may be bad."""
        if self.budget is not None:
            return self.budget
        return CRAWL_BUDGET if reader in CRAWLED else 0.0


class Deduplicate(Section):
    """Which copies leave: exact ones always, near ones from a similarity on."""

    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity from which texts are copies; 1: exact only"
    )
    images: int = Field(
        6,
        ge=0,
        le=10,
        description="bits of 64 in which the perceptual hashes of copied pictures may differ, "
        "if the pictures look alike as well; 0: equal files only",
    )


class Split(Section):
    """How rows are divided."""

    by: Literal["group", "random", "stratified", "time", "given"] = Field(
        "group", description="what decides; groups, parents and copies stay together in any case"
    )
    validation: float = Field(0.05, ge=0, lt=1, description="share to choose and watch by")
    test: float = Field(0.05, ge=0, lt=1, description="share to report on, used last")
    column: str | None = Field(
        None,
        description="of time: the key of `meta` with the time; of stratified: `label` or a key",
    )
    folds: int | None = Field(None, ge=2, description="number of folds, of which one is `test`")
    fold: int = Field(1, ge=1, description="the fold that is `test`, from 1")

    @model_validator(mode="after")
    def _shares(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation={self.validation:g} and test={self.test:g} leave nothing for train"
            )
        if self.folds is not None and self.fold > self.folds:
            raise ValueError(f"fold={self.fold} is none of folds={self.folds}")
        if self.by == "time" and not self.column:
            raise ValueError("by time needs column: the key of `meta` that holds the time")
        return self


class CorpusSpec(Section):
    """One corpus."""

    name: str = Field(pattern=NAME, description="names the folder")
    seed: int = Field(1, ge=0, description="decides every random choice")
    sources: tuple[Source, ...] = Field(min_length=1, description="where rows come from")
    steps: tuple[Named, ...] = Field((), description="what is done to every row, in order")
    deduplicate: Deduplicate | None = Field(None, description="which copies leave; left out: none")
    split: Split = Field(default_factory=Split, description="how rows are divided")
    augment: tuple[str | dict[str, Any], ...] = Field(
        (), description="transforms of which more train rows are made, and `copies: n`"
    )
    tokenizer: dict[str, Any] | None = Field(
        None, description="`kind` and `vocabulary`, or `file`; left out: no tokens"
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, values: Any) -> Any:
        """Take ``deduplicate: true`` and ``deduplicate: 0.9`` for short."""
        if isinstance(values, dict):
            short = values.get("deduplicate")
            if isinstance(short, bool):
                values = values | {"deduplicate": {} if short else None}
            elif isinstance(short, int | float):
                values = values | {"deduplicate": {"threshold": short}}
        return values

    @model_validator(mode="after")
    def _sound(self) -> CorpusSpec:
        names = self.source_names()
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise ValueError(f"two sources are called {twice!r}; give them a different `name`")
        return self

    def source_names(self) -> list[str]:
        """The name of every source, in order."""
        return [source.name or short_name(source.path) for source in self.sources]


def short_name(path: str) -> str:
    """A source's name from its path: ``wiki`` of ``dumps/wiki/*.bz2`` and of ``wiki.jsonl.gz``."""
    inner = path.rsplit("://", maxsplit=1)[-1]
    parts = [p for p in re.split(r"[/\\]", inner) if p not in ("", ".", "..")]
    plain = [p for p in parts if not set(p) & set("*?[")]
    last = plain[-1] if plain else "files"
    stem = last.split(".")[0] or last.strip(".")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64] or "files"


def read(path: Path) -> CorpusSpec:
    """The description in a YAML file.

    Raises:
        ModelwrightError: it cannot be read or something in it is wrong: one line, with the file
            and the line, and the nearest known word.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        near = did_you_mean(path.name, (p.name for p in _beside(path)))
        reason = error.strerror or str(error)
        raise ModelwrightError(
            f"{path}: cannot be read ({reason}){near}; give a YAML file"
        ) from None
    except ValueError as error:
        raise ModelwrightError(f"{path}: not UTF-8 text ({error}); give a YAML file") from error
    return parse(text, str(path), Path(path.stem).stem)


def parse(text: str, where: str, name: str = "corpus") -> CorpusSpec:
    """The description in a YAML text.

    Args:
        text: the YAML.
        where: what messages begin with, a file's name.
        name: of the corpus, where the text gives none.

    Raises:
        ModelwrightError: see ``read``.
    """
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except RecursionError as error:
        raise ModelwrightError(f"{where}: nested too deeply; correct the YAML") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ModelwrightError(f"{where}{line}: {problem}; correct the YAML") from error
    if tree is None or not isinstance(values, dict):
        raise ModelwrightError(f"{where}: a corpus is a mapping of keys: sources, steps, ...")
    values.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "corpus")
    try:
        spec = CorpusSpec.model_validate(values)
    except ValidationError as error:
        raise _problem(error, tree, where) from None
    _check_parts(spec, tree, where)
    return spec


def _check_parts(spec: CorpusSpec, tree: yaml.Node, where: str) -> None:
    """Every step, transform and tokenizer exists and takes its settings."""
    checks: list[tuple[list[str | int], Any, Callable[[], object]]] = [
        (["steps", i], step, partial(_make, make_operation, step))
        for i, step in enumerate(spec.steps)
    ]
    checks += [
        (["sources", i, "reader"], one.reader, partial(_make, make_reader, one.reader))
        for i, one in enumerate(spec.sources)
        if one.reader is not None
    ]
    if spec.augment:
        from modelwright.data.corpus.augment import lines_of  # noqa: PLC0415 - if asked

        checks += [
            (["augment", i], line, partial(lines_of, [line])) for i, line in enumerate(spec.augment)
        ]
    if spec.tokenizer is not None:
        from modelwright.data.corpus.tokens import tokenizer_settings  # noqa: PLC0415 - if asked

        settings = spec.tokenizer
        check = partial(checked, "tokenizer", tokenizer_settings, settings)
        checks.append((["tokenizer"], settings, check))
    for path, value, holds in checks:
        try:
            holds()
        except (ModelwrightError, ValueError) as error:
            line = _line(tree, path + _named_in(str(error), value))
            raise ModelwrightError(f"{where}:{line}: {error}") from None


def _make(maker: Callable[[str, dict[str, Any]], object], value: Named) -> None:
    maker(*named(value))


def _named_in(message: str, value: Any) -> list[str | int]:
    """The keys within ``value`` that a message is about, outermost first."""
    path: list[str | int] = []
    while isinstance(value, dict) and value:
        keys = [k for k in value if re.search(rf"(?<!\w){re.escape(str(k))}(?!\w)", message)]
        if not keys:
            break
        path.append(keys[0])
        value = value[keys[0]]
    return path


def _problem(error: ValidationError, tree: yaml.Node, where: str) -> ModelwrightError:
    """The first thing that is wrong, in one line."""
    problems = error.errors()
    first = problems[0]
    if first["type"] == "missing":  # often an unknown key is the missing one, misspelt
        first = next((p for p in problems if p["type"] == "extra_forbidden"), first)
    path = [p for p in first["loc"] if not _branch(p)]
    key = ".".join(str(p) for p in path)
    said = problem_said(first, lambda: _keys_at(path[:-1]), "is missing")
    line = _line(tree, path)
    return ModelwrightError(f"{where}:{line}: {key + ': ' if key else ''}{said}")


def _branch(part: str | int) -> bool:
    """Whether a part of pydantic's location is a branch of a union, not a key."""
    return isinstance(part, str) and ("[" in part or part in ("str", "dict"))


def _line(tree: yaml.Node, path: Sequence[str | int]) -> int:
    """The line, from 1, of the innermost part of ``path`` that is in the file."""
    node, line = tree, tree.start_mark.line
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return line + 1


def _keys_at(path: Iterable[str | int]) -> list[str]:
    """The known keys of the section at ``path``."""
    section: type[BaseModel] = CorpusSpec
    for part in path:
        if isinstance(part, int):
            continue
        for kind in _kinds(section.model_fields[part].annotation):
            section = kind
    return list(section.model_fields)


def _kinds(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation may hold."""
    if inner := typing.get_args(annotation):
        return [kind for part in inner for kind in _kinds(part)]
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_section else []


def _beside(path: Path) -> Iterable[Path]:
    return path.parent.iterdir() if path.parent.is_dir() else ()
