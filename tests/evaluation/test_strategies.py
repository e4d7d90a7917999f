"""Strategies in an evaluation: what their replies hold, their table, curves and indices, each figure by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from matplotlib.figure import Figure

from tale.config.sections import PriceConfig
from tale.errors import UserError
from tale.evaluation.anytime import anytime_indices, area_index, gain_index, quality_at
from tale.evaluation.budgets import baselines
from tale.evaluation.curves import OWN, SINGLE, costs_of, draw
from tale.evaluation.replies import Reply, answer_all, read_replies
from tale.evaluation.strategies import Usage, compare_strategies, strategies_table
from tale.inference import Completion
from tale.solvers.registry import METHODS
from tale.statistics import Paired, bootstrap_mean, bootstrap_rows
from tests.fake_engine import GREEDY, FakeEngine, questions, right, wrong
from tests.run_factories import strategies_run

QUESTIONS = questions(2)
SAMPLES = {"q/0": [wrong(30), right(50), right(40), right(9)], "q/1": [right(60), wrong(70), wrong(20), right(9)]}


def replies(kind: str, **options: Any) -> list[Reply]:
    """A strategy's replies to the two questions, whose samples are the same whatever asks for them."""
    engine = FakeEngine(QUESTIONS, lambda asked: SAMPLES[asked.question.id][asked.sample])
    return answer_all(METHODS[kind](**options), QUESTIONS, engine, GREEDY)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return strategies_run(tmp_path_factory.mktemp("runs") / "eval")


# --- Replies --------------------------------------------------------------------------------------------------------


def test_a_strategys_replies_are_read_back_as_they_were(tmp_path: Path) -> None:
    made = replies("self_consistency", total_budget=150, temperature=0.7) + replies("vanilla")
    file = tmp_path / "replies.jsonl"
    file.write_text("".join(f"{json.dumps(reply.line)}\n" for reply in made))
    assert [reply for of in read_replies(file).values() for reply in of] == made


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: line["calls"][1].update(parent=1), r"calls\[1\].parent is 1, not that of an earlier call"),
        (lambda line: line["calls"][1].update(parent=-1), r"Expected `int` >= 0 - at `\$.calls\[1\].parent`"),
        (lambda line: line["calls"][1].update(tokens=51), "tokens is 120, the calls' are 121"),
        (lambda line: line.update(prompt_tokens=29), "prompt_tokens is 29, the calls' are 30"),
        (lambda line: line["answers"][0].update(call=3), r"answers\[0\].call is 3 of 3 calls"),
        (lambda line: line["answers"][0].update(tokens=121), r"answers are at \[121, 120\] tokens of 120"),
        (lambda line: line["answers"][1].update(tokens=121), r"answers are at \[30, 121\] tokens of 120"),
        (
            lambda line: line["answers"][1].update(correct=False),
            "the last of answers has correct=False, ",
        ),
        (lambda line: line.pop("calls"), "total_budget, calls and answers are not all given"),
        (lambda line: line["calls"][0].pop("limit"), "missing required field `limit`"),
        (lambda line: line["calls"][0].update(finish="end"), r"Invalid enum value 'end' - at `\$.calls\[0\].finish`"),
    ],
)
def test_a_strategys_damaged_line_is_named(damage: Callable[[dict], Any], message: str, tmp_path: Path) -> None:
    lines = [reply.line for reply in replies("self_consistency", total_budget=150, temperature=0.7)]
    lines[0] = json.loads(json.dumps(lines[0]))
    damage(lines[0])
    file = tmp_path / "replies.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines[::-1]))
    with pytest.raises(UserError, match=rf"replies.jsonl:2: not a reply \(.*{message}"):
        read_replies(file)


# --- Tables ---------------------------------------------------------------------------------------------------------


def test_the_table_of_strategies_is_that_by_hand() -> None:
    """At B = 150 SC answers 7 twice of 3, and 7, then 8, of which 7 was first; both questions are right.

    A single chain is wrong, then right. At B = 50 its second chain is cut. A token read costs 0.1, one generated 0.2 of
    10⁻⁵ $.
    """
    given = [("vanilla", {}), ("single", {"total_budget": 150}), ("single", {"total_budget": 50})]
    given += [("self_consistency", {"total_budget": 150, "temperature": 0.7})]
    methods = [METHODS[kind](**options) for kind, options in given]
    of = {method.name: replies(kind, **options) for method, (kind, options) in zip(methods, given, strict=True)}
    usage = {name: Usage(float(i), i, 10 * i) for i, name in enumerate(of)}
    vanilla, single, short, several = compare_strategies(methods, of, usage, PriceConfig(1, 2))
    assert [row.curve for row in (vanilla, single, several)] == [None, "Single chain", "Self-consistency"]
    assert [row.total_budget for row in (vanilla, single, short, several)] == [None, 150, 50, 150]
    assert [row.score for row in (vanilla, single, short, several)] == [0.5, 0.5, 0, 1]
    assert [row.answered for row in (single, short)] == [1, 0.5]
    assert (several.calls, several.output_tokens, several.total_tokens) == (2.5, (120 + 130) / 2, 125 + 25)
    assert several.expense == pytest.approx(0.1 * 25 + 0.2 * 125)
    assert (several.seconds, several.reused_calls, several.reused_tokens) == (3, 3, 30)
    # Only ours is right on one of the two questions; the plain single chain has no baseline, nor has what has no B.
    assert several.single_difference == 0.5
    assert (several.single_difference_low, several.single_difference_high) == Paired(1, 0, 2).interval()
    assert [row.single_difference for row in (vanilla, single, short)] == [None] * 3
    (table,) = [strategies_table([vanilla, single, short, several], "2 questions")]
    assert list(table.columns)[:5] == ["strategy", "total_budget", "score", "single_difference", "output_tokens"]
    assert table.cells[3][:3] == ["Self-consistency", "150", "100.0 [34.2, 100.0]"]
    assert table.columns["single_difference"].heading == "Δ to single, points"


def test_a_panel_has_a_strategys_curve_and_the_single_chains() -> None:
    """The rows of the table above: self-consistency ran at B = 150 alone."""
    given = [("vanilla", {}), ("single", {"total_budget": 150}), ("single", {"total_budget": 50})]
    given += [("self_consistency", {"total_budget": 150, "temperature": 0.7})]
    methods = [METHODS[kind](**options) for kind, options in given]
    of = {method.name: replies(kind, **options) for method, (kind, options) in zip(methods, given, strict=True)}
    figure = Figure()
    draw(figure, compare_strategies(methods, of, dict.fromkeys(of, Usage()), PriceConfig()), "output_tokens")
    drawn = [{line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in figure.axes[:2]]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["Single chain", "Self-consistency"]
    assert [panel[OWN["label"]] for panel in drawn] == [[[40, 0], [45, 50]], [[125, 100]]]
    assert [panel[SINGLE["label"]] for panel in drawn] == [[], [[45, 50]]]


@pytest.mark.parametrize("spread", [4, 40, 400, 4000])
def test_labels_of_tokens_do_not_overlap(spread: int) -> None:
    """In a panel as wide as one of five in a file."""
    method, of = METHODS["single"](total_budget=150), replies("single", total_budget=150)
    (row,) = compare_strategies([method], {method.name: of}, {method.name: Usage()}, PriceConfig())
    rows = [dataclasses.replace(row, output_tokens=tokens) for tokens in (5, 5 * spread)]
    figure = Figure(figsize=(2.6, 3))
    draw(figure, rows, "output_tokens", 1)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    shown = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    extents = [label.get_window_extent() for label in shown]
    assert len(extents) > 1
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(extents))


def test_at_estimated_budgets_b_is_the_mean_and_estimates_count() -> None:
    """Estimates of 8 and 7 in 30 and 60 tokens, then a chain that is cut there."""
    methods = [METHODS[kind](budget_multiplier=1.0, temperature=0.7) for kind in ("single", "self_consistency")]
    of = {m.name: replies(m.kind, budget_multiplier=1.0, temperature=0.7) for m in methods}
    single, several = compare_strategies(methods, of, dict.fromkeys(of, Usage()), PriceConfig())
    assert (single.total_budget, single.calls, single.answered, single.expense) == (7.5, 2, 0, None)
    assert (single.output_tokens, single.total_tokens) == ((30 + 8 + 60 + 7) / 2, 52.5 + 20)
    assert (single.curve, several.curve) == ("Single chain, B by estimate", "Self-consistency, B by estimate")
    assert (single.single_difference, several.single_difference) == (None, 0)
    assert costs_of([single, several]) == ["output_tokens", "total_tokens"]
    assert anytime_indices(methods, of) == []


def test_open_ended_questions_are_compared_by_bleu() -> None:
    asked = [dataclasses.replace(question, kind="text", gold="one two three four five") for question in QUESTIONS]
    engine = FakeEngine(asked, lambda asked: Completion("[[one two three four five]]", 9, "stop", 10))
    methods = [METHODS["single"](total_budget=20, wait=wait) for wait in (0, 1)]
    of = {method.name: answer_all(method, asked, engine, GREEDY) for method in methods[:1]}
    of |= {methods[1].name: [dataclasses.replace(r, bleu=0.5) for r in of[methods[0].name]]}
    rows = compare_strategies(methods, of, dict.fromkeys(of, Usage()), PriceConfig())
    assert [(row.metric, row.score, row.single_difference) for row in rows] == [("bleu", 1, None), ("bleu", 0.5, -0.5)]
    assert strategies_table(rows, "").columns["single_difference"].heading == "Δ to single, BLEU"
    assert anytime_indices([methods[0], METHODS["single"](total_budget=9)], {**of, "Single chain, B = 9": []}) == []


def test_strategies_are_compared_at_the_same_b() -> None:
    of = METHODS["single"], METHODS["self_consistency"]
    trained = {"adapter": "runs/sft/adapter"}
    methods = [
        of[0](total_budget=64, force_answer=True), of[0](total_budget=64, **trained), of[0](total_budget=64),
        of[1](total_budget=64), of[1](total_budget=64, **trained), of[1](total_budget=32, **trained),
        of[1](budget_multiplier=2.0), of[0](budget_multiplier=2.0, label="mine"), of[0](total_budget=64, label="again"),
        of[1](budget_multiplier=2.0, estimator="e"),
    ]  # fmt: skip
    plain = "Single chain, B = 64"
    assert [baselines(method, methods) for method in methods] == [
        (plain, None), (plain, plain), (None, None),
        (plain, None), (plain, "Self-consistency, B = 64"), (None, None),
        ("mine, B = 2 × estimate", None), (None, None), (plain, None),
        (None, None),
    ]  # fmt: skip


def test_the_table_is_that_of_the_replies_resumed_or_not(run: Path) -> None:
    """Recomputed from the file of replies by arrays of seeds and questions."""
    first = [json.loads((run / f"{name}.json").read_text()) for name in ("strategies", "anytime")]
    by: dict[str, list[dict]] = {}
    for line in map(json.loads, (run / "replies.jsonl").read_text().splitlines()):
        by.setdefault(line["method"], []).append(line)
    table = {row["method"]: row for row in first[0]}
    assert list(table) == list(by)
    right = {name: numpy.array([line["correct"] for line in of]).reshape(2, 12) * 1.0 for name, of in by.items()}
    for name, of in by.items():
        read, written = (
            numpy.array([line[key] + line[f"estimator_{key}"] for line in of]) for key in ("prompt_tokens", "tokens")
        )
        row, made = table[name], [line.get("calls") or [line] for line in of]
        assert row["score"] == pytest.approx(right[name].mean())
        assert row["output_tokens"] == pytest.approx(sum(c["tokens"] for of in made for c in of) / 24)
        assert row["total_tokens"] == pytest.approx((read + written).mean())
        assert row["expense"] == pytest.approx(numpy.dot([0.1, 0.2], [read.mean(), written.mean()]))
        assert row["calls"] == pytest.approx(numpy.mean(list(map(len, made))))
        assert row["answered"] == pytest.approx(numpy.mean([line["value"] is not None for line in of]))
        if (single := f"Single chain{name.removeprefix('Self-consistency')}") in by and single != name:
            assert row["single_difference"] == pytest.approx((right[name] - right[single]).mean())
            assert row["single_difference_low"] <= row["single_difference"] <= row["single_difference_high"]
    # The 24 chains of single at B = 400 all ended by 160 tokens: the others' first samples, and vanilla CoT's answers.
    names = [f"{kind}, B = {b}" for kind in ("Single chain", "Self-consistency") for b in (400, 200)]
    assert [table[name]["reused_calls"] for name in (*names[:3], "Vanilla CoT")] == [0, 24, 24, 24]
    cut = sum(call["finish"] == "length" for line in by[names[3]] for call in line["calls"])  # without ids asked again
    assert 0 < cut == 24 * table[names[3]]["calls"] - table[names[3]]["reused_calls"]
    assert [table[name]["seconds"] > 0 for name in (*names, "Vanilla CoT")] == [True, False, True, True, False]
    (run / "replies.jsonl").unlink()
    strategies_run(run)
    again = [json.loads((run / f"{name}.json").read_text()) for name in ("strategies", "anytime")]
    for table, before in zip(again, first, strict=True):
        assert [row | {"seconds": 0} for row in table] == [row | {"seconds": 0} for row in before]
    seconds = [[row["seconds"] for row in of[0]] for of in (again, first)]
    assert seconds[0] == pytest.approx(seconds[1])


def test_questions_that_a_failed_call_ended_are_counted() -> None:
    """The first sample is right, and the second one fails; vanilla CoT's only sample does not."""
    engine = FakeEngine(QUESTIONS, lambda asked: Completion.failed("refused") if asked.sample else right(30))
    methods = [METHODS["vanilla"](), METHODS["self_consistency"](total_budget=150, temperature=0.7)]
    of = {method.name: answer_all(method, QUESTIONS, engine, GREEDY) for method in methods}
    rows = compare_strategies(methods, of, dict.fromkeys(of, Usage()), PriceConfig())
    assert [(row.failed, row.score, row.output_tokens) for row in rows] == [(0, 1, 30), (2, 1, 30)]


# --- Anytime --------------------------------------------------------------------------------------------------------

BUDGETS = [100, 200, 400, 800]


def test_both_anytime_indices_are_those_by_hand() -> None:
    """¼(0.2/100 + 0.3/100 − 0.1/200 + 0.2/400), and (35 + 100 + 220) / (700 · 0.6) with a best of .2, .5, .5, .6."""
    quality = numpy.array([0.2, 0.5, 0.4, 0.6])
    assert gain_index(quality, BUDGETS) == pytest.approx(0.00125)
    assert area_index(quality, BUDGETS) == pytest.approx(355 / 420)
    both = numpy.array([quality, [0.5] * 4])
    assert gain_index(both, BUDGETS) == pytest.approx([0.00125, 0.5 / 100 / 4])
    assert area_index(both, BUDGETS) == pytest.approx([355 / 420, 1])
    assert numpy.isnan(area_index(numpy.zeros(4), BUDGETS))


def test_answers_count_from_when_they_are_known() -> None:
    """The first is wrong from 30 tokens and right from 120; the second right from 60."""
    several = replies("self_consistency", total_budget=150, temperature=0.7)
    tokens = [0, 29, 30, 60, 119, 120, 150]
    assert quality_at(several, tokens).tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1]]
    seeds = [dataclasses.replace(r, seed=seed) for seed in (1, 2) for r in (several if seed == 1 else several[::-1])]
    assert quality_at(seeds, [60, 120]).tolist() == [[0.5, 1], [0.5, 1]]


def test_indices_are_of_each_run_and_of_the_longest_answers() -> None:
    methods = [METHODS["self_consistency"](total_budget=b, temperature=0.7) for b in (150, 30)]
    of = {m.name: replies("self_consistency", total_budget=m.total_budget, temperature=0.7) for m in methods}
    each, longest = anytime_indices(methods, of)
    # At B = 30 the first chain ends with 8 and the second is cut; by 30 tokens of the longer run the same is known.
    assert (each.source, each.budgets, each.first, each.last) == ("a run at each budget b", 2, 30, 150)
    assert longest.source == "the answer at b tokens, run at B = 150"
    for row in (each, longest):
        assert (row.best, row.gain) == (1, pytest.approx(100 / 120 / 2))
        assert row.area == pytest.approx(0.5)
    assert anytime_indices(methods[:1], of) == []


def test_a_bootstrap_of_rows_draws_whole_questions() -> None:
    """Of a mean it is `bootstrap_mean`'s; of a difference of two equal columns it has no width."""
    shares = numpy.random.default_rng(3).random((40, 1)).repeat(2, axis=1)
    value, low, high = bootstrap_rows(shares, lambda means: means[..., 0])
    assert (value, low, high) == pytest.approx(bootstrap_mean(shares[:, 0]), abs=0.005)
    assert bootstrap_rows(shares, lambda means: means[..., 0] - means[..., 1]) == (0, 0, 0)
    assert bootstrap_rows(shares, lambda means: means[..., 0] * numpy.nan) == (None, None, None)
