"""Training from the token shards of a corpus: where they lie, without reading or encoding them.

A run keeps, instead of shards of its own, a file ``corpus.json`` for each part of the split: the
corpus's folder, the part, and the checksums of its shards. What training reads is mapped from
the corpus itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

from modelwright.data.codecs import save_codec, text
from modelwright.data.corpus.open import is_corpus, summary
from modelwright.data.corpus.tokens import PARTS, corpus_tokenizer
from modelwright.data.inputs import hash_files
from modelwright.data.shards import POINTER
from modelwright.data.token_shards import TokenShards, shard_files
from modelwright.errors import CorruptError
from modelwright.files import make_folder, replace_file
from modelwright.recipe import Data, Recipe
from modelwright.runs import Run
from modelwright.tasks.task import make_task
from modelwright.types import Codec


def tokens_of(recipe: Recipe) -> Path | None:
    """The corpus whose token shards a recipe trains from, or None where rows are read.

    That needs a corpus with tokens; stages that learn whole documents; and a recipe that leaves
    rows, split and tokenizer to the corpus.
    """
    folder = Path(recipe.data.source).expanduser()
    if not (is_corpus(folder) and (folder / "stages" / "tokens").is_dir()):
        return None
    if recipe.published is not None:
        return None  # its tokens are not those of the corpus
    tasks = [make_task(stage.task, stage.options) for stage in recipe.stages.values()]
    plain = all(task.stream and task.codec == "text" for task in tasks)
    plain = plain and not any(stage.options for stage in recipe.stages.values())
    untouched = recipe.data == Data(source=recipe.data.source)
    return folder.resolve() if plain and untouched and not recipe.codec else None


def token_inputs(folder: Path) -> dict[str, str]:
    """Name -> checksum of all that training reads of a corpus; its files are not hashed again.

    Raises:
        ModelwrightError: the corpus is not finished.
    """
    summary(folder)
    found = {"tokenizer": hash_files([corpus_tokenizer(folder)])}
    for part in PARTS:
        if shard_files(folder, part):
            found |= TokenShards(folder, part).checksums()
    return found


def token_codec(folder: Path) -> text.Codec:
    """The corpus's tokenizer as the codec of a run.

    Raises:
        CorruptError: its shards were made by another tokenizer.
        ModelwrightError: it is no byte-level one.
    """
    path = corpus_tokenizer(folder)
    codec = text.Codec.of_file(path)
    if codec.encoder.fingerprint != TokenShards(folder, "train").fingerprint:
        raise CorruptError(f"{path}: is not the tokenizer of the shards; make the corpus again")
    return codec


def prepare_tokens(run: Run, folder: Path) -> dict[str, Any]:
    """Point a run to the shards of a corpus, checked, and give it their tokenizer.

    Returns:
        What ``data/prepared.json`` says.
    """
    codec = token_codec(folder)
    for file, content in save_codec(cast(Codec, codec)).items():
        path = run.path / "data" / file
        make_folder(path.parent)
        replace_file(path, content)
    prepared: dict[str, Any] = {"tasks": {}, "tokenizer": {"vocabulary": codec.vocabulary}}
    sizes = summary(folder)["parts"]
    for name, stage in run.recipe.stages.items():
        splits: dict[str, dict[str, int]] = {}
        for part in PARTS:
            place = run.path / "data" / name / part
            shutil.rmtree(place, ignore_errors=True)
            if not shard_files(folder, part):
                continue
            shards = TokenShards(folder, part)
            shards.verify()
            make_folder(place)
            said = {"corpus": str(folder), "part": part, "shards": shards.checksums()}
            replace_file(place / POINTER, json.dumps(said, indent=1).encode())
            splits[part] = {"examples": len(shards), "tokens": len(shards.tokens)}
        prepared["tasks"][stage.task] = {"codec": "text", "splits": splits}
    run.write_json("data/split.json", {"splits": sizes, "leakage": {}})
    return prepared
