"""Customary measures of written answers, by the libraries that everybody reports them with.

BLEU (arXiv:1804.08771) and chrF (Popović 2015) come from sacreBLEU, ROUGE (Lin 2004) from
rouge-score. Their signature stands beside every number, since another tokenization gives others.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from modelwright.errors import MachineError
from modelwright.tasks.grading import words
from modelwright.tasks.task import Measured

RESAMPLED = 1000  # draws of the bootstrap
KINDS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
_CHINESE = re.compile("[㐀-鿿豈-﫿]")
_Z95 = 1.959963984540054


def _sacrebleu() -> Any:
    try:
        import sacrebleu  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MachineError(
            "BLEU and chrF need sacrebleu, which is not installed: pip install 'modelwright[text]'"
        ) from error
    return sacrebleu


def bleu(references: Sequence[str], answers: Sequence[str]) -> Measured:
    """Corpus BLEU, 0 to 100, of texts as they are written; Chinese is cut into characters."""
    chinese = sum(_CHINESE.search(text) is not None for text in references) * 2 > len(references)
    metric = _sacrebleu().BLEU(tokenize="zh" if chinese else "13a")
    return _corpus("BLEU", metric, references, answers)


def chrf(references: Sequence[str], answers: Sequence[str]) -> Measured:
    """Corpus chrF, 0 to 100: the F2 of character n-grams up to 6."""
    return _corpus("chrF", _sacrebleu().CHRF(), references, answers)


def _corpus(name: str, metric: Any, references: Sequence[str], answers: Sequence[str]) -> Measured:
    draws = RESAMPLED if len(answers) > 1 else 1
    found = metric.corpus_score(list(answers), [list(references)], n_bootstrap=draws)
    interval = f"95 % within {found._ci:.1f}, by bootstrap; " if draws > 1 else ""
    how = f"{interval}sacreBLEU {metric.get_signature()}"
    return Measured(name, float(found.score), note=how)


def sentence_chrf(reference: str, answer: str) -> float:
    """The chrF of one text, 0 to 100."""
    return float(_sentence().sentence_score(answer, [reference]).score)


@lru_cache(maxsize=1)
def _sentence() -> Any:
    return _sacrebleu().CHRF()


class _Words:
    """Words of any language for rouge-score, which by itself knows a to z and digits alone."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@lru_cache(maxsize=4)
def _rouge(latin: bool, kinds: tuple[str, ...]) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MachineError(
            "ROUGE needs rouge-score, which is not installed: pip install 'modelwright[text]'"
        ) from error
    if latin:
        return RougeScorer(list(kinds), use_stemmer=True)
    return RougeScorer(list(kinds), tokenizer=_Words())


def _latin(text: str) -> bool:
    letters = [c.isascii() for c in text if c.isalpha()]
    return 2 * sum(letters) >= len(letters)


def rouge_f1(
    reference: str, answer: str, kinds: tuple[str, ...] = tuple(KINDS)
) -> dict[str, float]:
    """The F1 of rouge1, rouge2 and rougeL, or of some of these ``kinds``, 0 to 1.

    Words are stemmed. A reference mostly of letters that the library does not know is cut into
    words of any script, and Chinese into characters, without stemming.
    """
    found = _rouge(_latin(reference), kinds).score(reference, answer)
    return {kind: float(found[kind].fmeasure) for kind in kinds}


def rouge(references: Sequence[str], answers: Sequence[str]) -> list[Measured]:
    """The means of ROUGE-1, ROUGE-2 and ROUGE-L over all answers."""
    each = [rouge_f1(r, a) for r, a in zip(references, answers, strict=True)]
    how = "rouge-score, F1, stemmed"
    if not all(map(_latin, references)):
        how += "; references of other scripts by words, not stemmed"
    found = []
    for kind, name in KINDS.items():
        values = [scores[kind] for scores in each]
        said = how
        if len(values) > 1:
            half = _Z95 * statistics.stdev(values) / math.sqrt(len(values))
            said = f"95 % within {half:.4f}; {how}"
        found.append(Measured(name, statistics.fmean(values), note=said))
    return found
