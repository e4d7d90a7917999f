"""Tests and intervals against scipy, published examples, brute force, and their coverage by simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy
import pytest
from scipy import optimize, stats

from tale.statistics import Paired, paired_difference, wilson


def test_pairs_are_counted_by_question() -> None:
    assert Paired.of([1, 1, 0, 0, 1], [1, 0, 1, 0, 0]) == Paired(only_ours=2, only_theirs=1, total=5)
    with pytest.raises(ValueError, match="longer"):
        Paired.of([True], [True, False])


# --- McNemar --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 5), (3, 3), (7, 2), (2, 14), (40, 61)])
def test_mcnemar_is_the_exact_two_sided_binomial_tail(b: int, c: int) -> None:
    """Both tails of fair coin tosses, summed by hand."""
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert Paired(b, c, 200).mcnemar() == pytest.approx(min(1.0, 2 * tail), rel=1e-12)


def test_mcnemar_is_near_its_chi_squared_form_in_a_large_sample() -> None:
    """With the continuity correction, (|b − c| − 1)² / (b + c)."""
    statistic = (abs(321 - 279) - 1) ** 2 / 600
    assert Paired(321, 279, 5000).mcnemar() == pytest.approx(stats.chi2.sf(statistic, 1), abs=2e-3)


def test_mcnemar_of_a_textbook_table() -> None:
    """Agresti, approval of the Prime Minister: 86 and 150 of 1,600 change their minds; χ² is 17.36, p = 0.00003."""
    p = Paired(86, 150, 1600).mcnemar()
    assert 1e-5 < p < 5e-5


# --- The interval of a paired difference of shares ------------------------------------------------------------------


def by_brute_force(b: int, c: int, n: int, delta: float) -> float:
    """The score statistic with the nuisance share found by a numeric search for the maximum likelihood."""

    def minus_likelihood(q: float) -> float:
        cells = (q + delta, q, 1 - 2 * q - delta)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip((b, c, n - b - c), cells, strict=True) if k)

    bounds = (max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12)
    q = optimize.minimize_scalar(minus_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    return (b - c - n * delta) / math.sqrt(n * (2 * q + delta - delta * delta))


@pytest.mark.parametrize(("b", "c", "n"), [(9, 4, 60), (1, 0, 44), (30, 55, 200), (3, 3, 20)])
def test_the_interval_holds_what_a_score_test_does_not_reject(b: int, c: int, n: int) -> None:
    low, high = Paired(b, c, n).interval()
    assert low < (b - c) / n < high
    assert by_brute_force(b, c, n, low) == pytest.approx(1.96, abs=2e-3)
    assert by_brute_force(b, c, n, high) == pytest.approx(-1.96, abs=2e-3)


@pytest.mark.parametrize("n", [1, 5, 50, 500])
def test_without_differences_the_interval_is_a_closed_form(n: int) -> None:
    """z² = (nδ)² / (n |δ| (1 − |δ|)) gives ± z² / (n + z²); a bootstrap would say ± 0."""
    z = stats.norm.ppf(0.975) ** 2
    assert Paired(0, 0, n).interval() == pytest.approx((-z / (n + z), z / (n + z)), abs=1e-6)


@pytest.mark.parametrize("n", [1, 7, 80])
def test_where_all_differ_one_way_the_interval_ends_at_one(n: int) -> None:
    assert Paired(n, 0, n).interval()[1] == pytest.approx(1, abs=1e-6)
    assert Paired(0, n, n).interval()[0] == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize(("b", "c", "n"), [(9, 4, 60), (0, 3, 10), (17, 17, 40)])
def test_the_interval_is_turned_round_with_the_methods(b: int, c: int, n: int) -> None:
    low, high = Paired(b, c, n).interval()
    assert Paired(c, b, n).interval() == pytest.approx((-high, -low), abs=1e-6)


def test_the_interval_of_a_large_sample_is_the_normal_one() -> None:
    b, c, n = 450, 380, 9000
    half = 1.96 * math.sqrt(b + c - (b - c) ** 2 / n) / n
    assert Paired(b, c, n).interval() == pytest.approx(((b - c) / n - half, (b - c) / n + half), abs=0.02 * half)


# --- Not worse by a margin ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b", "c", "n", "verdict"),
    [
        (40, 40, 2000, "shown"),  # equal, 4 % differ: ± 0.9 points
        (60, 50, 800, "shown"),
        (30, 60, 1000, "not shown"),  # 9 % differ: 785 would do, and −3 points are seen
        (0, 40, 100, "not shown"),  # few questions, but clearly worse
        (10, 10, 100, "not enough questions"),
        (0, 0, 50, "not enough questions"),  # none differs, and still ± 7 points
        (0, 0, 130, "shown"),
        (1, 0, 1, "not enough questions"),
    ],
)
def test_within_three_points(b: int, c: int, n: int, verdict: str) -> None:
    assert Paired(b, c, n).not_worse(0.03) == verdict


def test_the_questions_needed_by_hand() -> None:
    """(1.95996 + 0.84162)² = 7.8489; ψ = (180 + 1.9207) / (1000 + 3.8415) = 0.18123; over 0.03²: 1580.5."""
    assert Paired(100, 80, 1000).questions_needed(0.03) == Paired(10, 170, 1000).questions_needed(0.03) == 1581


def test_the_questions_needed_give_the_promised_power() -> None:
    """Two methods that are equally often right and differ in 12 % of the questions: 80 % of evaluations show it."""
    needed = Paired(600, 600, 10_000).questions_needed(0.03)
    rng = numpy.random.default_rng(1)
    drawn = rng.multinomial(needed, (0.06, 0.06, 0.88), 1500)
    shown = numpy.mean([Paired(int(b), int(c), needed).not_worse(0.03) == "shown" for b, c, _ in drawn])
    assert shown == pytest.approx(0.8, abs=0.03)


def test_a_method_worse_by_the_margin_passes_once_in_forty() -> None:
    rng = numpy.random.default_rng(2)
    drawn = rng.multinomial(600, (0.05, 0.08, 0.87), 2000)
    shown = numpy.mean([Paired(int(b), int(c), 600).not_worse(0.03) == "shown" for b, c, _ in drawn])
    assert shown == pytest.approx(0.025, abs=0.01)


# --- Coverage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "n"), [(0.57, 100), (0.78, 200), (0.95, 60)])
def test_wilsons_interval_covers(share: float, n: int) -> None:
    """Exactly: over all outcomes, each by its probability."""
    covered = sum(stats.binom.pmf(k, n, share) for k in range(n + 1) if wilson(k, n)[0] <= share <= wilson(k, n)[1])
    assert 0.93 < covered < 0.975


@pytest.mark.parametrize("shares", [(0.05, 0.08), (0.02, 0.02), (0.2, 0.1)])
def test_the_paired_interval_covers(shares: tuple[float, float]) -> None:
    """Exactly, at 40 questions: over all outcomes, each by its probability. Few that differ make it cautious."""
    n, (p, q) = 40, shares
    covered = 0.0
    for b, c in product(range(n + 1), repeat=2):
        probability = stats.multinomial.pmf((b, c, n - b - c), n, (p, q, 1 - p - q)) if b + c <= n else 0
        if probability > 1e-9:
            low, high = Paired(b, c, n).interval()
            covered += probability * (low <= p - q <= high)
    assert 0.93 < covered < 0.995


def test_the_bootstrap_of_tokens_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skewed lengths, 80 questions, 400 studies of 500 resamples: 95 %, less what a percentile interval is short of."""
    monkeypatch.setattr("tale.statistics.RESAMPLES", 500)
    rng = numpy.random.default_rng(3)
    covered = 0
    for _ in range(400):
        theirs = rng.gamma(4, 60, 80)
        _, low, high = paired_difference(theirs * rng.uniform(0.2, 1.0, 80), theirs)
        covered += low <= -0.4 * 240 <= high
    assert 0.91 < covered / 400 < 0.975
