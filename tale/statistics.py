"""Intervals and tests: for a share, for paired differences of shares and of means, and for non-inferiority."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy
from scipy import optimize, stats

RESAMPLES = 9999
Z = float(stats.norm.ppf(0.975))  # of a two-sided 95 % interval
POWER = 0.8

Verdict = Literal["shown", "not shown", "not enough questions"]
# A figure and its interval, or Nones.
Bounded = tuple[float | None, float | None, float | None]
UNKNOWN: Bounded = (None, None, None)


def wilson(successes: int, total: int) -> tuple[float, float]:
    """95 % Wilson score interval of successes / total, as shares."""
    interval = stats.binomtest(successes, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Mean of ours − theirs over the same questions, with its interval (`bootstrap_mean`)."""
    return bootstrap_mean(numpy.subtract(ours, theirs))


def bootstrap_mean(values: Sequence[float] | numpy.ndarray) -> tuple[float, float, float]:
    """Mean, with a 95 % percentile bootstrap interval (seeded)."""
    sample = numpy.asarray(values, dtype=float)
    mean = float(sample.mean())
    if len(sample) < 2 or numpy.ptp(sample) == 0:  # nothing to resample
        return mean, mean, mean
    interval = stats.bootstrap(
        (sample,), numpy.mean, n_resamples=RESAMPLES, method="percentile", batch=256, rng=numpy.random.default_rng(0)
    ).confidence_interval
    return mean, float(interval.low), float(interval.high)


def bootstrap_rows(rows: numpy.ndarray, figure: Callable[[numpy.ndarray], numpy.ndarray]) -> Bounded:
    """A figure of the mean of rows, with a 95 % percentile bootstrap interval that draws whole rows (seeded).

    `figure` takes means, [..., columns], and may be NaN where it is not defined: it is left out of the interval, and
    None of the given rows.
    """
    value = float(figure(rows.mean(axis=0)))
    if math.isnan(value):
        return UNKNOWN
    rng = numpy.random.default_rng(0)
    batches = [min(256, RESAMPLES - start) for start in range(0, RESAMPLES, 256)]
    drawn = [figure(rows[rng.integers(len(rows), size=(size, len(rows)))].mean(axis=1)) for size in batches]
    low, high = numpy.nanquantile(numpy.concatenate(drawn), (0.025, 0.975))
    return value, float(low), float(high)


def mean_share(shares: Sequence[float]) -> tuple[float, float, float]:
    """Mean of the questions' shares of right answers, with a 95 % interval.

    Wilson's if all answers to each question agree, so that there is one verdict per question; else a bootstrap over
    questions, as answers to the same question are correlated.
    """
    if set(shares) <= {0, 1}:
        return sum(shares) / len(shares), *wilson(int(sum(shares)), len(shares))
    return sum(shares) / len(shares), *_resampled(shares, 0)


def _resampled(shares: Sequence[float], least: float) -> tuple[float, float]:
    """95 % bootstrap interval over questions of the mean of shares, or of differences of shares, from `least` to 1.

    It extends at least z² / (n + z²) to either side, as Wilson's and Tango's intervals do if all n questions agree: a
    bootstrap would have no width there.
    """
    mean, low, high = bootstrap_mean(shares)
    unseen = Z * Z / (len(shares) + Z * Z)
    return max(least, min(low, mean - unseen)), min(1.0, max(high, mean + unseen))


class Comparison(ABC):
    """Ours and theirs on the same `total` questions; `differing` is the sum of the questions' squared differences.

    Where a question has one verdict, that is how many questions the two differ on.
    """

    total: int

    @property
    @abstractmethod
    def difference(self) -> float:
        """Ours − theirs, as a share."""

    @property
    @abstractmethod
    def differing(self) -> float:
        """How much they differ, in either direction."""

    @abstractmethod
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference."""

    def not_worse(self, margin: float) -> Verdict:
        """Non-inferiority: whether ours is not worse than theirs by `margin` or more (a share above 0).

        "shown": the whole 95 % interval lies above −margin (a one-sided test at 2.5 %). Otherwise "not enough
        questions" if there are fewer than `questions_needed`, unless the whole interval lies below −margin, where the
        data are clear enough. Else "not shown".
        """
        low, high = self.interval()
        if low > -margin:
            return "shown"
        return "not enough questions" if high >= -margin and self.total < self.questions_needed(margin) else "not shown"

    def questions_needed(self, margin: float) -> int:
        """The number of questions for 80 % power, if both methods are equally often right.

        By the usual formula for paired shares, (z₀.₉₇₅ + z₀.₈)² ψ / margin²: ψ is how often the two methods differ (the
        variance of a difference with mean 0), by the centre of its Wilson interval, so that it is above 0 even if no
        difference was observed. As it does not depend on which method was right, it does not anticipate the outcome.
        """
        differing = (self.differing + Z * Z / 2) / (self.total + Z * Z)
        return math.ceil((Z + float(stats.norm.ppf(POWER))) ** 2 * differing / margin**2)


@dataclass(frozen=True)
class Paired(Comparison):
    """Two methods' verdicts on the same questions: how many only ours, and only theirs, answers right, of `total`."""

    only_ours: int
    only_theirs: int
    total: int

    @classmethod
    def of(cls, ours: Sequence[bool], theirs: Sequence[bool]) -> Paired:
        """Counted over questions in the same order."""
        pairs = list(zip(ours, theirs, strict=True))
        return cls(sum(o and not t for o, t in pairs), sum(t and not o for o, t in pairs), len(pairs))

    @property
    def difference(self) -> float:
        """Ours − theirs, as a share."""
        return (self.only_ours - self.only_theirs) / self.total

    @property
    def differing(self) -> int:
        """On how many questions only one of them is right."""
        return self.only_ours + self.only_theirs

    def mcnemar(self) -> float:
        """Two-sided p of the exact McNemar test, with the null hypothesis that each is right as often as the other."""
        return float(stats.binomtest(self.only_ours, self.differing).pvalue) if self.differing else 1.0

    def interval(self) -> tuple[float, float]:
        """95 % score interval of the difference (Tango 1998, Statistics in Medicine 17, 891–908).

        Unlike a bootstrap it keeps its coverage if few questions differ, or none.
        """
        at = self.difference
        below = _crossing(lambda delta: self._score(delta) - Z, -1, at)
        above = _crossing(lambda delta: self._score(delta) + Z, at, 1)
        return below, above

    def _score(self, delta: float) -> float:
        """The score statistic of a difference `delta`, with the share of `only_theirs` at its maximum likelihood."""
        n, b, c = self.total, self.only_ours, self.only_theirs
        linear, constant = (2 * n - b + c) * delta - b - c, -c * delta * (1 - delta)
        share = (math.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * share + delta * (1 - delta))
        gap = b - c - n * delta
        return gap / math.sqrt(variance) if variance > 1e-12 else math.copysign(math.inf, gap) if gap else 0.0


@dataclass(frozen=True)
class PairedShares(Comparison):
    """Two methods that answer each question several times: by question, the difference of their shares right."""

    differences: tuple[float, ...]

    @property
    def total(self) -> int:  # type: ignore[override]
        """The number of questions; several answers to a question count once."""
        return len(self.differences)

    @property
    def difference(self) -> float:
        """Ours − theirs, as a share."""
        return sum(self.differences) / self.total

    @property
    def differing(self) -> float:
        """Squared differences, summed over questions."""
        return sum(difference * difference for difference in self.differences)

    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval over questions."""
        return _resampled(self.differences, -1)


def compare_paired(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Compare two methods by each question's share of right answers; `Paired` if all differences are −1, 0 or 1."""
    differences = [float(o) - float(t) for o, t in zip(ours, theirs, strict=True)]
    if set(differences) <= {-1, 0, 1}:
        return Paired(differences.count(1), differences.count(-1), len(differences))
    return PairedShares(tuple(differences))


def _crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a decreasing function crosses 0 between two ends; the nearer end if it does not."""
    low, high = max(low, -1 + 1e-9), min(high, 1 - 1e-9)
    if function(low) <= 0 or low >= high:
        return round(low, 6)
    if function(high) >= 0:
        return round(high, 6)
    return float(optimize.brentq(function, low, high))
