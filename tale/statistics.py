"""Intervals: Wilson for a share, a bootstrap over questions for paired differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from scipy import stats

RESAMPLES = 9999


def wilson(successes: int, total: int) -> tuple[float, float]:
    """95 % Wilson score interval of successes / total, as shares."""
    interval = stats.binomtest(successes, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Mean of ours − theirs over the same questions, with a 95 % percentile bootstrap interval (seeded)."""
    difference = numpy.subtract(ours, theirs).astype(float)
    mean = float(difference.mean())
    if len(difference) < 2 or numpy.ptp(difference) == 0:  # nothing to resample
        return mean, mean, mean
    interval = stats.bootstrap(
        (difference,),
        numpy.mean,
        n_resamples=RESAMPLES,
        method="percentile",
        batch=256,
        rng=numpy.random.default_rng(0),
    ).confidence_interval
    return mean, float(interval.low), float(interval.high)
