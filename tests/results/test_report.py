"""The report of small written-out runs: every figure on the page is one worked out here by hand."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from tale.analysis.elasticity import ModelSummary, QuestionSummary
from tale.analysis.recipe import AnalyseRecipe
from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.data.records import Answer, Attempt, Confirmation, read_records, write_records
from tale.errors import UserError
from tale.evaluation.plot import pareto_front
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.summary import Row
from tale.inference import Completion
from tale.output.formats import duration
from tale.output.tables import Column, Interval, table_of, write_rows
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.runs.run import finish_run, start_run
from tale.runs.stages import Stage
from tale.search.recipe import SearchRecipe
from tale.storage.folder import hash_path
from tests import ROOT
from tests.run_factories import analysis_run, estimate_run, evaluation_run, journal, search_run, steps, train_run
from tests.scripts import run_script

RUNS = ("runs/search", "runs/sft", "runs/eval")
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """The page taken apart: its tables by caption, its text, and what it would load."""

    def __init__(self, file: Path):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.text, self.links, self.ids, self.unnamed = "", [], [], 0
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))
        assert self.open == []  # every element is closed

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href") and value]
        self.ids += [given["id"]] if "id" in given else []
        self.unnamed += given.get("role") == "img" and not given.get("aria-label")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag == "caption":
            self.caption, self.rows = "", []

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text += data
        if self.open and self.open[-1] == "caption":
            self.caption += data
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


def page(*folders: str, **keys: object) -> Page:
    """The report's page about these runs."""
    given = [f"runs=[{','.join(folders)}]", "output=runs/report", *(f"{key}={value}" for key, value in keys.items())]
    return Page(report(load(ReportRecipe, given)))


def noted(file: Path) -> None:
    """Have its run take the file for its own, as it is now."""
    run = json.loads((file.parent / "run.json").read_text())
    (file.parent / "run.json").write_text(json.dumps(run | {"recipe": hash_path(file.parent / "recipe.yaml")}))
    finish_run(file.parent)


def rows(file: str) -> list[dict[str, str]]:
    with (Path("runs/report") / file).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def drawn() -> None:
    """For a test that looks at figures."""


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not rendered, which takes most of a report's seconds."""

    def save(_figure: Canvas, file: io.StringIO | io.BytesIO, format: str, **_: object) -> None:
        file.write("<svg></svg>" if format == "svg" else b"")

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Canvas, "savefig", save)


@pytest.fixture
def runs() -> tuple[str, ...]:
    search_run()
    train_run()
    evaluation_run()
    return RUNS


# --- Numbers --------------------------------------------------------------------------------------------------------


def test_the_table_has_accuracy_differences_tokens_and_expense(runs: tuple[str, ...]) -> None:
    """Wilson's interval of 2 of 4 is 15.0 to 85.0 %; a token read costs 0.1, one generated 0.2 of 10⁻⁵ $."""
    heading, vanilla, estimated, sft, long = page(*runs).tables["4 questions; in brackets 95 % intervals"]
    assert heading[:3] == ["method", "accuracy, %", "Δ to vanilla, points"]
    assert vanilla[:3] == ["Vanilla CoT", "50.0 [15.0, 85.0]", ""]
    assert (sft[0], sft[1][:4], sft[2][:4]) == ("TALE-PT-SFT", "50.0", "+0.0")
    assert sft[3][:4] == "40.0"
    # One question won and one lost: the exact test's p is 1; four questions cannot show that it is not 3 points worse.
    assert sft[4:] == ["−60.0 [−60.0, −60.0]", "0.40", "17.00", "1", "3.0", "not enough questions"]
    assert (long[1][:3], long[2][:5], long[4], long[5]) == (
        "0.0",
        "−50.0",
        "+10.0 [+10.0, +10.0]".replace("+", ""),
        "1.10",
    )
    assert (vanilla[6], estimated[1][:4], estimated[3][:4]) == ("29.00", "75.0", "57.5")
    (row,) = [r for r in rows("evaluation-runs-eval.csv") if r["method"] == "TALE-EP"]
    assert float(row["expense"]) == pytest.approx((375 + 280 + 2 * (190 + 40)) / 4 / 10)
    assert (float(row["output_tokens"]), float(row["accuracy"])) == (57.5, 0.75)


def test_how_the_answers_came_about_counts_the_estimator_in(runs: tuple[str, ...]) -> None:
    heading, vanilla, estimated, *_ = page(*runs).tables["How the answers came about"]
    assert heading[1:3] == ["estimator's tokens", "asked without a budget"]
    assert (vanilla[1], estimated[1], estimated[2]) == ("", "10.0", "1")
    assert (vanilla[-1], estimated[-1]) == ("1", f"{(3 * 0.3 + 1 + 4 * 0.1) / 4:.3g}")


def test_the_papers_figures_are_under_the_same_benchmarks(runs: tuple[str, ...]) -> None:
    """Of the direct method there are only the paper's."""
    table = page(*runs).tables["Accuracy, output tokens and expense"]
    assert table[0][1:] == ["Directly answering", "Vanilla CoT", "TALE-EP", "TALE-PT-SFT", "TALE-PT-DPO"]
    assert [row[0] for row in table[2:]] == [
        "gsm8k: tiny-llama, 4 questions (runs/eval)",
        "gsm8k: the paper, GPT-4o-mini (Table 3)",
        "gsm8k: the paper, Llama-3.1-8B-Instruct (Tables 5 and 6)",
    ]
    assert table[2][4:] == [
        "50.00",
        "100.00",
        "29.00",
        "75.00",
        "57.50",
        table[2][9],
        "50.00",
        "40.00",
        "17.00",
        "",
        "",
    ]
    assert table[3][1:10] == ["28.29", "12.46", "39.43", "81.35", "318.10", "541.09", "84.46", "77.26", "279.84"]
    assert table[4][1:] == [
        *("21.00", "38.54", "", "77.56", "241.51", "", "71.82", "112.21", ""),
        *("78.57", "139.63", "", "74.11", "149.93"),
    ]


def test_several_benchmarks_are_side_by_side(runs: tuple[str, ...]) -> None:
    """A method's rows together. Every answer is "… says so. [[7]]", of fewer than 4 words that come again."""
    title = "Methods by benchmark; in brackets 95 % intervals"
    assert title not in page(*runs).tables
    evaluation_run("runs/zero", "task.name=gsm8k_zero")
    table = page(*runs, "runs/zero").tables[title]
    cells = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    assert [(c["method"], c["benchmark"]) for c in cells[2:6]] == [
        ("TALE-EP", "gsm8k"),
        ("TALE-EP", "gsm8k_zero"),
        ("TALE-PT-SFT", "gsm8k"),
        ("TALE-PT-SFT", "gsm8k_zero"),
    ]
    sft = cells[5]
    assert (sft["accuracy, %"][:4], sft["× vanilla"], sft["repeated 4-grams, %"]) == ("50.0", "0.40", "0.0")
    assert not {"model", "run"} & set(table[0])
    evaluation_run("runs/again")
    assert page(*runs, "runs/zero", "runs/again").tables[title][1][:3] == ["Vanilla CoT", "gsm8k", "runs/eval"]


def test_trainings_that_differ_in_seed_alone_are_one_method(runs: tuple[str, ...]) -> None:
    """Right 2 and 0 of 4 at 40 and 110 tokens: 25 % with an SD of 0.5/√2, 75 tokens with one of 70/√2."""
    train_run("runs/other", "runs/search/records.jsonl", "train.seed=1")
    page(*runs, "runs/other")
    (joint,) = rows("seeds-runs-eval.csv")
    assert joint["method"] == "2 trainings: TALE-PT-SFT, long"
    names = ("accuracy", "accuracy_spread", "accuracy_difference", "output_tokens", "output_tokens_spread")
    assert [float(joint[name]) for name in names] == pytest.approx([0.25, 0.5**1.5, -0.25, 75, 70 / 2**0.5])
    assert float(joint["tokens_difference"]) == -25
    train_run("runs/other", "runs/search/records.jsonl", "train.seed=1", "optimizer.lr=1e-4")
    assert not any(caption.startswith("Trainings") for caption in page(*runs, "runs/other").tables)


def test_without_its_training_a_method_has_no_papers_column(runs: tuple[str, ...]) -> None:
    evaluation_run("runs/own", "task.name=problems")
    table = page("runs/own").tables["Accuracy, output tokens and expense"]
    assert table[0][1:] == ["Vanilla CoT", "TALE-EP"]
    assert len(table) == 3


def test_the_ledger_counts_calls_once_and_estimators_apart(runs: tuple[str, ...]) -> None:
    table = page(*runs, price_per_hour=0.9).tables["Cost ledger"]
    assert table[1:] == [
        ["runs/search", "search", "3", "300", "400", "", "4 s", "$0.0011"],
        ["runs/sft", "training, SFT", "", "", "", "240", "12.0 s", "$0.0030"],
        ["runs/eval", "evaluation", "19", "1,645", "1,130", "", "14.9 s", "$0.0039"],
        ["runs/eval", "Vanilla CoT", "4", "360", "400", "", "4 s", "$0.0012"],
        ["runs/eval", "TALE-EP", "4", "375", "190", "", "1.9 s", "$0.0008"],
        ["runs/eval", "TALE-EP: its estimator", "4", "280", "40", "", "0.4 s", "$0.0004"],
        ["runs/eval", "TALE-PT-SFT", "4", "360", "160", "", "1.6 s", "$0.0007"],
        ["runs/eval", "long", "4", "360", "440", "", "8 s", "$0.0012"],
    ]
    assert [float(row["dollars"]) for row in rows("ledger.csv")][:2] == pytest.approx([0.0011, 0.003])


def test_the_ledger_counts_the_calls_of_an_estimators_own_model(runs: tuple[str, ...]) -> None:
    estimator = Path(runs[2], "estimator-1a2b3c4d")
    estimator.mkdir()
    journal(estimator / "journal.jsonl", [(b"e" * 12, Completion("[[7]]", 5, "stop", 55), 0.1)])
    table = page(*runs, price_per_hour=0.9).tables["Cost ledger"]
    assert table[3][:6] == ["runs/eval", "evaluation", "20", "1,700", "1,135", ""]


def test_the_ledger_counts_the_rollouts_of_grpo() -> None:
    run = train_run("runs/grpo", "", "objective=grpo", "data.records=[]")
    steps(run, {3: (0.5, 60)}, 1018, 3, "rollouts", rollout_prompt_tokens=700, rollout_completion_tokens=90)
    ledger = page("runs/grpo").tables["Cost ledger"]
    assert ledger[1] == ["runs/grpo", "training, GRPO", "700", "90", "300", "12.0 s"]


def test_training_pays_off_after_its_cost_over_a_querys_saving(runs: tuple[str, ...]) -> None:
    """(300 + 400 + 240) / 60 tokens = 15.7, (4 + 12) / 0.6 s = 26.7, ($0.0011 + 0.0030) / $0.00012 = 34.2 queries."""
    train_run("runs/other")
    seen = page(*runs, "runs/other", price_per_hour=0.9)
    took = {
        "tokens": ["700", "240", "60.0 [60.0, 60.0]", "16 [16, 16]"],
        "seconds": ["4 s", "12.0 s", "0.600 s [0.600 s, 0.600 s]", "27 [27, 27]"],
        "dollars": ["$0.0011", "$0.0030", "$0.0001200 [$0.0001200, $0.0001200]", "35 [35, 35]"],
    }
    for unit, cells in took.items():
        caption = f"When search and training have paid for themselves, in {unit}; in brackets 95 % intervals"
        _, sft, long = seen.tables[caption]
        assert sft == ["runs/eval", "TALE-PT-SFT", *cells]
        assert (long[1], long[-1]) == ("long", "never [never, never]")
    (row, _) = rows("break-even-seconds.csv")
    assert (float(row["search"]), float(row["training"]), float(row["queries"])) == (4, 12, 27)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("runs/sft", "runs/eval"), "its training, or the search that it was trained on, is not among the runs"),
        (("runs/search", "runs/eval"), "its training, or the search that it was trained on, is not among the runs"),
        ((*RUNS[1:], "runs/search"), "dollars, because training has no price; price_per_hour=… gives one"),
    ],
)
def test_where_what_it_took_is_not_known_the_page_says_why(
    runs: tuple[str, ...], given: tuple[str, ...], reason: str
) -> None:
    assert f"TALE-PT-SFT of runs/eval: {reason}" in page(*given).text


def test_a_training_with_a_new_adapter_is_not_the_evaluated(runs: tuple[str, ...]) -> None:
    evaluation, training = (json.loads(Path(run, "run.json").read_text()) for run in (runs[2], runs[1]))
    made = training["outputs"]["adapter"]
    for then, counted in ((made, True), ("0123456789abcdef", False)):
        read = {"runs/sft/adapter": then}
        Path(runs[2], "run.json").write_text(json.dumps(evaluation | {"inputs": read}))
        said = "TALE-PT-SFT of runs/eval: its training, or the search that it was trained on, is not among the runs"
        assert (said not in page(*runs).text) == counted


def test_a_search_without_its_journal_has_its_answers_alone(runs: tuple[str, ...]) -> None:
    Path("runs/search/journal.jsonl").unlink()
    seen = page(*runs, price_per_hour=1)
    assert seen.tables["Cost ledger"][1] == ["runs/search", "search", "3", "", f"{3 * 21}", "", "", ""]
    assert "TALE-PT-SFT of runs/eval: its training, or the search that it was trained on" in seen.text


def test_a_searchs_own_parts_journals_alone_are_counted() -> None:
    """Those of other runs inside its folder are not."""
    run = search_run()
    for place in ("shard-1-of-1", "inner"):
        (run / place).mkdir()
        shutil.copy(run / "journal.jsonl", run / place)
    assert page("runs/search").tables["Cost ledger"][1][2:5] == ["6", "600", "800"]


def test_runs_that_were_moved_together_still_belong_together(runs: tuple[str, ...]) -> None:
    before = page(*runs).tables
    shutil.move("runs", "moved")
    after = page("moved/search", "moved/sft", "moved/eval").tables
    moved = json.dumps(before).replace("runs/", "moved/")
    assert json.dumps(after) == moved


def test_a_search_shows_its_targets_and_the_reasons_for_none(runs: tuple[str, ...]) -> None:
    caption = "3 questions, 0 budgets tried. With a target: vanilla 21.0 tokens, target 6.0, 71.4% saved."
    assert page(*runs).tables[caption][1:] == [
        ["with a target", "1", "33.3"],
        ["without: vanilla answer wrong", "1", "33.3"],
        ["without: no feasible budget", "1", "33.3"],
    ]


def test_a_search_shows_how_many_of_its_targets_were_lucky() -> None:
    """One target of two questions, right in 3 of 8: Wilson's interval of 1 of 1 is 20.7 to 100 %."""
    run = search_run("runs/search", "confirm_samples=8")
    found, *others = read_records(run / "records.jsonl")
    write_records(run / "records.jsonl", [replace(found, again=Confirmation(3, 8, 0.7), vanilla_wrong=True), *others])
    finish_run(run)
    captions = {caption: table for caption, table in page("runs/search").tables.items() if "asked again" in caption}
    (caption,) = captions
    assert caption.startswith("Targets asked again 8 times at temperature 0.7; lucky: right in fewer than half")
    assert captions[caption][1][:4] == ["vanilla CoT wrong", "1", "1", "100.0 [20.7, 100.0]"]
    assert [row[0] for row in captions[caption]] == ["question", "vanilla CoT wrong", "all"]
    assert float(rows("lucky-runs-search.csv")[0]["right"]) == 3 / 8


def test_a_grid_shows_tokens_and_accuracy_by_share() -> None:
    """Vanilla answers of 40 tokens; at a quarter one of two is right, at the whole both are."""
    file = search_run("runs/grid", "strategy=grid", "budget_fractions=[0.25,1]") / "records.jsonl"
    template = read_records(file)[0]
    said = lambda tokens, right: Answer("", tokens, "stop", right, None, "brackets")  # noqa: E731
    tried = [{10: (60, True), 40: (30, True)}, {10: (20, False), 40: (50, True)}]
    records = []
    for answers in tried:
        attempts = [Attempt(b, (said(*a),), a[1]) for b, a in answers.items()]
        changed = {"vanilla": Attempt(None, (said(40, True),), False), "attempts": tuple(attempts), "budget": 40}
        records.append(type(template)(**{**vars(template), **changed}))
    write_records(file, records)
    finish_run(file.parent)
    caption = "runs/grid: tokens and accuracy by budget (Table 8), of the questions that vanilla CoT answers right"
    table = page("runs/grid").tables[caption]
    assert [(r[0], r[1], r[2].split()[0], r[3].split()[0], *r[5:]) for r in table[2:]] == [
        ("0.25", "2", "50.0", "40.0", "75.82", "244.61"),
        ("1", "2", "100.0", "40.0", "76.92", "653.53"),
        ("vanilla CoT", "2", "100.0", "40.0", "", ""),
    ]
    recipe = Path("runs/grid/recipe.yaml")
    recipe.write_text(recipe.read_text().replace("- 0.25", "- 0.75"))
    with pytest.raises(UserError, match=r"runs/grid/recipe.yaml: not the recipe of this run"):
        page("runs/grid")
    noted(recipe)
    assert "No results: records: q/0 was not asked under 30 tokens" in page("runs/grid").text


def test_an_analysis_shows_savings_beside_the_papers() -> None:
    analysis_run()
    tables = page("runs/analysis").tables
    assert tables["Monotonicity (Table 2)"][1:] == [
        ["grid", "3", "60.0 [20.0, 94.0]", "100.0"],
        ["the paper (Table 2)", "", "90.9", ""],
    ]
    assert tables["Token elasticity (§3)"][1:] == [["grid", "the paper's", "5", "4", "0.25", "yes", "27.5", "50.0"]]
    caption = "grid: tokens and accuracy by budget (Table 8), of the questions that vanilla CoT answers right"
    assert tables[caption][2:] == [
        ["0.25", "4", "50.0 [15.0, 85.0]", "40.0 [30.0, 50.0]", "0.40", "75.82", "244.61"],
        ["0.5", "4", "75.0 [30.0, 95.0]", "60.0 [55.0, 65.0]", "0.60", "", ""],
        ["vanilla CoT", "4", "100.0 [51.0, 100.0]", "100.0 [100.0, 100.0]", "1.00", "", ""],
    ]
    assert tables["grid: adherence to the budget"][1:] == [
        ["0.25", "25.0", "1.60", "25.0", "0.0"],
        ["0.5", "50.0", "1.20", "50.0", "25.0"],
    ]
    # Ranges of 25 to 50 of 100 tokens, with β* = 25, and of 30 to 100 of 200, with β* = 20.
    assert tables["Ideal range of budgets (A.1), medians over questions"][1:] == [
        ["grid", "2", "27.5", "75.0", "0.20", "0.50", "50.0"]
    ]
    caption = "Mean tokens of vanilla CoT and under β*, of questions that both answer right (Fig 3)"
    assert tables[caption][1:] == [["greedy", "1", "100.0", "40.0", "−60.0 [−62.0, −58.0]", "0.40"]]


def test_estimators_show_their_scores_beside_the_papers() -> None:
    estimate_run()
    seen = page("runs/budgets")
    assert seen.tables["Budgets against the ideal ranges (A.2), 8 held-out questions"][1:] == [
        ["constant", "0", "25.0 [7.0, 59.0]", "30.0", "20.0", "", ""],
        ["TALE-EP (e)", "1", "50.0 [20.0, 80.0]", "10.0", "4.0", "−16.0 [−20.0, −12.0]", "nearer"],
        ["the paper (A.2)", "", "60.6", "109.6", "", "", ""],
    ]
    assert seen.tables["Budgets against β*, and what an estimate costs, 8 held-out questions"][1:] == [
        ["constant", "12.5", "50.0 [20.0, 80.0]", "0.0", "0.0"],
        ["TALE-EP (e)", "6.5", "75.0 [30.0, 95.0]", "6.0", "40.0"],
    ]
    assert "Trained on the β* of 20 questions: constant." in seen.text
    assert "multiplied by α = 1.5." in seen.text


def test_what_was_left_out_is_counted_by_reason(runs: tuple[str, ...]) -> None:
    assert page(*runs).tables["By run"][1:] == [
        ["runs/search", "duplicate questions, dropped", "2"],
        ["runs/search", "questions without a target: vanilla answer wrong", "1"],
        ["runs/search", "questions without a target: no feasible budget", "1"],
        ["runs/sft", "records not trained on: vanilla answer wrong", "7"],
        ["runs/eval", "duplicate questions, dropped", "1"],
        ["runs/eval", "TALE-EP: asked as vanilla CoT, unreadable estimate", "1"],
    ]


@pytest.mark.parametrize(
    ("purge_step", "first", "seconds", "tokens"),
    [(2, 2, "24.0 s", 100 + 100 + 7 + 7 + 7), (0, 0, "12.0 s", 7 + 7 + 7)],
    ids=["resumed", "begun anew"],
)
def test_a_trainings_pauses_and_lost_steps_are_not_counted(
    purge_step: int, first: int, seconds: str, tokens: int
) -> None:
    run = train_run()
    for file in run.glob("events*"):  # event files are read by their name, in which the time comes first
        file.rename(run / "events.out.tfevents.0000000001.machine")
    steps(run, {first + i: (0.5, 7) for i in range(3)}, began=9000, purge_step=purge_step)
    ledger = page("runs/sft").tables["Cost ledger"]
    assert ledger[1] == ["runs/sft", "training, SFT", f"{tokens}", seconds]


def test_a_batch_of_grpo_counts_answers() -> None:
    train_run("runs/sft")
    train_run("runs/grpo", "", "objective=grpo", "data.records=[]", "train.global_batch_size=64")
    assert "64 answers a step" in page("runs/grpo").text
    assert "examples a step" in page("runs/sft").text


# --- The page -------------------------------------------------------------------------------------------------------


def test_the_page_needs_no_network_and_links_to_files_beside(runs: tuple[str, ...], drawn: None) -> None:
    seen = page(*runs, str(analysis_run()), str(estimate_run()))
    files = [link for link in seen.links if not link.startswith(("#", "data:,"))]
    own = {"report.html", "recipe.yaml", "run.json"}
    assert sorted(files) == sorted({f.name for f in Path("runs/report").iterdir()} - own)
    assert {link.removeprefix("#") for link in seen.links if link.startswith("#")} <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids))
    assert seen.unnamed == 0
    text = Path("runs/report/report.html").read_text(encoding="utf-8")
    assert '<html lang="en">' in text
    assert "<script" not in text
    for file in Path("runs/report").glob("*.png"):
        with Image.open(file) as image:
            assert len(image.convert("L").getcolors()) > 2  # something is drawn


def test_what_a_model_wrote_is_text_and_nothing_else() -> None:
    answer = "</pre><script>alert(1)</script><b onclick='x'>&amp;"
    evaluation_run(extra=answer)
    seen = page("runs/eval")
    text = Path("runs/report/report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<b onclick" not in text
    assert seen.text.count(answer) == 16  # 2 trained methods × 4 questions × 2 sides


@pytest.mark.parametrize("shown", [0, 1, 2, 4, 8])
def test_examples_that_turned_wrong_come_first(shown: int, runs: tuple[str, ...]) -> None:
    """And no more examples than asked for."""
    text = page(*runs, examples=shown).text
    turns = re.findall(r"(right turned wrong|wrong turned right|\w+ both times), (\d+) → (\d+) tokens", text)
    sft = turns[: min(shown, 4)]
    assert len(turns) == 2 * len(sft)
    expected = [("right turned wrong", "100", "40"), ("right both times", "120", "60")]
    expected += [("wrong both times", "100", "40"), ("wrong turned right", "80", "20")]
    assert set(sft[1:]) <= set(expected)
    assert sft[:1] == expected[:1][: len(sft)]
    assert "1 right turned wrong, 1 wrong turned right, 1 wrong both times, 1 right both times" in text


def test_recipe_versions_commit_and_machine_are_there_to_unfold(runs: tuple[str, ...]) -> None:
    text = page(*runs).text
    for run in runs:
        assert (Path(run) / "recipe.yaml").read_text() in text
        assert json.dumps(json.loads((Path(run) / "run.json").read_text()), indent=1, ensure_ascii=False) in text


# --- Runs without results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "lost", "said"),
    [
        (
            search_run,
            "records.jsonl",
            "records.jsonl is missing, the run was not finished; 3 answers are in its",
        ),
        (evaluation_run, "replies.jsonl", "replies.jsonl is missing, the run was not finished; 19 answers are in its"),
        (train_run, "adapter", "No adapter: the run was not finished"),
    ],
)
def test_a_run_without_results_is_said_to_have_none(make, lost: str, said: str) -> None:
    run = make()
    if (run / lost).is_dir():
        (run / lost).rmdir()
    else:
        (run / lost).unlink()
    with pytest.raises(UserError, match=f"{run / lost}: is missing, though the run finished it; copy the whole folder"):
        page(str(run))
    finish_run(run)
    assert said in page(str(run)).text


@pytest.mark.parametrize(
    ("make", "lost", "said"),
    [
        (analysis_run, ["*.json"], "No results of grid, greedy: the run was not finished"),
        (analysis_run, ["models.json"], "No results of grid: the run was not finished"),
        (analysis_run, ["iterations.json"], "No results of greedy: the run was not finished"),
        (analysis_run, ["savings.json"], "greedy: nothing was saved that Fig 3 could show, no question has a target."),
        (estimate_run, ["scores.json"], "No results: scores.json of this grid is missing, the run was not finished"),
        (estimate_run, ["scores.json", "*/estimator.json"], "No estimator: the run was not finished"),
    ],
)
def test_an_analysis_and_estimators_that_lack_a_table_say_so(make, lost: list[str], said: str) -> None:
    run = make()
    for file in [file for pattern in lost for file in run.glob(pattern) if file.name != "run.json"]:
        file.unlink()
    finish_run(run)
    assert said in page(str(run)).text


def test_an_earlier_starts_tables_are_not_shown_as_the_last() -> None:
    start_run(load(AnalyseRecipe, [f"output={analysis_run()}", "records=[runs/other/records.jsonl]"]))
    seen = page("runs/analysis")
    assert "No results of other: the run was not finished" in seen.text
    assert list(seen.tables) == ["Runs"]
    seen = page(str(estimate_run("runs/budgets", "grid_records=[]")))
    assert "Not scored: no grid search was given" in seen.text
    assert list(seen.tables) == ["Runs"]


def test_an_analysis_without_any_right_budget_has_a_page() -> None:
    run = analysis_run()
    write_rows([ModelSummary("grid", 1, 1, 0, 0.25, False, *[None] * 6)], run, "models")
    write_rows([QuestionSummary("grid", "q/2", 100, *[None] * 7)], run, "questions")
    finish_run(run)
    tables = page("runs/analysis").tables
    assert tables["Monotonicity (Table 2)"][1:] == [["grid", "0", ""], ["the paper (Table 2)", "", "90.9"]]
    assert tables["Ideal range of budgets (A.1), medians over questions"] == [
        ["search", "questions with a right budget"],
        ["grid", "0"],
    ]


def test_an_earlier_starts_replies_are_no_results() -> None:
    run = evaluation_run()
    start_run(load(EvaluateRecipe, ["recipe=tiny/eval", f"output={run}"]))
    assert "replies.jsonl is missing, the run was not finished" in page("runs/eval").text
    evaluation_run("runs/eval", "seeds=[1,2]", "sampling.temperature=1")
    assert "replies.jsonl is of an earlier start with other methods or seeds" in page("runs/eval").text


def test_questions_of_untrained_contexts_have_their_own_table() -> None:
    run = evaluation_run()
    figures = {"accuracy": 0.5, "accuracy_low": 0.1, "accuracy_high": 0.9, "output_tokens": 7, "estimator_tokens": 0}
    answers = {"truncated": 0, "in_format": 1, "asked_without_budget": 0}
    row = dict.fromkeys(Row.__dataclass_fields__) | {"method": "Vanilla CoT", "questions": 3} | figures | answers
    (run / "summary_clean.json").write_text(json.dumps([row]))
    finish_run(run)
    table = page("runs/eval").tables["The 3 questions whose context was never trained on"]
    assert table == [["method", "accuracy, %", "output tokens"], ["Vanilla CoT", "50.0 [10.0, 90.0]", "7.0"]]


@pytest.mark.parametrize(("make", "file"), [(search_run, "records.jsonl"), (evaluation_run, "replies.jsonl")])
def test_an_empty_file_of_results_is_said_to_be_empty(make, file: str) -> None:
    run = make()
    (run / file).write_text("")
    finish_run(run)
    assert f"No results: {file} is empty." in page(str(run)).text


def test_no_run_and_a_run_of_another_kind_are_named_as_such(place: Path) -> None:
    (place / "nothing").mkdir()
    (place / "other").mkdir()
    (place / "other" / "recipe.yaml").write_text("temperature: 0\n")
    shutil.copytree(train_run(), place / "merged")
    known = json.loads((place / "merged" / "run.json").read_text())
    (place / "merged" / "run.json").write_text(json.dumps(known | {"kind": "merge"}))
    text = page("nothing", "other", "merged").text
    kinds = "a search, a training, an evaluation, wordings, an analysis, estimators or a proxy"
    assert f"nothing is not {kinds}: it has no recipe.yaml." in text
    assert f"other is not {kinds}: its recipe.yaml is none of them." in text
    assert f"merged is not {kinds}: its recipe.yaml is none of them." in text


def test_a_run_that_has_only_begun_has_a_page() -> None:
    for make, lost in ((search_run, "*.jsonl"), (train_run, "events*"), (evaluation_run, "*.jsonl")):
        for file in (run := make()).glob(lost):
            file.unlink()
        finish_run(run)
    text = page(*RUNS).text
    assert "Nothing was spent in these runs." in text
    assert "No step was logged" in text


def test_one_question_is_enough() -> None:
    file = evaluation_run() / "replies.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if json.loads(line)["question"] == "q/0"))
    finish_run(file.parent)
    _, vanilla, *_ = page("runs/eval").tables["1 questions; in brackets 95 % intervals"]
    assert vanilla[3] == "100.0 [100.0, 100.0]"


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("eval/replies.jsonl", "{\n", "runs/eval/replies.jsonl:17: not a whole JSON object"),
        ("eval/replies.jsonl", '{"method": "x"}\n', "runs/eval/replies.jsonl:17: not a reply"),
        ("eval/journal.jsonl", '{"key": "x"}\n', "runs/eval/journal.jsonl:13: not a journalled answer"),
        ("eval/summary_clean.json", "[", "runs/eval/summary_clean.json: not a whole JSON object"),
        ("search/records.jsonl", "{}\n", "runs/search/records.jsonl:4: not a search record"),
        ("sft/recipe.yaml", "lr: 1\n", r"runs/sft/recipe.yaml: unknown key lr"),
        ("sft/recipe.yaml", "\t{\n", "runs/sft/recipe.yaml: cannot be read"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_written(
    runs: tuple[str, ...], file: str, damage: str, message: str
) -> None:
    with (Path("runs") / file).open("a") as damaged:
        damaged.write(damage)
    noted(Path("runs") / file)
    with pytest.raises(UserError, match=message):
        page(*runs)
    assert not Path("runs/report").exists()


@pytest.mark.parametrize("table", ["models", "scores"])
def test_a_damaged_table_is_named(table: str) -> None:
    run = analysis_run() if table == "models" else estimate_run()
    (run / f"{table}.json").write_text('[{"records": "grid"}]')
    finish_run(run)
    with pytest.raises(UserError, match=rf"{run}/{table}.json: not "):
        page(str(run))


def test_replies_that_lack_a_question_are_refused() -> None:
    file = evaluation_run() / "replies.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    finish_run(file.parent)
    with pytest.raises(UserError, match=r"replies.jsonl: not every method has every question"):
        page("runs/eval")


def test_a_journal_that_is_being_written_may_end_in_half_a_line(runs: tuple[str, ...]) -> None:
    before = page(*runs).tables
    with Path("runs/search/journal.jsonl").open("a") as journal:
        journal.write('{"key": "00')
    assert page(*runs).tables == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["runs=[]", "output=o"], "runs: none given"),
        (["runs=[nowhere]", "output=o"], "runs: no folder nowhere"),
        (["runs=[there]", "output=there"], "output=there: is one of the runs"),
        (["runs=[there,./the/re,the-re]", "output=o"], "runs: the/re and the-re would have files of one name"),
    ],
)
def test_runs_that_cannot_be_reported_are_refused(given: list[str], message: str, place: Path) -> None:
    for name in ("there", "the/re", "the-re"):
        (place / name).mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        report(load(ReportRecipe, given))


def test_a_folder_given_twice_is_one_run(place: Path) -> None:
    start_run(load(SearchRecipe, ["recipe=tiny/search", "output=runs/s"]))
    assert len(page("runs/s", "./runs/s/", str(place / "runs" / "s")).tables["Runs"]) == 2


@pytest.mark.parametrize(
    "label", [r"$\frac{$ <script>alert(1)</script>", "$1 or $2", '_α = id="x font-family: y; & #1a1b1c']
)
def test_any_label_can_stand_in_a_figure(label: str, drawn: None) -> None:
    evaluation_run(trained=label)
    assert label in page("runs/eval").text
    text = Path("runs/report/report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert html.escape(label, quote=False) in "".join(re.findall(r"<text[^>]*>([^<]*)</text>", text))


@pytest.mark.parametrize(("dtype", "counts"), [("bfloat16", [128, 100]), ("float32", [64, 50])])
def test_the_demo_ends_with_the_report_of_its_runs(
    dtype: str, counts: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Without bfloat16 in hardware it halves its questions."""
    search_run("runs/search_qwen")
    for objective in ("sft", "dpo"):
        train_run(f"runs/{objective}_qwen", "runs/search_qwen/records.jsonl")
    evaluation_run("runs/eval_qwen")
    ran: list[Stage] = []
    monkeypatch.setattr("tale.runs.stages.run_stages", ran.extend)
    monkeypatch.setattr("tale.hardware.devices.fast_dtype", lambda: dtype)
    run_script(ROOT / "scripts" / "demo.py")
    recipes = [load(s.kind, [f"recipe={s.recipe}", *s.overrides]) for s in ran]
    assert [recipe.output for recipe in recipes] == [f"runs/{s.recipe}" for s in ran]
    assert [recipe.task.limit for recipe in recipes if not isinstance(recipe, TrainRecipe)] == counts
    assert "report: runs/report/report.html\n" in capsys.readouterr().out
    assert [row[0] for row in Page(Path("runs/report/report.html")).tables["Runs"][1:]] == [
        f"runs/{s.recipe}" for s in ran
    ]


# --- Pieces ---------------------------------------------------------------------------------------------------------


def test_the_pareto_front_is_what_no_method_beats_as_cheaply() -> None:
    blank = dict.fromkeys(Row.__dataclass_fields__)
    made = [("a", 10, 0.5), ("b", 20, 0.4), ("c", 20, 0.7), ("d", 30, 0.7), ("e", 10, 0.2), ("f", 90, 0.8)]
    found = pareto_front([Row(**{**blank, "method": m, "output_tokens": t, "accuracy": a}) for m, t, a in made])
    assert [row.method for row in found] == ["a", "c", "f"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.5, "0.5 s"), (35.25, "35.2 s"), (59.99, "60.0 s"), (680, "11 min 20 s"), (21240, "5 h 54 min")],
)
def test_a_duration_is_shown_in_its_own_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_in_csv_an_interval_has_three_columns_and_all_digits() -> None:
    columns = {"run": Column("run"), "share": Column("share")}
    given = [("a, b", Interval(1 / 3, 0.25, 0.5)), ("c", None), ("d", 0.1)]
    table = table_of("t", "", columns, [dict(zip(columns, row, strict=True)) for row in given])
    assert table.csv().splitlines() == [
        "run,share,share_low,share_high", '"a, b",0.3333333333333333,0.25,0.5', "c,,,", "d,0.1,,"
    ]  # fmt: skip
