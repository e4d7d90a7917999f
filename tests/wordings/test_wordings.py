"""Wording × budget × model × task: regions and best wordings by hand, and whole runs of a tiny model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tale.config.recipes import load
from tale.data.splits import split_by_context
from tale.errors import UserError
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import Reply, read_replies
from tale.evaluation.run import evaluate
from tale.inference import Completion
from tale.inference.requests import CompletionStream, RequestSource, iter_requests, request_source
from tale.inference.transformers.engine import TransformersEngine
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.runs.run import start_run
from tale.storage.files import write_jsonl_atomic
from tale.wordings import run
from tale.wordings.plot import draw
from tale.wordings.recipe import WordingsRecipe
from tale.wordings.regions import Cell, Region, WordingAnswers, best_of, best_on_held_out, cells, curves, region, slope
from tests.fake_engine import questions

BUDGETS = (10, 40, 160)


def replies(tokens: Sequence[int], right: Sequence[int], budget: int | None = None) -> list[Reply]:
    """To "q/0", "q/1", …, after the tokens and whether right of each."""
    return [
        Reply("w", f"q/{i}", "?", "!", bool(ok), "7", "brackets", "stop", count, 10, budget=budget)
        for i, (count, ok) in enumerate(zip(tokens, right, strict=True))
    ]


def grid(**used: Sequence[int]) -> WordingAnswers:
    """Eight questions, vanilla answers of 200 tokens, half of them right; by wording the tokens under each budget."""
    half = [1, 0] * 4
    answers = {w: {b: replies([n] * 8, half, b) for b, n in zip(BUDGETS, of, strict=True)} for w, of in used.items()}
    return WordingAnswers("m", "t", replies([200] * 8, half), answers)


# --- Regions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "used", "rises", "expected"),
    [
        (50, 50, True, "obeyed"),
        (50, 25, True, "obeyed"),
        (50, 24, True, "overdone"),
        (50, 51, True, "ignored"),  # longer than asked for
        (50, 40, False, "ignored"),  # within the budget, but not because of it
        (50, 5, False, "overdone"),  # it answers at once
        (50, 190, False, "ignored"),  # as without a budget
        (400, 100, True, "obeyed"),  # half of the vanilla answer's 200, which a larger budget leaves alone
        (400, 99, True, "overdone"),
    ],
)
def test_a_region_by_the_stated_rule(budget: int, used: float, rises: bool, expected: Region) -> None:
    assert region(budget, used, 200, rises) == expected


@pytest.mark.parametrize(("power", "factor"), [(0, 7), (1, 1), (2, 1)])
def test_the_slope_is_the_power_of_the_budget(power: int, factor: int) -> None:
    answers = {b: replies([factor * b**power] * 3, [1] * 3) for b in BUDGETS}
    assert slope(answers) == pytest.approx((power, power, power))


def test_each_question_has_a_slope_and_their_mean_an_interval() -> None:
    answers = {b: replies([b, 9], [1, 1]) for b in (10, 40)}
    mean, low, high = slope(answers)
    assert (mean, low, high) == pytest.approx((0.5, 0, 1))


def test_hand_made_curves_are_named_as_they_are_seen() -> None:
    found = grid(at_once=(5, 5, 5), as_asked=(9, 36, 150), deaf=(200, 200, 200), hardly=(30, 32, 34))
    rows = cells(found)
    assert (rows[0].wording, rows[0].budget, rows[0].median, rows[0].region) == ("Vanilla CoT", None, 200, None)
    assert [(r.accuracy, r.used, r.within) for r in rows[1:4]] == [(0.5, 5, 1)] * 3
    assert [(curve.wording, curve.obeyed, curve.ignored, curve.overdone) for curve in curves(found, rows)] == [
        ("at_once", "", "10", "40, 160"),
        ("as_asked", "10, 40, 160", "", ""),
        ("deaf", "", "10, 40, 160", ""),
        ("hardly", "", "10, 40", "160"),
    ]


def test_one_long_answer_moves_the_mean_and_not_the_region() -> None:
    found = grid(as_asked=(9, 36, 150))
    found.answers["as_asked"][10][0] = replies([200], [1], 10)[0]
    cell = cells(found)[1]
    assert (cell.used, cell.median, cell.region) == ((200 + 7 * 9) / 8, 9, "obeyed")


# --- The best wording -----------------------------------------------------------------------------------------------


def test_the_best_is_the_most_often_right_of_the_cheap_ones() -> None:
    """Of equals the cheaper."""
    make = lambda accuracy, used: Cell("m", "t", "w", 10, 8, accuracy, 0, 1, used, 0, 0, used, 0, 1, 0, None)  # noqa: E731
    dear, best, equal, cheap = make(0.9, 101), make(0.5, 60), make(0.5, 80), make(0.4, 5)
    assert best_of([dear, equal, best, cheap], 100) == best
    assert best_of([dear], 100) is None


def test_the_best_is_chosen_on_one_half_and_told_by_the_other() -> None:
    """On q/0 to q/3 "other" is right three times, on the others once; the paper's line once and twice."""
    vanilla = replies([200] * 8, [1, 1, 1, 1, 1, 1, 0, 0])
    paper = {10: replies([8] * 8, [1, 0, 0, 0, 1, 1, 0, 0], 10), 40: replies([30] * 8, [0] * 8, 40)}
    other = {10: replies([9] * 8, [0] * 8, 10), 40: replies([20] * 4 + [40] * 4, [1, 1, 1, 0, 1, 0, 0, 0], 40)}
    best = best_on_held_out(
        WordingAnswers("m", "t", vanilla, {"paper": paper, "other": other}), {f"q/{i}" for i in range(4)}, "paper", 0.5
    )
    assert (best.wording, best.budget, best.chosen_on, best.questions) == ("other", 40, 4, 4)
    assert (best.accuracy, best.used, best.used_ratio) == (0.25, 40, 0.2)
    assert (best.to_vanilla, best.paper_budget, best.to_paper, best.tokens_to_paper) == (-0.25, 10, -0.25, 32)
    assert best.to_paper_low < -0.25 < best.to_paper_high


def test_where_nothing_is_cheap_there_is_no_best() -> None:
    """And no difference of the paper's line to itself."""
    half = {f"q/{i}" for i in range(4)}
    assert best_on_held_out(grid(deaf=(200, 200, 200)), half, "deaf", 0.5) is None
    best = best_on_held_out(grid(paper=(9, 36, 150)), half, "paper", 0.5)
    assert (best.wording, best.budget, best.paper_budget, best.to_paper) == ("paper", 10, 10, None)
    assert best_on_held_out(grid(other=(9, 36, 150)), half, None, 0.5).paper_budget is None


# --- The figure -----------------------------------------------------------------------------------------------------


def test_a_panel_has_each_models_medians_and_the_diagonal() -> None:
    """The line of answers with as many tokens as asked for."""
    rows = cells(grid(as_asked=(9, 36, 150), deaf=(200, 200, 200)))
    panels = Figure().subplots(2, 2)
    draw(list(panels), rows)
    for (accuracy, tokens), used in zip(panels, ([9, 36, 150], [200, 200, 200]), strict=True):
        drawn = [list(map(float, line.get_ydata())) for line in tokens.get_lines()]
        assert used in drawn
        assert list(map(float, BUDGETS)) in drawn
        assert [50.0] * 3 in [list(map(float, line.get_ydata())) for line in accuracy.get_lines()]
        assert (tokens.get_xscale(), tokens.get_yscale()) == ("log", "log")


# --- Whole runs -----------------------------------------------------------------------------------------------------

BEFORE = "In at most {budget} tokens:\n{question}\n{format}\n"


@pytest.fixture
def given(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., WordingsRecipe]:
    monkeypatch.chdir(tmp_path)
    write_jsonl_atomic(Path("q.jsonl"), [{"question": q.text, "answer": "7"} for q in questions(6)])
    model = f"models=[{{name_or_path: {tiny_model_folder}, name: tiny, dtype: float32}}]"
    asking = [model, "tasks=[{name: jsonl, path: q.jsonl}]", "engine.device=cpu", "sampling.max_tokens=6"]
    return lambda *more: load(WordingsRecipe, ["recipe=tiny/wordings", "output=out", *asking, *more])


def test_the_answers_are_an_evaluations_of_the_same_lines(
    given: Callable[..., WordingsRecipe], tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run asks a new model alone."""
    run.run_wordings(given())
    assert Path("out/jsonl.png").stat().st_size > 5000
    methods = [{"kind": "vanilla"}] + [
        {"kind": "fixed_budget", "budget": b, "label": f"{b} {line}", "budget_line": line}
        for line in (None, BEFORE)
        for b in (4, 8)
    ]
    evaluate(
        load(
            EvaluateRecipe,
            ["recipe=tiny/eval", f"model.name_or_path={tiny_model_folder}", "model.name=tiny", "task.name=jsonl",
             "task.path=q.jsonl", "task.limit=null", "engine.device=cpu", "sampling.max_tokens=6",
             f"methods={json.dumps(methods)}", "output=eval"],
        )
    )  # fmt: skip
    expected = [(r.prompt, r.text) for of in read_replies(Path("eval/replies.jsonl")).values() for r in of]
    written = [json.loads(line) for line in Path("out/replies.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["text"]) for row in written] == expected
    assert {(row["model"], row["task"]) for row in written} == {("tiny", "jsonl")}

    asked: list[str] = []
    generate = TransformersEngine.generate

    def counted(engine: TransformersEngine, more: RequestSource) -> CompletionStream:
        requests = [*iter_requests(more)]
        asked.extend(request.prompt for request in requests)
        return generate(engine, request_source(requests))

    before = json.loads(Path("out/cells.json").read_text())
    monkeypatch.setattr(run, "plot", lambda *_: None)
    monkeypatch.setattr(TransformersEngine, "generate", counted)
    beside = f"{{name_or_path: {tiny_model_folder}, name: other, dtype: float32}}"
    run.run_wordings(given(f"models=[{{name_or_path: {tiny_model_folder}, name: tiny, dtype: float32}}, {beside}]"))
    assert sorted(asked) == sorted(prompt for prompt, _ in expected)  # the other model's alone
    after = json.loads(Path("out/cells.json").read_text())
    assert after == before + [cell | {"model": "other"} for cell in before]


def test_a_report_shows_regions_cost_and_best_wording(
    given: Callable[..., WordingsRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best as the other half of the questions tells it."""
    monkeypatch.setattr(run, "plot", lambda *_: None)
    run.run_wordings(given("max_token_ratio=1"))
    (best,) = json.loads(Path("out/best.json").read_text())
    assert best["chosen_on"] == len(split_by_context(questions(6), "train", 0.5, 0, "wordings"))
    assert best["chosen_on"] + best["questions"] == 6

    start_run(given("output=begun"), outputs=["cells.json"])
    page = report(load(ReportRecipe, ["runs=[out, begun]", "output=page"])).read_text(encoding="utf-8")
    assert "jsonl, tiny: 6 questions by wording and budget" in page
    assert "The best wordings, confirmed on the other half of the questions" in page
    assert page.count("No results: the run was not finished") == 1
    assert Path("page/ledger.csv").read_text().splitlines()[1].startswith("out,wordings,30,")  # 6 × (1 + 2 × 2)
    header, *rows = Path("page/wordings-out-1.csv").read_text().splitlines()
    assert header.startswith("wording,slope,slope_low,slope_high,accuracy_None,used_None,accuracy_4,used_4,region_4")
    assert [row.split(",")[0] for row in rows] == ["Vanilla CoT", "the paper's", "before"]


def test_answers_that_could_not_be_had_are_counted(
    given: Callable[..., WordingsRecipe], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = lambda asked, *_: [Completion.failed("no")] * len(asked)  # noqa: E731
    monkeypatch.setattr(run, "complete", lambda _, *rest: refused(*rest))
    run.run_wordings(given())
    assert "30 not answered, counted as wrong, of 0 tokens" in capsys.readouterr().out


def test_a_dry_run_counts_every_call(given: Callable[..., WordingsRecipe], capsys: pytest.CaptureFixture[str]) -> None:
    run.run_wordings(given("dry_run=true"))
    # 6 questions × (1 vanilla + 2 wordings × 2 budgets); at most 6 tokens each; obeyed: 6 + 2 × (4 + 6)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│ all"))
    calls, _, most, obeyed = line.replace("│", "").split()[1:]
    assert (calls, most, obeyed) == ("30", "180", str(6 * (6 + 2 * (4 + 6))))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budgets=[4]", "^budgets: a single one does not show whether answers follow it"),
        ("budgets=[4, 4]", "^budgets: 4, 4: one is given twice"),
        ("wordings=[]", "^wordings: none given"),
        ("wordings=[{label: Vanilla CoT}]", "^wordings: 'Vanilla CoT' is the name of the answers without a budget"),
        ("wordings=[{label: a}, {label: a, budget_line: 'b {budget}'}]", "^wordings: a, a: one is given twice"),
        ("wordings=[{label: a, budget_line: b}]", r"^wordings\[0\]\.budget_line=b: must have \{budget\} in it"),
        ("tasks=[{name: jsonl, path: q.jsonl, limit: 1}]", r"^tasks\[0\]: 1 questions give no two halves"),
        ("tasks=[{name: jsonl, path: open.jsonl}]", r"^tasks\[0\]: jsonl has no right and wrong answers"),
    ],
)
def test_what_cannot_be_compared_is_refused(override: str, message: str, given: Callable[..., WordingsRecipe]) -> None:
    write_jsonl_atomic(Path("open.jsonl"), [{"question": f"{i}?", "reference": "a b"} for i in range(4)])
    with pytest.raises(UserError, match=message):
        run.run_wordings(given(override))
    assert not Path("out").exists()


def test_every_shipped_wording_has_words_of_its_own() -> None:
    recipe = load(WordingsRecipe, ["recipe=wordings_qwen"])
    assert recipe.wordings[0].budget_line is None
    lines = {w.budget_line for w in recipe.wordings}
    assert len(lines) == len(recipe.wordings)
    assert sum("{question}" in (line or "") for line in lines) == 6
    assert math.log(recipe.budgets[-1] / recipe.budgets[0]) > 3
