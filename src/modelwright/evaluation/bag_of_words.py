"""The linear baseline for texts: which words occur how often, their order forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.tasks.grading import words
from modelwright.types import Array


def in_common(first: str, second: str) -> list[float]:
    """What two texts share: |A and B| of |A|, of |B| and of |A or B|, their distinct words."""
    a, b = set(words(first)), set(words(second))
    both = len(a & b)
    return [both / max(1, len(of)) for of in (a, b, a | b)]


class BagOfWords:
    """Multinomial logistic regression on TF-IDF vectors of words, fitted to convergence.

    Of a word that stands tf > 0 times in a text and in df of the N train texts

        weight = (1 + ln tf) · (ln((1 + N) / (1 + df)) + 1),   a text's vector has length 1.

    Minimises Σ cross-entropy(W x + b) + 1/(2 strength) · ||W||² with L-BFGS from zero in float64,
    as scikit-learn's ``TfidfVectorizer(sublinear_tf=True)`` and ``LogisticRegression`` do: the
    loss is convex, so there is no seed. Words of less than ``least`` train texts are not used.
    """

    def __init__(self, strength: float = 1.0, least: int = 2) -> None:
        self.strength, self.least = strength, least
        self._column: dict[str, int] = {}
        self._idf: Array = np.zeros(0)
        self._classes: list[str] = []
        self._weight = torch.zeros(0, 0, dtype=torch.float64)
        self._bias = torch.zeros(0, dtype=torch.float64)

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> Self:
        """Learn from the texts and their labels; they replace any seen before."""
        if len(texts) != len(labels) or not texts:
            raise ModelwrightError(
                f"bag of words: {len(texts)} texts and {len(labels)} labels; give one label to"
                " each of at least one text"
            )
        self._classes = sorted(set(labels))
        number = {label: i for i, label in enumerate(self._classes)}
        target = torch.tensor([number[label] for label in labels])
        self._learn(texts, lambda logits: torch.nn.functional.cross_entropy(logits, target))
        return self

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most likely label of every text."""
        return [self._classes[i] for i in self._of(texts).argmax(1).tolist()]

    def scores(self, texts: Sequence[str], label: str) -> list[float]:
        """The logit of one label for every text: by which texts can be compared."""
        found: list[float] = self._of(texts)[:, self._classes.index(label)].tolist()
        return found

    def _of(self, texts: Sequence[str]) -> Tensor:
        return self._logits(self._vectors([Counter(words(text)) for text in texts]), len(texts))

    def _learn(self, texts: Sequence[str], cost: Callable[[Tensor], Tensor]) -> None:
        """Choose the words, and fit to the cost of a text that the mean logits have."""
        counts = [Counter(words(text)) for text in texts]
        frequency = Counter(word for count in counts for word in count)
        known = sorted(word for word, df in frequency.items() if df >= self.least)
        self._column = {word: i for i, word in enumerate(known)}
        df = np.array([frequency[word] for word in known], dtype=np.float64)
        self._idf = np.log((1 + len(texts)) / (1 + df)) + 1
        self._weight = torch.zeros(len(known), len(self._classes), dtype=torch.float64)
        self._bias = torch.zeros(len(self._classes), dtype=torch.float64)
        if not self._classes:  # no label ever holds: there is nothing to fit
            return
        vectors = self._vectors(counts)
        parameters = [self._weight.requires_grad_(), self._bias.requires_grad_()]
        optimizer = torch.optim.LBFGS(
            parameters,
            max_iter=200,
            tolerance_grad=1e-7,
            tolerance_change=1e-10,
            line_search_fn="strong_wolfe",
        )
        penalty = 1 / (2 * self.strength * len(texts))

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = cost(self._logits(vectors, len(texts)))
            loss = loss + penalty * self._weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        self._weight, self._bias = self._weight.detach(), self._bias.detach()

    def _vectors(self, counts: Sequence[Counter[str]]) -> tuple[Tensor, Tensor, Tensor]:
        """The texts as a sparse matrix: row, column and weight of every entry."""
        rows, columns, times = [], [], []
        for row, count in enumerate(counts):
            for word, tf in count.items():
                if word in self._column:
                    rows.append(row)
                    columns.append(self._column[word])
                    times.append(tf)
        at, column = np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)
        weights = (1 + np.log(np.array(times, dtype=np.float64))) * self._idf[column]
        squares = np.bincount(at, weights * weights, minlength=len(counts))
        weights /= np.sqrt(squares[at])
        return torch.from_numpy(at), torch.from_numpy(column), torch.from_numpy(weights)

    def _logits(self, vectors: tuple[Tensor, Tensor, Tensor], rows: int) -> Tensor:
        at, column, weights = vectors
        parts = self._weight.index_select(0, column) * weights[:, None]
        return self._bias + parts.new_zeros(rows, parts.shape[1]).index_add(0, at, parts)


class OneAgainstRest(BagOfWords):
    """The same where any number of labels holds: a logistic regression of two classes a label.

    Minimises Σ over texts and labels of log(1 + exp(∓ (w x + b))) + 1/(2 strength) · ||W||². As no
    two labels share a weight, that is each label's own minimum, one against all the rest.
    """

    def fit_several(self, texts: Sequence[str], labels: Sequence[Sequence[str]]) -> Self:
        """Learn from the texts and the labels that hold for each; none may."""
        if len(texts) != len(labels) or not texts:
            raise ModelwrightError(
                f"bag of words: {len(texts)} texts and {len(labels)} sets of labels; give one set"
                " to each of at least one text"
            )
        self._classes = sorted({name for names in labels for name in names})
        number = {label: i for i, label in enumerate(self._classes)}
        target = torch.zeros(len(texts), len(self._classes), dtype=torch.float64)
        for row, names in enumerate(labels):
            target[row, [number[name] for name in names]] = 1
        each = torch.nn.functional.binary_cross_entropy_with_logits
        self._learn(texts, lambda logits: each(logits, target, reduction="sum") / len(texts))
        return self

    def predict_several(self, texts: Sequence[str]) -> list[list[str]]:
        """The labels of every text that hold with a probability of a half or more."""
        holds = (self._of(texts) >= 0).tolist()
        return [[c for c, yes in zip(self._classes, row, strict=True) if yes] for row in holds]
