"""Estimators: the regression against scikit-learn's own pipeline, the conformal promise, folders, leakage, scores."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tale.analysis.curve import Range
from tale.analysis.estimators.recipe import EstimateRecipe
from tale.analysis.estimators.run import run_estimate
from tale.analysis.estimators.score import HeldOutQuestion, score
from tale.config.recipes import load
from tale.data.question import Question
from tale.data.records import read_records, write_records
from tale.errors import UserError
from tale.estimators import Estimate
from tale.estimators.base import Constant, Oracle
from tale.estimators.regression import LENGTHS, Regression, calibrate, fit, lengths_of
from tale.estimators.saved import EstimatorCard, load_estimator, save_estimator
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import answer_all, check_methods
from tale.evaluation.run import evaluate
from tale.runs.run import finish_run, start_run
from tale.search.recipe import SearchRecipe
from tale.search.solver import search
from tale.search.strategies import grid, shortest_correct
from tale.solvers.estimating import Estimating
from tale.solvers.single import Single
from tale.solvers.tale_ep import TaleEP
from tale.tasks.selection import select_questions
from tests.fake_engine import BRIEFLY, GREEDY, Asked, FakeEngine, questions, right, said, wrong

CARD = EstimatorCard("m", ["a1"], ["b2"])
THINGS = ("pens", "cats", "trains", "apples", "coins", "ships", "books")


def stories(count: int, first: int = 0) -> list[Question]:
    """Questions about different stories, of which the long ones and those about trains need larger budgets."""
    return [
        Question(
            f"s/{i}",
            f"Story {i} of a {THINGS[i % 7]} seller: {'he buys 3 and sells 2, ' * (i % 5)}how many {THINGS[i % 7]}?",
            "7",
        )
        for i in range(first, first + count)
    ]


def star_of(question: Question) -> int:
    """β* as a function of the question: what there is to learn."""
    return (16 + 8 * question.text.count("buys")) * (2 if "trains" in question.text else 1)


# --- Estimates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "multiplier", "budget"),
    [(50.0, 1.0, 50), (50.0, 1.1, 55), (33.2, 1.0, 34), (0.1, 1.0, 1), (None, 2.0, None)],
)
def test_a_multiplier_scales_any_estimate_and_rounds_up(
    value: float | None, multiplier: float, budget: int | None
) -> None:
    assert Estimate(value).budget(multiplier) == budget


def test_the_bounds_a_constant_and_the_search_itself() -> None:
    asked = questions(3)
    assert Constant(9.5).estimate(asked) == [Estimate(9.5)] * 3
    known = {asked[0].question_hash: 20, asked[1].question_hash: None}
    assert Oracle(known).estimate(asked) == [Estimate(20), *[Estimate(None, fallback="no searched budget")] * 2]


# --- Regression -----------------------------------------------------------------------------------------------------


def pipeline(ridge: float) -> Pipeline:
    """The same model, put together by scikit-learn."""
    texts = FunctionTransformer(lambda asked: [q.text for q in asked])
    lengths = FunctionTransformer(lambda asked: numpy.array(list(map(lengths_of, asked))))
    tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=2000)
    features = [
        ("words", Pipeline([("t", texts), ("tfidf", tfidf)])),
        ("lengths", Pipeline([("l", lengths), ("s", StandardScaler())])),
    ]
    return Pipeline(
        [("features", FeatureUnion(features)), ("ridge", Ridge(alpha=ridge, solver="sparse_cg", tol=1e-12))]
    )


@pytest.mark.parametrize("ridge", [0.1, 10.0])
def test_the_regression_is_scikit_learns_own_pipeline(ridge: float) -> None:
    train, new = stories(60), stories(30, first=100)
    stars = list(map(star_of, train))
    theirs = pipeline(ridge).fit(train, numpy.log(stars)).predict(new)
    ours = fit(train, stars, ridge)
    assert ours.predict(new) == pytest.approx(theirs, rel=1e-6)
    assert [e.value for e in ours.estimate(new)] == pytest.approx(numpy.exp(theirs), rel=1e-6)
    assert {e.completion for e in ours.estimate(new)} == {None}  # it costs no tokens


def test_the_ridge_is_chosen_by_cross_validation_over_contexts() -> None:
    train = stories(60)
    stars = list(map(star_of, train))
    features = pipeline(1).named_steps["features"].fit_transform(train).toarray()
    grid_search = GridSearchCV(
        Ridge(), {"alpha": [0.01, 0.1, 1, 10, 100, 1000]}, scoring="neg_mean_absolute_error", cv=GroupKFold(5)
    )
    best = grid_search.fit(features, numpy.log(stars), groups=[q.context_hash for q in train]).best_params_["alpha"]
    assert fit(train, stars).weights == pytest.approx(fit(train, stars, best).weights)
    assert fit(train, stars).weights != pytest.approx(fit(train, stars, 10 * best).weights)


def test_it_learns_what_there_is_to_learn() -> None:
    train, new = stories(140), stories(70, first=500)
    model = fit(train, list(map(star_of, train)))
    errors = [abs(e.value / star_of(q) - 1) for e, q in zip(model.estimate(new), new, strict=True)]
    assert numpy.mean(errors) < 0.1


def test_lengths_by_hand() -> None:
    asked = Question("q", "Ann has 3 cats. How many of 1,200?", "B", "choice", options=("4", "it is 7."))
    text = "Ann has 3 cats. How many of 1,200? 4 it is 7."
    assert lengths_of(asked) == [math.log(1 + len(text)), math.log(1 + 12), 4, 3, 2]
    assert len(LENGTHS) == 5


@pytest.mark.parametrize(
    ("asked", "ridge", "message"),
    [
        (stories(19), 1.0, "^train_records: 19 questions with a β. are too few for a regression; 20 or more"),
        ([Question(str(i), f"{i}x{i}y{i}", "1") for i in range(30)], 1.0, "^train_records: no features"),
        (
            [Question(str(i), f"{i % 4} {'opening ' * 8}{i}", "1") for i in range(20)],
            0.0,
            "needs 5 contexts, there are 4",
        ),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(asked: list[Question], ridge: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(asked, [9] * len(asked), ridge)


# --- Conformal ------------------------------------------------------------------------------------------------------


def flat(intercept: float) -> Regression:
    """Predicts the same log β* for every question."""
    nothing = [0.0] * len(LENGTHS)
    return Regression(["pens"], [1.0], nothing, [1.0] * len(LENGTHS), [0.0, *nothing], intercept)


def test_the_shift_is_the_residual_of_that_rank() -> None:
    """Nine residuals 0.1 … 0.9 around e³: ⌈10 · 0.9⌉ = 9, ⌈10 · 0.8⌉ = 8, ⌈10 · 0.5⌉ = 5."""
    asked, stars = questions(9), [math.exp(3 + (i + 1) / 10) for i in range(9)]
    for coverage, shift in ((0.9, 0.9), (0.8, 0.8), (0.5, 0.5)):
        model = calibrate(flat(3.0), asked, stars, coverage)
        assert model.shift == pytest.approx(shift)
        assert model.estimate(asked[:1])[0].value == pytest.approx(math.exp(3 + shift))


@pytest.mark.parametrize(("coverage", "needed"), [(0.95, "19"), (0.99, "99"), (1.0, "below 1"), (0.0, "above 0")])
def test_a_coverage_that_so_few_cannot_promise_is_refused(coverage: float, needed: str) -> None:
    with pytest.raises(UserError, match=rf"^coverage={coverage}: 9 questions .*needed: .*{needed}"):
        calibrate(flat(3.0), questions(9), [20] * 9, coverage)


def test_nineteen_promise_95_percent() -> None:
    assert calibrate(flat(3.0), questions(19), [20] * 19, 0.95).coverage == 0.95


@pytest.mark.parametrize(("coverage", "calibration"), [(0.8, 24), (0.9, 39)])
def test_the_promised_share_is_covered(coverage: float, calibration: int) -> None:
    """Skewed β* and a poor model, 400 calibrations, 50 new questions each: the promise, and at most 1/(n+1) more."""
    rng = numpy.random.default_rng(4)
    asked, covered = questions(calibration), []
    for _ in range(400):
        stars = numpy.ceil(numpy.exp(rng.gamma(2, 0.6, calibration + 50) + 2.5)).astype(int)
        budget = calibrate(flat(1.0), asked, stars[:calibration].tolist(), coverage).estimate(asked[:1])[0].budget()
        covered.append(numpy.mean(stars[calibration:] <= budget))
    assert coverage - 0.01 < numpy.mean(covered) < coverage + 1 / (calibration + 1) + 0.015  # ties add a little


# --- Folders --------------------------------------------------------------------------------------------------------


def test_what_is_saved_estimates_the_same_numbers_when_loaded(tmp_path: Path) -> None:
    train, new = stories(60), stories(20, first=100)
    model = calibrate(fit(train, list(map(star_of, train)), 1.0), new, list(map(star_of, new)), 0.9)
    for name, estimator in (("r", model), ("c", Constant(24.5))):
        save_estimator(estimator, CARD, tmp_path / name)
        loaded, card = load_estimator(tmp_path / name)
        assert (loaded, card) == (estimator, CARD)
        assert loaded.estimate(new) == estimator.estimate(new)
        assert [file.name for file in (tmp_path / name).iterdir()] == ["estimator.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read .*train an estimator with scripts/estimate.py"),
        ("{", "not a whole JSON object .*train an estimator with"),
        ("[]", "not an estimator"),
        ('{"kind": "pickle", "numbers": {}, "card": {}}', "not an estimator .*pickle"),
        ('{"kind": "constant", "numbers": {"values": 3}, "card": {}}', "numbers: not .*values"),
        ('{"kind": "constant", "numbers": {"value": 3}, "card": {}}', "card: not .*tokenizer"),
        (
            '{"kind": "constant", "numbers": {"value": 3}, "card": {"tokenizer": "", "questions": [], "contexts": []}}',
            "has question hashes of version 1, this code has version 2: .*train the estimator again",
        ),
    ],
)
def test_a_folder_without_a_whole_estimator_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "estimator.json").write_text(content)
    with pytest.raises(UserError, match=rf"^{tmp_path / 'estimator.json'}: {message}"):
        load_estimator(tmp_path)


def test_numbers_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    save_estimator(flat(3.0), CARD, tmp_path)
    content = json.loads((tmp_path / "estimator.json").read_text())
    content["numbers"]["weights"].pop()
    (tmp_path / "estimator.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"not .*inconsistent lengths"):
        load_estimator(tmp_path)


# --- In an evaluation -----------------------------------------------------------------------------------------------


def estimated(**values: object) -> TaleEP:
    return TaleEP(**values)


def test_a_trained_estimator_sets_the_budgets_and_costs_nothing(tmp_path: Path) -> None:
    save_estimator(Constant(20.0), CARD, tmp_path / "constant")
    asked = questions(3)
    method = estimated(estimator=str(tmp_path / "constant"), budget_multiplier=1.5)
    check_methods([method], asked, GREEDY)
    replies = answer_all(method, asked, FakeEngine(asked, lambda a: right(a.budget)), GREEDY)
    assert [(r.budget, r.output_tokens, r.estimator_tokens, r.fallback) for r in replies] == [(30, 30, 0, None)] * 3
    assert method.name == "CoT, constant budget"


@pytest.mark.parametrize(
    "method",
    [TaleEP(budget_line=BRIEFLY), Single(total_budget=64, prompt_budget="estimate", budget_line=BRIEFLY)],
    ids=["tale_ep", "single"],
)
def test_an_estimator_of_another_budget_line_is_refused(method: Estimating, tmp_path: Path) -> None:
    save_estimator(Constant(20.0), replace(CARD, budget_line="Be brief: {budget}."), tmp_path / "constant")
    method.estimator = str(tmp_path / "constant")
    with pytest.raises(UserError, match=r"^methods\[0\].estimator: .*constant was trained .* budget_line=Be"):
        check_methods([method], questions(1), GREEDY)


def test_a_total_budget_takes_any_estimators_estimate(tmp_path: Path) -> None:
    save_estimator(Constant(20.0), replace(CARD, budget_line=BRIEFLY), tmp_path / "constant")
    check_methods([Single(budget_multiplier=2, estimator=str(tmp_path / "constant"))], questions(1), GREEDY)


def test_another_models_estimates_are_used_as_given() -> None:
    asked = questions(2)
    given = [Estimate(12, said("[[12]]", 5, prompt_tokens=40)), Estimate(None, said("?", 2), "unreadable estimate")]
    engine = FakeEngine(asked, lambda a: right(a.budget or 90))
    replies = answer_all(estimated(), asked, engine, GREEDY, given)
    assert [(r.budget, r.tokens, r.estimator_tokens, r.fallback) for r in replies] == [
        (12, 12, 5, None),
        (None, 90, 2, "unreadable estimate"),
    ]
    assert {call.way for call in engine.calls} == {"budget", "vanilla"}  # the reasoner itself was not asked


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (estimated(estimator="nowhere"), r"nowhere/estimator.json: cannot be read"),
        (estimated(estimator="nowhere", estimator_model=object()), "leave out one"),
    ],
)
def test_estimators_that_cannot_work_are_refused(method: TaleEP, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_methods([method], questions(1), GREEDY)


def test_a_recipe_can_name_an_estimator_or_another_model() -> None:
    methods = "methods=[{kind: tale_ep}, {kind: tale_ep, estimator_model: {name_or_path: org/big}, label: big}]"
    recipe = load(EvaluateRecipe, ["recipe=tiny/eval", methods])
    assert recipe.methods[0].estimator_model is None
    assert recipe.methods[1].estimator_model.name_or_path == "org/big"
    with pytest.raises(UserError, match="sourc"):
        load(EvaluateRecipe, ["recipe=tiny/eval", "methods=[{kind: tale_ep, estimator_model: {sourc: org/big}}]"])


# --- Scores ---------------------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    """W* is 20 to 40 and β* 25, for four questions; estimates of 10, 30, 50 and none; the constant says 50."""
    held_out = [HeldOutQuestion(question, Range(20, 40), 25) for question in questions(4)]
    cost = said("", 6, prompt_tokens=30)
    estimates = [Estimate(value, cost) for value in (10, 30, 50, None)]
    constant = [Estimate(50.0)] * 4
    row = score("x", held_out, estimates, constant, multiplier=1.0)
    assert (row.questions, row.without_estimate, row.in_range) == (4, 1, 0.25)
    assert (row.distance_outside, row.distance) == (10, pytest.approx(20 / 3))
    assert row.distance_difference == pytest.approx(20 / 3 - 10)
    assert (row.error, row.covered) == (pytest.approx((15 + 5 + 25) / 3), pytest.approx(2 / 3))
    assert (row.tokens, row.prompt_tokens) == (6, 30)
    own = score("constant", held_out, constant, constant, multiplier=1.0)
    assert (own.distance_outside, own.distance, own.distance_difference, own.verdict) == (10, 10, None, "")
    assert score("constant", held_out, constant, constant, multiplier=0.5).in_range == 1
    inside = score("oracle", held_out, [Estimate(25)] * 4, constant, multiplier=1.0)
    assert (inside.distance_outside, inside.distance, inside.verdict, inside.error) == (None, 0, "nearer", 0)
    blind = score("none", held_out, [Estimate(None)] * 4, constant, multiplier=1.0)
    assert (blind.in_range, blind.distance, blind.covered, blind.distance_difference) == (0, None, None, None)


# --- A whole run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def searched(tmp_path: Path) -> Callable[..., str]:
    """`searched("name", "grid", questions)`: records.jsonl of a search by a fake engine, right from `star_of` up."""

    def make(name: str, strategy: str, asked: list[Question], line: str | None = None, **sampling: int) -> str:
        def reply(a: Asked):
            if a.budget is None:
                return right(256)
            return right(a.budget) if a.budget >= star_of(a.question) else wrong(a.budget)

        given = [f"{key}={value}" for key, value in ({"sampling.max_tokens": 512} | sampling).items()]
        folder = tmp_path / name
        recipe = load(SearchRecipe, ["recipe=tiny/search", f"output={folder}", f"strategy={strategy}", *given])
        start_run(recipe, None, ["records.jsonl"])
        way = partial(grid, fractions=[i / 32 for i in range(1, 17)]) if strategy == "grid" else shortest_correct
        engine = FakeEngine(asked, reply, budget_line=line)
        write_records(folder / "records.jsonl", search(asked, engine, GREEDY, strategy=way, budget_line=line))
        finish_run(folder)
        return str(folder / "records.jsonl")

    return make


def estimate(folder: Path, **lists: list[str] | float) -> EstimateRecipe:
    shown = {key: f"[{','.join(value)}]" if isinstance(value, list) else value for key, value in lists.items()}
    return load(EstimateRecipe, [f"output={folder}", *(f"{key}={value}" for key, value in shown.items())])


def test_a_run_trains_saves_and_scores(searched: Callable[..., str], tmp_path: Path, capsys) -> None:
    held_out = stories(40, first=1000)
    records = {
        "train_records": [searched("train", "grid", stories(120))],
        "grid_records": [searched("grid", "grid", held_out)],
    }
    rows = {row.estimator: row for row in run_estimate(estimate(tmp_path / "out", **records))}
    assert list(rows) == ["constant", "regression", "conformal", "oracle"]
    assert {row.questions for row in rows.values()} == {40}
    assert (rows["oracle"].in_range, rows["oracle"].covered, rows["oracle"].error) == (1, 1, 0)
    assert rows["regression"].verdict == "nearer"  # there is something to learn, see star_of
    assert rows["regression"].distance < rows["constant"].distance
    assert rows["conformal"].covered > 0.75
    saved = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [row["estimator"] for row in saved] == list(rows)
    for name in ("constant", "regression", "conformal"):
        loaded, card = load_estimator(tmp_path / "out" / name)
        assert card.tokenizer == "fake"
        assert card.questions == sorted(question.question_hash for question in stories(120))
        budgets = [found.budget() for found in loaded.estimate(held_out)]
        errors = [abs(budget - star_of(question)) for budget, question in zip(budgets, held_out, strict=True)]
        assert rows[name].error == pytest.approx(numpy.mean(errors))
    assert "40 held-out questions; left out: 0 whose context was trained on, 0 without a β*" in capsys.readouterr().out


def test_a_question_without_a_star_is_seen_but_not_learnt_from(searched, tmp_path: Path, capsys) -> None:
    train = searched("train", "grid", stories(40))
    first, *others = read_records(Path(train))
    write_records(Path(train), [replace(first, target=None, budget=None, reason="no feasible budget"), *others])
    finish_run(Path(train).parent)
    run_estimate(estimate(tmp_path / "out", train_records=[train], ridge=1, coverage=0.5))
    assert "trained on the β* of 39 questions, of 40 that were searched" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "run.json").read_text())["examples"] == {"train": 39, "held_out": 0}
    _, card = load_estimator(tmp_path / "out" / "constant")
    assert first.question.question_hash in card.questions


def test_what_was_trained_on_is_not_scored_on(searched: Callable[..., str], tmp_path: Path, capsys) -> None:
    train = searched("train", "grid", stories(40))
    same = searched("same", "grid", stories(3, first=38))
    with pytest.raises(UserError, match=r"^grid_records: 2 of these questions were trained on \(s/38, s/39 …\)"):
        run_estimate(estimate(tmp_path / "out", train_records=[train], grid_records=[same], ridge=1, coverage=0.5))
    assert not (tmp_path / "out").exists()
    opening = stories(40)[1].text[:62]
    told_again = searched("again", "grid", [Question("t/1", f"{opening}on, and how many?", "7"), *stories(2, first=50)])
    rows = run_estimate(
        estimate(tmp_path / "out", train_records=[train], grid_records=[told_again], ridge=1, coverage=0.5)
    )
    assert {row.questions for row in rows} == {2}
    assert "left out: 1 whose context was trained on" in capsys.readouterr().out


def test_budgets_asked_for_in_other_words_are_not_mixed(searched, tmp_path: Path) -> None:
    ours, brief = searched("train", "grid", stories(40)), searched("brief", "grid", stories(40, first=50), BRIEFLY)
    options = {"ridge": 1, "coverage": 0.5}
    with pytest.raises(
        UserError, match=f"^train_records: budget_line={re.escape(BRIEFLY)} and budget_line=None in one train"
    ):
        run_estimate(estimate(tmp_path / "out", train_records=[ours, brief], **options))
    with pytest.raises(
        UserError, match=f"^grid_records: budget_line={re.escape(BRIEFLY)}, the training budget_line=None"
    ):
        run_estimate(estimate(tmp_path / "out", train_records=[ours], grid_records=[brief], **options))
    grid_of_others = searched("grid", "grid", stories(40, first=50))
    with pytest.raises(
        UserError, match=f"^search_records: budget_line={re.escape(BRIEFLY)}, the training budget_line=None"
    ):
        run_estimate(
            estimate(
                tmp_path / "out", train_records=[ours], grid_records=[grid_of_others], search_records=[brief], **options
            )
        )
    run_estimate(estimate(tmp_path / "out", train_records=[brief], **options))
    learnt = str(tmp_path / "out" / "constant")
    check_methods([replace(estimated(), estimator=learnt, budget_line=BRIEFLY)], stories(1), GREEDY)
    with pytest.raises(
        UserError, match=r"^methods\[0\].estimator: .* with budget_line=Be brief .*, and this has None; set the same"
    ):
        check_methods([replace(estimated(), estimator=learnt)], stories(1), GREEDY)


def test_zero_shot_estimates_are_those_of_an_evaluation(searched, tmp_path: Path) -> None:
    held_out = stories(3, first=1000)
    folder = start_run(
        load(EvaluateRecipe, ["recipe=tiny/eval", f"output={tmp_path / 'e'}", "sampling.max_tokens=512"]),
        outputs=["replies.jsonl"],
    )
    texts = iter(["[[16]]", "[[99]]", "no idea"])
    engine = FakeEngine(
        held_out, lambda a: said(next(texts), 6, prompt_tokens=40) if a.way == "estimate" else right(a.budget or 256)
    )
    replies = answer_all(estimated(), held_out[::-1], engine, GREEDY)  # the fake engine answers the last one first
    (folder / "replies.jsonl").write_text("".join(json.dumps(vars(reply)) + "\n" for reply in replies))
    finish_run(folder)
    given = {
        "train_records": [searched("train", "grid", stories(40))],
        "grid_records": [searched("grid", "grid", held_out)],
        "replies": [str(folder / "replies.jsonl")],
    }
    options = {"ridge": 1, "coverage": 0.5}
    row = run_estimate(estimate(tmp_path / "out", **given, **options))[-1]
    assert (row.estimator, row.without_estimate, row.tokens, row.prompt_tokens) == ("TALE-EP (e)", 1, 6, 40)
    assert row.error == (abs(16 - star_of(held_out[0])) + abs(99 - star_of(held_out[1]))) / 2
    given["grid_records"].append(searched("more", "grid", stories(1, first=2000)))
    with pytest.raises(UserError, match=r"TALE-EP has no estimate of 1 questions \(s/2000 …\)"):
        run_estimate(estimate(tmp_path / "out", **given, **options))


def test_runs_that_cannot_be_scored_are_refused(searched: Callable[..., str], tmp_path: Path) -> None:
    train, halved = searched("train", "grid", stories(40)), searched("halved", "shortest_correct", stories(3, first=90))
    refused = lambda **given: run_estimate(estimate(tmp_path / "out", **given))  # noqa: E731
    with pytest.raises(UserError, match=r"^train_records: none given"):
        refused(train_records=[])
    with pytest.raises(
        UserError, match=r"^grid_records: .* strategy=shortest_correct; an ideal range needs strategy=grid"
    ):
        refused(train_records=[train], grid_records=[halved])
    with pytest.raises(UserError, match=r"^search_records: only with grid"):
        refused(train_records=[train], search_records=[halved])
    foreign = Path(searched("foreign", "grid", stories(3, first=90)))
    foreign.write_text(foreign.read_text().replace('"tokenizer": "fake"', '"tokenizer": "gpt"'))
    with pytest.raises(
        UserError, match=r"^.*foreign/records.jsonl: changed since the run in .*foreign wrote it; restore it"
    ):
        refused(train_records=[str(foreign)])
    finish_run(foreign.parent)
    with pytest.raises(UserError, match=r"^grid_records: tokens are of gpt, the training's of fake"):
        refused(train_records=[train], grid_records=[str(foreign)], ridge=1, coverage=0.5)
    with pytest.raises(UserError, match=r"^train_records: tokens of fake, gpt in one training"):
        refused(train_records=[train, str(foreign)])
    failed = Path(searched("failed", "grid", stories(1, first=95)))
    (record,) = read_records(failed)
    write_records(failed, [replace(record, target=None, reason="no feasible budget")])
    finish_run(failed.parent)
    with pytest.raises(UserError, match=r"^train_records: none of 1 questions has a β"):
        refused(train_records=[str(failed)])
    other = searched("other", "grid", stories(3, first=90), **{"sampling.max_tokens": 99})
    with pytest.raises(UserError, match=r"sampling.max_tokens=512, .* has sampling.max_tokens=99"):
        refused(train_records=[train], grid_records=[other])
    assert not (tmp_path / "out").exists()


# --- With a model ---------------------------------------------------------------------------------------------------


def test_the_same_model_as_estimator_estimates_the_same(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Once as the model itself, once as another one; a trained estimator stands beside it."""
    save_estimator(Constant(5.0), CARD, tmp_path / "constant")
    other = f"{{kind: tale_ep, label: other, estimator_model: {{name_or_path: {tiny_model_folder}, dtype: float32}}}}"
    trained = f"{{kind: tale_ep, estimator: {tmp_path / 'constant'}}}"
    given = [f"model.name_or_path={tiny_model_folder}", f"output={tmp_path / 'run'}", "task.limit=3"]
    recipe = load(EvaluateRecipe, ["recipe=tiny/eval", *given, f"methods=[{{kind: tale_ep}}, {other}, {trained}]"])
    itself, asked, constant = evaluate(recipe)
    assert (itself.output_tokens, itself.accuracy) == (asked.output_tokens, asked.accuracy)
    assert itself.estimator_tokens == asked.estimator_tokens > 0 == constant.estimator_tokens
    lines = [json.loads(line) for line in (tmp_path / "run" / "replies.jsonl").read_text().splitlines()]
    same = [[{**line, "method": ""} for line in lines if line["method"] == name] for name in ("TALE-EP", "other")]
    assert same[0] == same[1]
    assert {line["budget"] for line in lines if line["method"] == "CoT, constant budget"} == {5}
    (journal,) = (tmp_path / "run").glob("estimator-*/journal.jsonl")
    assert len(journal.read_text().splitlines()) == 1 + 3


def test_an_evaluation_refuses_its_estimators_own_questions(tiny_model_folder: Path, tmp_path: Path) -> None:
    given = ["recipe=tiny/eval", f"model.name_or_path={tiny_model_folder}", f"output={tmp_path / 'run'}"]
    recipe = load(EvaluateRecipe, [*given, f"methods=[{{kind: tale_ep, estimator: {tmp_path}}}]"])
    asked, _ = select_questions(recipe.task)
    save_estimator(Constant(5.0), EstimatorCard("m", [asked[2].question_hash], [asked[2].context_hash]), tmp_path)
    with pytest.raises(UserError, match=rf"^task: 1 of these questions were trained on \({asked[2].id} …\)"):
        evaluate(recipe)
    assert not (tmp_path / "run").exists()
