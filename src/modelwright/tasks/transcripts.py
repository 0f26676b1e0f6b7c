"""How a transcript is compared with what was said: word and character error rates, by jiwer.

Both are (substitutions + deletions + insertions) / reference, over all recordings together, of the
alignment with the fewest errors (Levenshtein). They are 0 for a perfect answer and may exceed 1.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from modelwright.data.scripts import units
from modelwright.errors import MachineError
from modelwright.tasks.task import Measured

WORST = 3  # recordings whose errors are shown
CONFUSED = 5  # pairs of words
_KEPT = {"'", "’"}  # of punctuation: part of words
LONGEST = 400  # words of a text that is compared word by word


def normalised(text: str, *, lower: bool = True, punctuation: bool = False) -> str:
    """The text in composed Unicode, in small letters, without punctuation, spaces single."""
    text = unicodedata.normalize("NFC", text)
    if lower:
        text = text.lower()
    if not punctuation:
        text = text.replace("’", "'")
        text = "".join(
            " " if unicodedata.category(c)[0] in "PS" and c not in _KEPT else c for c in text
        )
    return " ".join(word.strip("'") if not punctuation else word for word in text.split())


def _jiwer() -> Any:
    try:
        import jiwer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MachineError(
            "word error rates need jiwer, which is not installed: pip install 'modelwright[speech]'"
        ) from error
    return jiwer


def word_error_rate(reference: str, answer: str) -> float:
    """Of one recording."""
    return float(_jiwer().wer(reference, answer))


def error_rates(references: Sequence[str], answers: Sequence[str]) -> list[Measured]:
    """Word and character error rate of all recordings, and what was mistaken."""
    jiwer = _jiwer()
    words = jiwer.process_words(list(references), list(answers))
    letters = jiwer.process_characters(list(references), list(answers))
    exact = sum(r == a for r, a in zip(references, answers, strict=True)) / len(references)
    return [
        Measured("word error rate", float(words.wer), "lower", _told(words)),
        Measured("character error rate", float(letters.cer), "lower", _counts(letters)),
        Measured("recordings without an error", exact),
    ]


def _counts(found: Any) -> str:
    return (
        f"{found.substitutions} substituted, {found.deletions} left out, {found.insertions} put"
        f" in, of {found.hits + found.substitutions + found.deletions:,}"
    )


def _told(found: Any) -> str:
    """The counts, the commonest confusions, and the alignment of the worst recordings."""
    confused: Counter[tuple[str, str]] = Counter()
    errors = []
    for number, alignment in enumerate(found.alignments):
        meant, said = found.references[number], found.hypotheses[number]
        for chunk in alignment:
            if chunk.type == "substitute":
                pairs = zip(
                    meant[chunk.ref_start_idx : chunk.ref_end_idx],
                    said[chunk.hyp_start_idx : chunk.hyp_end_idx],
                    strict=True,
                )
                confused.update(pairs)
        wrong = sum(
            max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx)
            for c in alignment
            if c.type != "equal"
        )
        errors.append((-wrong / max(1, len(meant)), number))
    told = [_counts(found)]
    if confused:
        common = (f"{a} as {b} ({n})" for (a, b), n in confused.most_common(CONFUSED))
        told.append(f"most confused: {', '.join(common)}")
    worst = [number for share, number in sorted(errors)[:WORST] if share < 0]
    if worst:
        told.append("worst: " + " / ".join(_aligned(found, number) for number in worst))
    return "; ".join(told)


def _aligned(found: Any, number: int) -> str:
    """One recording: words that are right as they are, [meant > said] where they are not."""
    meant, said = found.references[number], found.hypotheses[number]
    parts = []
    for chunk in found.alignments[number]:
        reference = " ".join(meant[chunk.ref_start_idx : chunk.ref_end_idx])
        answer = " ".join(said[chunk.hyp_start_idx : chunk.hyp_end_idx])
        parts.append(
            reference if chunk.type == "equal" else f"[{reference or '-'} > {answer or '-'}]"
        )
    return " ".join(parts)


def compared(reference: str, answer: str) -> list[tuple[str, str]]:
    """The words of two texts side by side: (meant, said), empty where nothing stands beside it.

    It has the fewest differences there can be (Levenshtein), and of all such the most words that
    are right; where there are still several, words are paired, from the end on, before one is left
    out, and that before one is put in. Texts of more than LONGEST words are not compared: nothing.
    """
    meant, said = units(reference), units(answer)
    if max(len(meant), len(said)) > LONGEST:
        return []
    much = len(meant) + len(said) + 1  # what a difference costs; a word that is right gives 1
    rows = [[much * j for j in range(len(said) + 1)]]
    for a in meant:
        before, row = rows[-1], [rows[-1][0] + much]
        for j, b in enumerate(said):
            beside = before[j] + (-1 if a == b else much)
            row.append(min(beside, before[j + 1] + much, row[j] + much))
        rows.append(row)
    pairs: list[tuple[str, str]] = []
    i, j = len(meant), len(said)
    while i or j:
        here = rows[i][j]
        if i and j and here == rows[i - 1][j - 1] + (-1 if meant[i - 1] == said[j - 1] else much):
            i, j = i - 1, j - 1
            pairs.append((meant[i], said[j]))
        elif i and here == rows[i - 1][j] + much:
            i -= 1
            pairs.append((meant[i], ""))
        else:
            j -= 1
            pairs.append(("", said[j]))
    return pairs[::-1]
