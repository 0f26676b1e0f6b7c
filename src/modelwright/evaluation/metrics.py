"""Measures that can be taken part by part: any cut of a set, in any order, gives one number.

Sums are kept exactly (whole numbers and fractions, never rounded on the way), so what several
processes or a resumed evaluation put together equals the measure of the whole set bit for bit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable
from fractions import Fraction

from modelwright.errors import ModelwrightError

Z95 = 1.959963984540054  # the normal distribution has 95 % of its mass within ± Z95 deviations


class Mean:
    """Mean, spread and 95 % interval of numbers that come one by one.

    Every float is a fraction, so sum and sum of squares are kept as ``Fraction`` and rounded
    only when read: neither the order nor the cancellation in Σx² - (Σx)²/n costs a digit.
    """

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.count = 0
        self._sum = Fraction(0)
        self._squares = Fraction(0)
        for value in values:
            self.add(value)

    def add(self, value: float) -> None:
        """Take in one number.

        Raises:
            ModelwrightError: when it is not finite.
        """
        if not math.isfinite(value):
            raise ModelwrightError(
                f"measure: value {self.count + 1} is {value}; only finite numbers have a mean, "
                "find the example it comes from"
            )
        exact = Fraction(value)
        self.count += 1
        self._sum += exact
        self._squares += exact * exact

    def merge(self, other: Mean) -> Mean:
        """The measure of both parts together; neither part is changed."""
        both = Mean()
        both.count = self.count + other.count
        both._sum = self._sum + other._sum
        both._squares = self._squares + other._squares
        return both

    @property
    def value(self) -> float:
        """The mean Σx / n, correctly rounded; an error when there is no value yet."""
        _need(self.count)
        return float(self._sum / self.count)

    @property
    def spread(self) -> float | None:
        """The sample deviation sqrt(Σ(x - mean)² / (n - 1)); None for fewer than two values."""
        if self.count < 2:
            return None
        variance = (self._squares - self._sum**2 / self.count) / (self.count - 1)
        # The root is taken near 1: the variance of 1e200 or 1e-200 is outside the floats.
        half = (variance.numerator.bit_length() - variance.denominator.bit_length()) // 2
        return math.ldexp(math.sqrt(variance / Fraction(4) ** half), half)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The normal 95 % interval, mean ± 1.96 spread / sqrt(n); None below two values."""
        spread = self.spread
        if spread is None:
            return None
        half = Z95 * spread / math.sqrt(self.count)
        return self.value - half, self.value + half


class Accuracy:
    """The share of answers that equal their reference, kept as two whole numbers."""

    def __init__(self, correct: int = 0, count: int = 0) -> None:
        if not 0 <= correct <= count:
            raise ModelwrightError(
                f"accuracy: {correct} correct of {count} cannot be; give 0 <= correct <= count"
            )
        self.correct = correct
        self.count = count

    def add(self, reference: object, answer: object) -> None:
        """Take in one answer."""
        self.correct += bool(reference == answer)
        self.count += 1

    def merge(self, other: Accuracy) -> Accuracy:
        """The measure of both parts together; neither part is changed."""
        return Accuracy(self.correct + other.correct, self.count + other.count)

    @property
    def value(self) -> float:
        """The share, correct / count; an error when there is no answer yet."""
        _need(self.count)
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % score interval of a share, which stays inside 0..1 (Wilson 1927)."""
        p, n, z2 = self.value, self.count, Z95 * Z95
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return max(0.0, middle - half), min(1.0, middle + half)


class MacroF1:
    """The mean over the classes of F1 = 2 right / (answered + meant), each class counting alike.

    Classes are those that are meant or answered at least once, as scikit-learn counts them.
    """

    def __init__(self) -> None:
        self.right: Counter[Hashable] = Counter()
        self.answered: Counter[Hashable] = Counter()
        self.meant: Counter[Hashable] = Counter()

    def add(self, reference: Hashable, answer: Hashable) -> None:
        """Take in one answer."""
        self.meant[reference] += 1
        self.answered[answer] += 1
        self.right[reference] += reference == answer

    def merge(self, other: MacroF1) -> MacroF1:
        """The measure of both parts together; neither part is changed."""
        both = MacroF1()
        for name in ("right", "answered", "meant"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    @property
    def value(self) -> float:
        """The mean, correctly rounded; an error when there is no answer yet."""
        _need(self.meant.total())
        classes = self.meant.keys() | self.answered.keys()
        every = (Fraction(2 * self.right[c], self.meant[c] + self.answered[c]) for c in classes)
        return float(sum(every, Fraction(0)) / len(classes))


def _need(count: int) -> None:
    """Refuse the measure of an empty set."""
    if count == 0:
        raise ModelwrightError("measure: there is nothing to measure; give at least one example")
