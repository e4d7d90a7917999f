"""Elasticity point, ideal range, distance and monotonicity of small curves, worked out by hand."""

from __future__ import annotations

import pytest

from tale.analysis.curve import Point, Range, elastic, elasticity_point, ideal_range, monotone, points, smallest_right
from tale.data.question import Question
from tale.data.records import Answer, Attempt, Record
from tale.inference import Sampling

# Fig 1: 258 tokens vanilla, 86 under a budget of 50, 157 under 10.
FIGURE_1 = [Point(10, 157, True), Point(50, 86, True), Point(258, 240, True)]


def curve(*rows: tuple[int, float] | tuple[int, float, bool]) -> list[Point]:
    """Points, right unless they say otherwise."""
    return [Point(row[0], row[1], row[2] if len(row) == 3 else True) for row in rows]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], None),
        ([(10, 5, False), (20, 5, False)], None),
        # N = 1: k = max(1, round(1/3)) = 1
        ([(10, 50)], (10, 10)),
        ([(5, 1, False), (10, 50), (20, 1, False)], (10, 10)),  # a wrong answer's few tokens do not count
        # N = 2: k = round(2/3) = 1
        ([(10, 50), (20, 40)], (20, 20)),
        ([(10, 40), (20, 50)], (10, 10)),
        ([(10, 40), (20, 40)], (10, 10)),  # a tie: the smaller budget
        # N = 3, 4: k = 1
        ([(10, 50), (20, 40), (30, 60)], (20, 20)),
        ([(10, 50), (20, 40), (30, 60), (40, 30)], (40, 40)),
        # N = 5: k = round(5/3) = 2; sums 90, 70, 60, 100
        ([(10, 50), (20, 40), (30, 30), (40, 30), (50, 70)], (30, 40)),
        # The cheapest budget (10) may lie outside of the cheapest window.
        ([(10, 20), (20, 90), (30, 40), (40, 40), (50, 90)], (30, 40)),
        # N = 6: k = 2, a tie of 60 and 60
        ([(10, 30), (20, 30), (30, 50), (40, 30), (50, 30), (60, 99)], (10, 20)),
        # N = 7: k = round(7/3) = 2; N = 8: k = round(8/3) = 3, sums 12, 9, 9, 11, 15, 19
        ([(i, t) for i, t in enumerate([9, 1, 9, 9, 2, 3, 9], 1)], (5, 6)),
        ([(i, t) for i, t in enumerate([6, 4, 2, 3, 4, 4, 7, 8], 1)], (2, 4)),
        # The window is of neighbours among the right ones: 20 is wrong, and yet inside the closed range.
        ([(10, 30), (20, 1, False), (30, 30), (40, 50), (50, 60), (60, 60)], (10, 30)),
    ],
)
def test_the_ideal_range(rows: list, expected: tuple[int, int] | None) -> None:
    assert ideal_range(curve(*rows)) == (Range(*expected) if expected else None)


@pytest.mark.parametrize(("budget", "distance"), [(9, 11), (19.5, 0.5), (20, 0), (27, 0), (40, 0), (41, 1), (240, 200)])
def test_the_distance_is_to_the_nearer_end_and_nothing_inside(budget: float, distance: float) -> None:
    assert Range(20, 40).distance(budget) == distance


def test_a_range_of_one_budget_has_that_budget_inside() -> None:
    assert [Range(7, 7).distance(b) for b in (6, 7, 8)] == [1, 0, 1]


@pytest.mark.parametrize(
    ("rows", "budget", "is_elastic"),
    [
        ([(10, 157), (50, 86), (258, 240)], 50, True),
        ([(10, 30), (50, 86)], 10, False),  # always shorter: the smallest tested
        ([(10, 86), (50, 86)], 50, False),  # equal: the largest, and nothing grew
        ([(5, 90), (10, 86), (50, 86)], 50, True),
        ([(10, 5, False), (50, 86)], 50, False),  # wrong and short
        ([(10, 99, False), (50, 86)], 50, True),  # wrong, and longer
        ([(10, 50)], 10, False),
    ],
)
def test_the_elasticity_point(rows: list, budget: int, is_elastic: bool) -> None:
    found = elasticity_point(curve(*rows))
    assert found.budget == budget
    assert elastic(curve(*rows), found) == is_elastic


@pytest.mark.parametrize("rows", [[], [(10, 5, False)]])
def test_without_a_right_budget_there_is_no_elasticity_point(rows: list) -> None:
    assert elasticity_point(curve(*rows)) is None
    assert smallest_right(curve(*rows)) is None


@pytest.mark.parametrize(
    ("verdicts", "star", "expected"),
    [
        ("FFTTT", 40, True),  # Table 2: {1/4, 1/2, 1, 2, 4} · 40
        ("FTTTT", 40, False),  # one below is right
        ("FFTFT", 40, False),  # one above is wrong
        ("FFFTT", 40, False),
        ("FTTTT", 20, True),
        ("TTTTT", 10, True),
        ("FFFFF", 200, True),
    ],
)
def test_monotone_is_right_from_the_searched_budget_up_only(verdicts: str, star: int, expected: bool) -> None:
    tested = [Point(b, 1, v == "T") for b, v in zip((10, 20, 40, 80, 160), verdicts, strict=True)]
    assert monotone(tested, star) == expected


def test_the_smallest_right_budget() -> None:
    assert smallest_right(curve((10, 1, False), (20, 1), (30, 1, False), (40, 1))) == 20


def test_a_records_points_are_budgets_with_mean_tokens() -> None:
    def attempt(budget: int, tokens: list[int], feasible: bool) -> Attempt:
        answers = [Answer("", t, "stop", feasible, "1", "brackets") for t in tokens]
        return Attempt(budget, tuple(answers), feasible)

    rows = (attempt(50, [86], True), attempt(10, [150, 160], True), attempt(4, [9], False))
    record = Record(Question("q", "t", "1"), attempt(0, [258], True), rows, 50, rows[0].best, None, Sampling(512), "m")
    assert points(record) == [Point(4, 9, False), Point(10, 155, True), Point(50, 86, True)]
