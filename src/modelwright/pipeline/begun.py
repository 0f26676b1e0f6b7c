"""Which published checkpoint a run begins with: found once, and pinned in its manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.files import Published, find
from modelwright.hub.loading import config_of
from modelwright.hub.tokenizer import codec_for
from modelwright.run import Run
from modelwright.types import Codec, Example


@dataclass(frozen=True)
class Pinned:
    """A checkpoint, and what the manifest says of it: source, revision, type, SHA-256 of files."""

    published: Published
    record: Mapping[str, Any]

    def codec(self, kind: str, train: Sequence[Example], options: Mapping[str, Any]) -> Codec:
        """Its tokenizer as the codec of a task."""
        config = config_of(self.published)[1]
        vocabulary = getattr(config, "vocabulary", None)
        if vocabulary is None:
            raise ModelwrightError(
                f"model.from: {self.published.source} is a {config.family}, which reads no text; "
                "choose a published model of text"
            )
        return codec_for(self.published, vocabulary, kind, train, options)


def published_of(run: Run, say: Callable[[str], None] | None = None) -> Published | None:
    """The checkpoint that the recipe names, at the revision that was found first."""
    source = run.recipe.published
    if source is None:
        return None
    kept = run.manifest.get("published") or {}
    same = kept.get("source") == source
    return find(source, revision=kept.get("revision") if same else None, say=say)


def pinned(run: Run, say: Callable[[str], None]) -> Pinned | None:
    """The checkpoint, hashed, checked against what the hub states, and written down.

    Raises:
        CorruptError: a file is not what the hub states.
    """
    published = published_of(run, say)
    if published is None:
        return None
    say(f"prepare: hashing {published.source}")
    record = {
        "source": published.source,
        "revision": published.revision,
        "model_type": published.config["model_type"],
        "files": published.hashes(),
    }
    if run.manifest.get("published") != record:
        run.manifest["published"] = record
        run.save_manifest()
    return Pinned(published, record)
