"""Questions about passages as SQuAD's JSON has them: articles, paragraphs, questions, answers.

The format of SQuAD 1.1 and 2.0 (arXiv:1606.05250, arXiv:1806.03822), XQuAD and CMRC 2018:
{"data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [{"question": ..., "answers":
[{"text": ..., "answer_start": ...}]}]}]}]}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.types import Row


def is_squad(values: Any) -> bool:
    """Whether a JSON document is of this form."""
    articles = values.get("data") if isinstance(values, dict) else None
    return (
        isinstance(articles, list)
        and bool(articles)
        and isinstance(articles[0], dict)
        and "paragraphs" in articles[0]
    )


def squad_rows(values: Any, name: str) -> Iterator[Row]:
    """A row a paragraph: ``context``, ``qas`` as they stand, and the article as ``group``.

    Raises:
        ModelwrightError: a paragraph without its context or its questions.
    """
    for a, article in enumerate(values["data"], start=1):
        for p, paragraph in enumerate(article["paragraphs"], start=1):
            where = f"{name}: article {a}, paragraph {p}"
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("context"), str):
                raise ModelwrightError(f"{where}: no text 'context'; complete or remove it")
            if not isinstance(paragraph.get("qas"), list):
                raise ModelwrightError(f"{where}: no list 'qas' of questions; complete it")
            yield {
                "id": f"{name}:{a}:{p}",
                "context": paragraph["context"],
                "qas": paragraph["qas"],
                "group": f"{name}:{a}",
            }
