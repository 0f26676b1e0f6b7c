"""The names that a published head gives its labels."""

from __future__ import annotations

import re
from typing import Any

from modelwright.errors import CorruptError, ModelwrightError, did_you_mean
from modelwright.hub.files import Published

_NAMELESS = re.compile(r"LABEL_\d+")


def stored_labels(published: Published) -> list[str] | None:
    """The labels in the order of the head's outputs; None where the checkpoint names none.

    Raises:
        CorruptError: they are not numbered from 0 on.
    """
    named = published.config.get("id2label")
    if not isinstance(named, dict) or not named:
        return None
    try:
        found = [str(named[str(i)]) for i in range(len(named))]
    except KeyError as error:
        raise CorruptError(
            f"{published.folder / 'config.json'}: id2label has no label {error}; get it again"
        ) from error
    return None if all(_NAMELESS.fullmatch(name) for name in found) else found


def in_stored_order(codec: Any, published: Published) -> None:
    """Number a codec's labels as the published head does, which is kept.

    Raises:
        ModelwrightError: the data have a label that the head does not know.
    """
    labels, stored = getattr(codec, "labels", None), stored_labels(published)
    if labels is None or stored is None:
        return
    unknown = [name for name in labels if name not in stored]
    if unknown:
        raise ModelwrightError(
            f"model.from: the head of {published.source} knows no label {unknown[0]!r}"
            f"{did_you_mean(unknown[0], stored)}; rename it in the data, or to draw a new head"
            " write head: new under model"
        )
    codec.labels = stored
