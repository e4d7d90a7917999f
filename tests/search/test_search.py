"""The halving search with a fake engine: tokens and correctness are functions of question and budget."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tale.data.records import Confirmation, Record, read_records, write_records
from tale.inference import Completion
from tale.inference.journal import JournaledEngine
from tale.search.confirm import confirm_targets
from tale.search.run import summary
from tale.search.solver import search
from tests.fake_engine import BRIEFLY, GREEDY, Asked, FakeEngine, questions, right, said, wrong

Curve = dict[int | None, Completion]


def searched(
    *curves: Curve, samples: int = 1, search_wrong: bool = False, full_answers: bool = True
) -> tuple[list[Record], list[Asked]]:
    """One question a curve, {budget: completion}, None for vanilla; the records, and what was asked."""
    asked = questions(len(curves))
    curve_of = dict(zip((q.id for q in asked), curves, strict=True))
    engine = FakeEngine(asked, lambda a: curve_of[a.question.id][a.budget])
    found = search(asked, engine, GREEDY, samples=samples, search_wrong=search_wrong, full_answers=full_answers)
    return [*found], engine.calls


def one(curve: Curve) -> Record:
    ((record,), _) = searched(curve)
    return record


def path(record: Record) -> list[tuple[int | None, int, bool]]:
    """Each attempt's budget, tokens and verdict."""
    return [(a.budget, a.best.tokens, a.feasible) for a in record.attempts]


def test_a_question_without_an_answer_has_a_reason_not_a_target() -> None:
    refused = Completion.failed("status 400 (no)")
    records, calls = searched({None: refused}, {None: right(100), 50: right(40), 25: refused}, {None: wrong(9)})
    assert [(r.target, r.budget, r.reason, r.error) for r in records] == [
        (None, None, "not answered", "status 400 (no)"),
        (None, None, "not answered", "status 400 (no)"),
        (None, None, "vanilla answer wrong", None),
    ]
    assert [a.budget for a in calls if a.question.id == "q/1"] == [None, 50, 25]
    assert summary(records).splitlines()[1:] == [
        "2 without: not answered",
        "1 without: vanilla answer wrong",
        "the first not answered, q/0: status 400 (no)",
    ]


# --- The loop of §2 -------------------------------------------------------------------------------------------------


def test_the_budget_is_halved_from_the_vanilla_answers_tokens() -> None:
    """The example of Fig 1, 258 tokens for vanilla CoT: β is 129, 64, 32, 16, and not half of the last tokens."""
    record = one({None: right(258), 129: right(120), 64: right(86), 32: right(57), 16: wrong(30)})
    assert path(record) == [(129, 120, True), (64, 86, True), (32, 57, True), (16, 30, False)]
    assert (record.budget, record.target, record.reason) == (32, record.attempts[2].best, None)
    assert record.vanilla.budget is None
    assert (record.vanilla.best.tokens, record.vanilla.best.value) == (258, "7")


def test_the_last_right_budget_is_returned_not_the_failed_one() -> None:
    """The second slip of the printed Algorithm 1."""
    record = one({None: right(100), 50: right(40), 25: wrong(10)})
    assert (record.budget, record.target.tokens) == (50, 40)


def test_no_budget_is_asked_twice() -> None:
    """The first slip of the printed Algorithm 1."""
    _, calls = searched({None: right(100), 50: right(40), 25: right(20), 12: wrong(9)})
    assert [a.budget for a in calls] == [None, 50, 25, 12]


def test_token_elasticity_ends_the_search() -> None:
    """Fig 1's tokens: 258 for vanilla CoT, 86 under a fitting budget, 157, though right, under one too small."""
    record = one({None: right(258), 129: right(110), 64: right(95), 32: right(86), 16: right(157)})
    assert path(record)[-1] == (16, 157, False)
    assert (record.budget, record.target.tokens) == (32, 86)


@pytest.mark.parametrize(("tokens", "feasible"), [(99, True), (100, False), (101, False)])
def test_feasible_is_strictly_cheaper_than_the_answer_before(tokens: int, feasible: bool) -> None:
    record = one({None: right(100), 50: right(tokens), 25: wrong(1)})
    assert record.attempts[0].feasible is feasible
    assert record.budget == (50 if feasible else None)


def test_cheaper_is_than_the_last_feasible_answer_not_vanilla() -> None:
    record = one({None: right(100), 50: right(40), 25: right(41)})
    assert path(record) == [(50, 40, True), (25, 41, False)]


def test_an_answer_over_its_budget_is_feasible_if_cheaper() -> None:
    """§4: a budget is a request; T(x, β) is what counts."""
    assert one({None: right(100), 50: right(90), 25: wrong(1)}).budget == 50


@pytest.mark.parametrize(
    ("vanilla", "reason"),
    [
        (wrong(90), "vanilla answer wrong"),
        (said("no number at all", 90), "vanilla answer wrong"),
        (said("Answer: [[7]] and on and on", 512, "length"), "vanilla answer cut off"),
        (said("on and on", 512, "length"), "vanilla answer cut off"),
    ],
)
def test_a_question_with_a_wrong_vanilla_answer_is_not_searched(vanilla: Completion, reason: str) -> None:
    ((record,), calls) = searched({None: vanilla})
    assert [a.way for a in calls] == ["vanilla"]
    assert (record.attempts, record.budget, record.target, record.reason) == ((), None, None, reason)


@pytest.mark.parametrize(
    ("vanilla", "reason"),
    [
        (wrong(90), "vanilla answer wrong, no feasible budget"),
        (said("on and on", 90, "length"), "vanilla answer cut off, no feasible budget"),
    ],
)
def test_a_wrong_vanilla_answer_still_bounds_the_cost(vanilla: Completion, reason: str) -> None:
    """45 and 22 are answered right and ever cheaper, 11 costs as much as 22; 90 tokens under 45 save nothing."""
    saved = {None: vanilla, 45: right(40), 22: right(20), 11: right(20)}
    ((found, none), _) = searched(saved, {None: vanilla, 45: right(90)}, search_wrong=True)
    assert path(found) == [(45, 40, True), (22, 20, True), (11, 20, False)]
    assert (found.budget, found.reason, found.vanilla_wrong) == (22, None, True)
    assert (path(none), none.target, none.reason, none.vanilla_wrong) == ([(45, 90, False)], None, reason, True)


def test_a_filtered_vanilla_answer_is_never_searched() -> None:
    ((record,), calls) = searched({None: said("", 9, "content_filter")}, search_wrong=True)
    assert (len(calls), record.reason, record.vanilla_wrong) == (1, "vanilla answer filtered", False)


def test_searching_wrong_ones_changes_no_other_question() -> None:
    """Those that vanilla answers right are searched the same with and without the wrong ones."""
    curves = [{25: wrong(9), 256: wrong(9)} | curve for curve in MIXED]
    (off, _), (on, _) = searched(*curves), searched(*curves, search_wrong=True)
    assert [b if b.vanilla_wrong else a for a, b in zip(off, on, strict=True)] == on
    assert [record.vanilla_wrong for record in on] == [not r.attempts for r in off]


def test_a_cut_off_answer_is_never_feasible_and_never_a_target() -> None:
    record = one({None: right(500), 250: right(400, "length")})
    assert record.attempts[0].best.correct
    assert path(record) == [(250, 400, False)]
    assert (record.target, record.reason) == (None, "no feasible budget")


def test_without_a_feasible_budget_there_is_no_target() -> None:
    record = one({None: right(80), 40: wrong(20)})
    assert (record.budget, record.target, record.reason) == (None, None, "no feasible budget")


def test_a_budget_is_never_zero() -> None:
    ((record, shortest), calls) = searched({None: right(3), 1: right(2)}, {None: right(1)})
    assert path(record) == [(1, 2, True)]
    assert (record.budget, shortest.attempts, shortest.reason) == (1, (), "no feasible budget")
    assert [a.budget for a in calls if a.question.id == "q/1"] == [None]


def test_questions_have_their_own_pace_and_come_in_order() -> None:
    records, calls = searched(
        {None: right(100), 50: wrong(5)},
        {None: right(8), 4: right(7), 2: right(6), 1: right(5)},
        {None: wrong(1)},
    )
    assert [r.question.id for r in records] == ["q/0", "q/1", "q/2"]
    assert [r.budget for r in records] == [None, 1, None]
    assert sorted((a.question.id, a.budget or 0) for a in calls) == [
        ("q/0", 0), ("q/0", 50), ("q/1", 0), ("q/1", 1), ("q/1", 2), ("q/1", 4), ("q/2", 0),
    ]  # fmt: skip


def test_budgets_and_record_have_the_recipes_words() -> None:
    (asked,) = questions(1)
    engine = FakeEngine([asked], lambda a: right(a.budget or 9), budget_line=BRIEFLY)
    (record,) = search([asked], engine, GREEDY, budget_line=BRIEFLY)
    assert [a.budget for a in engine.calls] == [None, 4, 2, 1]
    assert (record.budget, record.budget_line) == (1, BRIEFLY)
    assert one({None: right(9), 4: wrong(9)}).budget_line is None


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Any answer at all under any budget."""
    tokens = st.integers(1, 512)
    vanilla = draw(tokens)
    under = {
        b: draw(st.tuples(tokens, st.sampled_from([right, wrong]))) for b in range(1, vanilla) if b in halves(vanilla)
    }
    return {None: right(vanilla)} | {b: make(n) for b, (n, make) in under.items()}


def halves(tokens: int) -> set[int]:
    return {tokens >> i for i in range(1, tokens.bit_length())}


@settings(deadline=None)
@given(curves())
def test_whatever_the_answers(curve: Curve) -> None:
    ((record,), calls) = searched(curve)
    vanilla = curve[None].tokens
    assert len(calls) <= math.ceil(math.log2(vanilla)) + 1
    budgets = [a.budget for a in record.attempts]
    assert budgets == [vanilla >> i for i in range(1, len(budgets) + 1)]
    feasible = [a for a in record.attempts if a.feasible]
    assert record.attempts[: len(feasible)] == tuple(feasible)
    assert len(record.attempts) - len(feasible) <= 1
    falling = [vanilla, *(a.best.tokens for a in feasible)]
    assert all(later < earlier for earlier, later in pairwise(falling))
    if feasible:
        assert (record.budget, record.target) == (feasible[-1].budget, feasible[-1].best)
        assert record.target.correct
    else:
        assert (record.budget, record.target) == (None, None)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("window", [1, 2, 3, 64])
def test_neither_window_nor_pace_of_requests_changes_a_record(window: int, eager: bool) -> None:
    expected, calls = searched(*MIXED * 2, samples=2)
    asked = [record.question for record in expected]
    curve_of = dict(zip((q.id for q in asked), MIXED * 2, strict=True))
    engine = FakeEngine(asked, lambda a: curve_of[a.question.id][a.budget], eager=eager)
    assert [*search(asked, engine, GREEDY, window, samples=2, full_answers=True)] == expected
    assert sorted(map(repr, engine.calls)) == sorted(map(repr, calls))


def test_no_more_questions_are_in_flight_than_the_window() -> None:
    asked = questions(9)
    engine = FakeEngine(asked, lambda a: right(9 if a.budget is None else 20), eager=True)
    told: list[bool] = []

    def answered(done: int) -> None:
        told.append(len({a.question.id for a in engine.calls}) <= done + 3)

    assert len(list(search(asked, engine, GREEDY, 3, answered))) == 9
    assert told == [True] * 18


def test_a_done_question_counts_before_an_earlier_one_ends() -> None:
    """The first of three needs a second answer; the others are wrong at once, and answered first."""
    asked, told = questions(3), []
    engine = FakeEngine(asked, lambda a: right(9) if a.question.id == "q/0" and a.budget is None else wrong(9))
    next(search(asked, engine, GREEDY, on_completion=told.append))
    assert told == [1, 2, 2, 3]


# --- Samples --------------------------------------------------------------------------------------------------------


def test_of_several_samples_the_shortest_right_one_counts() -> None:
    script = {
        (None, 0): wrong(10), (None, 1): right(90), (None, 2): right(100),
        (45, 0): right(60), (45, 1): wrong(5), (45, 2): right(50),
        (22, 0): wrong(3), (22, 1): right(51), (22, 2): right(4, "length"),
    }  # fmt: skip
    asked = questions(1)
    engine = FakeEngine(asked, lambda a: script[a.budget, a.sample])
    (record,) = search(asked, engine, GREEDY, samples=3, full_answers=True)
    assert record.vanilla.best.tokens == 90
    assert path(record) == [(45, 50, True), (22, 51, False)]
    assert [a.tokens for a in record.attempts[0].answers] == [60, 5, 50]
    assert (record.budget, record.target.tokens) == (45, 50)
    assert sorted(a.sample for a in engine.calls) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_samples_do_not_mix_between_questions() -> None:
    asked = [replace(question, gold=gold) for question, gold in zip(questions(3), "123", strict=True)]
    engine = FakeEngine(asked, lambda a: said(f"[[{a.question.gold}]]", 10 * int(a.question.gold) + a.sample))
    records = [*search(asked, engine, GREEDY, samples=2)]
    assert [[a.tokens for a in r.vanilla.answers] for r in records] == [[10, 11], [20, 21], [30, 31]]
    assert all(answer.correct for r in records for answer in r.vanilla.answers)


# --- Targets asked again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies_after", [5, 11])
def test_targets_are_asked_again_with_new_draws_and_resume(dies_after: int, tmp_path: Path) -> None:
    """Two targets of three: 4 answers each at a temperature, numbered from 1, as the search has drawn number 0."""
    script = {None: right(9), 4: right(3), 2: wrong(2)}
    asked = questions(3)

    def reply(a: Asked) -> Completion:
        if a.sample:
            return right(5) if a.question.id == "q/0" or a.sample == 3 else wrong(5)
        return wrong(3) if a.question.id == "q/1" and a.budget else script[a.budget]

    def run(engine: FakeEngine) -> list[Record]:
        kept = JournaledEngine(engine, tmp_path / "journal.jsonl", {"name": "m"})
        return [*confirm_targets(search(asked, kept, GREEDY), kept, replace(GREEDY, temperature=0.7), 4, first=1)]

    engines = FakeEngine(asked, reply, dies_after=dies_after), FakeEngine(asked, reply)
    with pytest.raises(KeyboardInterrupt):
        run(engines[0])
    records = run(engines[1])
    assert [record.again for record in records] == [Confirmation(4, 4, 0.7), None, Confirmation(1, 4, 0.7)]
    assert [record.again.lucky for record in records if record.again] == [False, True]
    confirmations = [a for engine in engines for a in engine.calls if a.sample]
    assert sorted((a.question.id, a.budget, a.sample) for a in confirmations) == [
        (name, 4, sample) for name in ("q/0", "q/2") for sample in (1, 2, 3, 4)
    ]
    assert sum(len(engine.calls) for engine in engines) == 8 + 8
    assert summary(records).splitlines()[2:] == [
        "asked again, vanilla CoT right: 1 of 2 targets lucky",
        "asked again, all: 1 of 2 targets lucky",
        "1 without: no feasible budget",
    ]


# --- On disk --------------------------------------------------------------------------------------------------------

MIXED: tuple[Curve, ...] = (
    {None: right(258), 129: right(120), 64: right(86), 32: wrong(9)},
    {None: wrong(50)},
    {None: right(80), 40: right(80)},
    {None: right(512, "length")},
    {None: right(40), 20: right(10), 10: right(9), 5: right(8), 2: right(7), 1: right(6)},
)


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    records, _ = searched(*MIXED)
    write_records(tmp_path / "records.jsonl", records)
    assert read_records(tmp_path / "records.jsonl") == records


@pytest.mark.parametrize("dies_after", [0, 1, 4, 6, 9])
def test_a_killed_search_resumes_to_the_same_records(dies_after: int, tmp_path: Path) -> None:
    records, calls = searched(*MIXED, full_answers=False)
    asked = [r.question for r in records]
    curve_of = dict(zip((q.id for q in asked), MIXED, strict=True))
    reply = lambda a: curve_of[a.question.id][a.budget]  # noqa: E731
    first = FakeEngine(asked, reply, dies_after=dies_after)
    second = FakeEngine(asked, reply)
    with pytest.raises(KeyboardInterrupt):
        [*search(asked, JournaledEngine(first, tmp_path / "journal.jsonl", {"name": "m"}), GREEDY)]
    resumed = [*search(asked, JournaledEngine(second, tmp_path / "journal.jsonl", {"name": "m"}), GREEDY)]
    assert resumed == records
    assert len(first.calls) == dies_after
    assert sorted(map(repr, first.calls + second.calls)) == sorted(map(repr, calls))


def test_the_summary_counts_targets_tokens_and_reasons() -> None:
    """Targets: 258 → 86 and 40 → 6. Means 149 and 46, so 1 − 46/149 = 69.1 % are saved."""
    records, _ = searched(*MIXED)
    assert summary(records).splitlines() == [
        "5 questions, 2 with a target",
        "their mean tokens: vanilla 149.0, target 46.0, 69.1% saved",
        "1 without: no feasible budget",
        "1 without: vanilla answer cut off",
        "1 without: vanilla answer wrong",
    ]


def test_targets_after_a_wrong_vanilla_answer_are_summed_apart() -> None:
    """100 → 30 after a right answer, 200 → 10 after a wrong one: means 150 and 20."""
    curves = {None: right(100), 50: right(30), 25: wrong(9)}, {None: wrong(200), 100: right(10), 50: wrong(9)}
    assert summary(searched(*curves, search_wrong=True)[0]).splitlines() == [
        "2 questions, 2 with a target",
        "their mean tokens: vanilla 150.0, target 20.0, 86.7% saved",
        "of these where vanilla CoT is wrong: 1, mean tokens: vanilla 200.0, target 10.0, 95.0% saved",
    ]


def test_a_summary_without_any_target_has_no_means() -> None:
    records, _ = searched({None: wrong(5)}, {None: wrong(6)})
    assert summary(records).splitlines() == ["2 questions, 0 with a target", "2 without: vanilla answer wrong"]
