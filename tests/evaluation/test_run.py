"""Evaluation with a fake engine: what is asked, what is counted, and the intervals, each by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image

from tale.config.recipes import load
from tale.config.sections import PriceConfig
from tale.data import prompts
from tale.data.question import Question
from tale.data.records import Answer, Attempt, Record, write_records
from tale.errors import UserError
from tale.estimators import Estimate
from tale.estimators.zero_shot import read_estimate
from tale.evaluation import run
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.repetition import repetition
from tale.evaluation.replies import Reply, answer_all, check_methods
from tale.evaluation.summary import Row, summarise, tables
from tale.inference import Completion, Request, Sampling
from tale.inference.journal import JournaledEngine
from tale.inference.requests import RequestSource
from tale.models.adapters import AdapterCard
from tale.models.lora import save_adapter
from tale.solvers.registry import METHODS, Method
from tale.statistics import Paired, paired_difference, wilson
from tale.tasks.selection import select_questions
from tests.factories import adapted
from tests.fake_engine import BRIEFLY, GREEDY, Asked, FakeEngine, questions, right, said, wrong

QUESTIONS = questions(4)
VANILLA = {
    "q/0": right(100),
    "q/1": said("So there are 7", 50),
    "q/2": wrong(30),
    "q/3": said("First we take the 7", 512, "length"),
}
ESTIMATES = {
    "q/0": said("Budget: [[50]]", 6, prompt_tokens=40),
    "q/1": said("I cannot say.", 5, prompt_tokens=40),
    "q/2": said("Budget: [[0]]", 4, prompt_tokens=40),
    "q/3": said("about 33.2 tokens", 7, prompt_tokens=40),
}


def reply(asked: Asked) -> Completion:
    if asked.way == "estimate":
        return ESTIMATES[asked.question.id]
    return VANILLA[asked.question.id] if asked.budget is None else right(asked.budget)


def method(kind: str, **values: object) -> Method:
    return METHODS[kind](**values)


def answered(kind: str, **values: object) -> tuple[list[Reply], list[Asked]]:
    engine = FakeEngine(QUESTIONS, reply, budget_line=values.get("budget_line"))
    return answer_all(method(kind, **values), QUESTIONS, engine, GREEDY), engine.calls


def summary(replies: dict[str, list[Reply]], reference: str | None = None, prices: tuple = (0.0, 0.0)) -> list[Row]:
    return summarise(replies, reference, PriceConfig(*prices))


# --- Methods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "values", "prompt"),
    [
        ("direct", {}, prompts.direct),
        ("vanilla", {}, prompts.vanilla),
        ("vanilla", {"adapter": "runs/sft/adapter"}, prompts.vanilla),
        ("fixed_budget", {"budget": 20}, lambda q: prompts.budgeted(q, 20)),
        ("fixed_budget", {"budget": 20, "budget_line": BRIEFLY}, lambda q: prompts.budgeted(q, 20, BRIEFLY)),
    ],
)
def test_a_method_asks_its_prompt(kind: str, values: dict, prompt: object) -> None:
    replies, _ = answered(kind, **values)
    assert [r.prompt for r in replies] == [prompt(q) for q in QUESTIONS]
    assert [r.question for r in replies] == ["q/0", "q/1", "q/2", "q/3"]
    assert {r.budget for r in replies} == {values.get("budget")}
    assert {r.fallback for r in replies} == {None}


def test_asked_against_used_tokens_by_hand() -> None:
    """Answers of 18 and 25 tokens to budgets of 20 are 10 % and 25 % off, one of them over; vanilla has no budget."""
    reply = answered("fixed_budget", budget=20)[0][0]
    replies = [replace(reply, tokens=tokens) for tokens in (18, 25)]
    rows = summary({"Vanilla CoT": answered("vanilla")[0], "short": replies})
    assert (rows[1].budget_error, rows[1].over_budget) == (pytest.approx(0.175), 0.5)
    assert (rows[0].budget_error, rows[0].over_budget) == (None, None)


def test_tale_ep_asks_its_own_estimates_or_the_vanilla_prompt() -> None:
    replies, _ = answered("tale_ep")
    assert [r.budget for r in replies] == [50, None, None, 34]
    assert [r.prompt for r in replies] == [
        prompts.budgeted(QUESTIONS[0], 50),
        prompts.vanilla(QUESTIONS[1]),
        prompts.vanilla(QUESTIONS[2]),
        prompts.budgeted(QUESTIONS[3], 34),
    ]
    assert [r.fallback for r in replies] == [None, "unreadable estimate", "unreadable estimate", None]
    assert [r.estimator_text for r in replies] == [ESTIMATES[q.id].text for q in QUESTIONS]


def test_unanswered_questions_are_wrong_and_counted_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One of four answers and two of four estimates cannot be had; without tokens there is no ratio to them."""

    def some(asked: Asked) -> Completion:
        refused = asked.question.id == "q/3" or (asked.way == "estimate" and asked.question.id == "q/0")
        return Completion.failed("status 400 (no)") if refused else reply(asked)

    engine = FakeEngine(QUESTIONS, some)
    replies = {kind: answer_all(method(kind), QUESTIONS, engine, GREEDY) for kind in ("vanilla", "tale_ep")}
    last = replies["vanilla"][3]
    assert (last.correct, last.finish, last.error, last.tokens) == (False, "error", "status 400 (no)", 0)
    assert [r.fallback for r in replies["tale_ep"]] == [
        "estimate not answered", "unreadable estimate", "unreadable estimate", "estimate not answered",
    ]  # fmt: skip
    rows = summary(replies, "vanilla")
    assert [(row.accuracy, row.not_answered, row.truncated) for row in rows] == [(0.5, 1, 0), (0.5, 1, 0)]
    tables(rows, "title")[1].show()
    assert "not answered" in capsys.readouterr().out
    nothing = [dataclasses.replace(r, tokens=0) for r in replies["vanilla"]]
    assert summary({"vanilla": nothing, "tale_ep": replies["tale_ep"]}, "vanilla")[1].tokens_ratio is None


def test_the_estimators_tokens_count_readable_or_not() -> None:
    replies, _ = answered("tale_ep")
    assert [(r.tokens, r.estimator_tokens, r.output_tokens) for r in replies] == [
        (50, 6, 56),
        (50, 5, 55),
        (30, 4, 34),
        (34, 7, 41),
    ]
    (row,) = summary({"TALE-EP": replies})
    assert (row.output_tokens, row.estimator_tokens, row.asked_without_budget) == (186 / 4, 22 / 4, 2)


@pytest.mark.parametrize(
    ("text", "multiplier", "budget"),
    [
        ("Budget: [[50]]", 1, 50),
        ("Budget: [[50]]", 1.5, 75),
        ("Budget: [[50]]", 1.1, 55),  # 55.00000000000001 in floats
        ("Budget: [[7]]", 0.5, 4),
        ("[[12]] or rather [[14]]", 1, 14),
        ("Budget: [[1,200]] tokens", 1, 1200),
        ("Around 33.2 tokens", 1, 34),
        ("Budget: [[33.2]]", 1.5, 50),
        ("Budget: [[0.2]]", 1, 1),
        ("Budget: [[0]]", 1, None),
        ("Budget: [[-5]]", 1, None),
        ("Budget: [[few]]", 1, None),
        ("Budget: [[]]", 1, None),
        ("A few.", 1, None),
        ("", 1, None),
    ],
)
def test_a_budget_is_the_scaled_estimate_rounded_up(text: str, multiplier: float, budget: int | None) -> None:
    assert Estimate(read_estimate(text)).budget(multiplier) == budget


def test_the_multiplier_scales_every_estimate() -> None:
    assert [r.budget for r in answered("tale_ep", budget_multiplier=2.0)[0]] == [100, None, None, 67]


@pytest.fixture
def records(tmp_path: Path) -> str:
    """A search over three of the questions, found for two of them, and under another id and spelling for the third."""
    best = Answer("[[7]]", 9, "stop", True, "7", "brackets")
    vanilla = Attempt(None, (best,), False)
    found = Question("other/9", f" {QUESTIONS[2].text}\n", "7")
    rows = [
        Record(QUESTIONS[0], vanilla, (), 25, best, None, GREEDY, "m"),
        Record(QUESTIONS[1], vanilla, (), None, None, "no feasible budget", GREEDY, "m"),
        Record(found, vanilla, (), 12, best, None, GREEDY, "m"),
    ]
    write_records(tmp_path / "records.jsonl", rows)
    return str(tmp_path / "records.jsonl")


def test_searched_budgets_are_found_and_missing_ones_counted(records: str) -> None:
    replies, _ = answered("optimal_budget", records=records)
    assert [r.budget for r in replies] == [25, None, 12, None]
    assert [r.fallback for r in replies] == [None, "no searched budget", None, "no searched budget"]
    assert [r.prompt for r in replies][:2] == [prompts.budgeted(QUESTIONS[0], 25), prompts.vanilla(QUESTIONS[1])]
    assert {r.estimator_tokens for r in replies} == {0}


def test_a_label_is_the_recipes_or_names_method_and_adapter() -> None:
    assert method("direct").name == "Directly answering"
    assert method("fixed_budget", budget=9).name == "CoT, budget 9"
    assert method("vanilla", adapter="runs/sft_x/adapter").name == "sft_x"
    assert method("vanilla", adapter="runs/sft_x/adapter", label="TALE-PT").name == "TALE-PT"


def test_all_questions_are_at_hand_at_once() -> None:
    """A batch or so many calls at a time may be larger than a search's window."""
    asked = questions(600)
    taken: list[int] = []

    class Noting(FakeEngine):
        def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
            def noted() -> Sequence[Request]:
                requests = more()
                taken.append(len(requests))
                return requests

            return super().generate(noted)

    answer_all(method("vanilla"), asked, Noting(asked, lambda _: right(9)), GREEDY)
    assert taken[0] == 600


# --- Refused methods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], "methods: none given"),
        ([method("vanilla"), method("vanilla")], "methods.0..label: 'Vanilla CoT' is the name of two methods"),
        (
            [method("direct"), method("vanilla", adapter="a/sft/adapter"), method("vanilla", adapter="b/sft/adapter")],
            "methods.1..label: 'sft' is the name of two methods",
        ),
        ([method("fixed_budget")], "methods.0..budget: kind fixed_budget needs a positive"),
        ([method("direct"), method("fixed_budget", budget=0)], "methods.1..budget: "),
        ([method("optimal_budget")], "methods.0..records: kind optimal_budget needs"),
        ([method("optimal_budget", records="nowhere/records.jsonl")], "nowhere/records.jsonl: cannot be read"),
    ],
)
def test_methods_that_cannot_work_are_refused_by_number_and_key(methods: list[Method], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        check_methods(methods, QUESTIONS, GREEDY)


def test_a_search_over_other_questions_is_refused(records: str) -> None:
    searched = method("optimal_budget", records=records)
    check_methods([searched], QUESTIONS, GREEDY)
    with pytest.raises(UserError, match=r"methods.0..records: .*has no budget for any of these questions"):
        check_methods([searched], [QUESTIONS[1], QUESTIONS[3]], GREEDY)


def test_a_search_that_decoded_otherwise_is_refused(records: str) -> None:
    with pytest.raises(
        UserError, match=r"methods.0..records: .*max_tokens=512.*, this run decodes with .*max_tokens=99"
    ):
        check_methods([method("optimal_budget", records=records)], QUESTIONS, Sampling(max_tokens=99))


def test_a_search_that_asked_for_budgets_otherwise_is_refused(records: str) -> None:
    with pytest.raises(UserError, match=r"methods.0..records: .*with budget_line=None, this method has Be brief"):
        check_methods([method("optimal_budget", records=records, budget_line=BRIEFLY)], QUESTIONS, GREEDY)


# --- Numbers --------------------------------------------------------------------------------------------------------


def test_tokens_are_a_mean_over_all_samples() -> None:
    """The wrong and the cut-off ones included.

    692 tokens, 4 questions, 2 right. The official code divides by the right ones, which gives 346.
    """
    (row,) = summary({"Vanilla CoT": answered("vanilla")[0]})
    assert (row.questions, row.accuracy, row.output_tokens) == (4, 0.5, 173)


def test_cut_off_in_format_and_fallback_shares_are_counted() -> None:
    """q/0 and q/2 have brackets; q/1 is read by its last number; q/3 is cut off, so its 7 does not count."""
    (row,) = summary({"Vanilla CoT": answered("vanilla")[0]})
    assert (row.truncated, row.in_format, row.by_number) == (0.25, 0.5, 0.25)


def test_repeated_4_grams_are_a_mean_over_answers_and_paired() -> None:
    """Of "a b" five times 2 of 7 4-grams are distinct, of 一 seven times 1 of 4; "[[7]]" has 2, "a a a" none."""
    assert repetition("a b " * 5) == 1 - 2 / 7
    assert repetition("一" * 7) == 3 / 4
    assert [repetition(text) for text in ("", "a a a", "a a a a", "[[7]]", "Tom's pens cost $3")] == [0] * 5
    replies = answered("vanilla")[0][:2]
    ours = [dataclasses.replace(r, text=text) for r, text in zip(replies, ("一" * 7, "[[7]]"), strict=True)]
    row = summary({"vanilla": replies, "ours": ours}, "vanilla")[1]
    assert (row.repetition, row.repetition_difference) == (3 / 8, 3 / 8)
    assert (row.repetition_difference_low, row.repetition_difference_high) == (0, 3 / 4)


def test_expense_is_of_all_input_and_output_in_1e_5_dollars() -> None:
    """By hand, at 0.15 and 0.60 $ a million: 10 + 40 tokens in and e.g. 56 out a sample, the estimator's included.

    Input 4 · 50 · 0.15 = 30 and output (56 + 55 + 34 + 41) · 0.6 = 111.6, in 10⁻⁶ $; a sample: 35.4 · 10⁻⁶ $.
    """
    (row,) = summary({"TALE-EP": answered("tale_ep")[0]}, prices=(0.15, 0.60))
    assert row.expense == pytest.approx(3.54)
    (free,) = summary({"TALE-EP": answered("tale_ep")[0]})
    assert free.expense is None


def test_differences_to_the_reference_are_on_the_same_questions() -> None:
    """Budget 20 is right everywhere at 20 tokens: +0.5 accuracy, −153 tokens, 20/173 of them."""
    replies = {"Vanilla CoT": answered("vanilla")[0], "short": answered("fixed_budget", budget=20)[0]}
    vanilla, short = summary(replies, reference="Vanilla CoT")
    assert (vanilla.accuracy_difference, vanilla.tokens_difference, vanilla.tokens_ratio) == (None, None, None)
    assert (short.accuracy_difference, short.tokens_difference) == (0.5, -153)
    assert short.tokens_ratio == pytest.approx(20 / 173)
    assert short.accuracy_difference_low <= 0.5 <= short.accuracy_difference_high
    assert short.tokens_difference_low < -153 < short.tokens_difference_high
    assert summary(replies)[1].accuracy_difference is None


def test_mcnemars_p_the_verdict_and_the_cost_by_hand() -> None:
    """Two questions are right under budget 20 alone: p = 2 · (1/2)². 173 − 20 tokens less at 0.6 $ a million."""
    replies = {"Vanilla CoT": answered("vanilla")[0], "short": answered("fixed_budget", budget=20)[0]}
    vanilla, short = summarise(replies, "Vanilla CoT", PriceConfig(0.15, 0.60), margin=0.05)
    assert (vanilla.mcnemar_p, vanilla.within_margin, vanilla.margin) == (None, None, None)
    assert (short.accuracy_difference_low, short.accuracy_difference_high) == Paired(2, 0, 4).interval()
    assert (short.mcnemar_p, short.within_margin, short.margin) == (0.5, "not enough questions", 0.05)
    # ψ = (2 + 1.9207) / (4 + 3.8415) = 1/2; 7.8489 · ψ / 0.05² = 1569.8
    assert short.questions_needed == 1570
    assert short.expense_difference == pytest.approx(-153 * 0.06)
    assert short.expense_difference_low < -153 * 0.06 < short.expense_difference_high
    (free,) = summary({"Vanilla CoT": replies["Vanilla CoT"]}, "Vanilla CoT")
    assert free.expense_difference is None


def test_a_summary_from_before_these_figures_can_still_be_read() -> None:
    old = {field.name: None for field in dataclasses.fields(Row) if field.default is dataclasses.MISSING}
    assert Row(**old).mcnemar_p is None


@pytest.mark.parametrize(("k", "n"), [(8, 10), (0, 20), (20, 20), (1023, 1319)])
def test_the_interval_of_a_share_is_wilsons(k: int, n: int) -> None:
    """(p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)."""
    z, p = 1.959963984540054, k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2) / (1 + z * z / n)
    assert wilson(k, n) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_wilsons_interval_of_eight_in_ten() -> None:
    """A value found in tables."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)


def test_the_bootstrap_of_a_large_sample_is_the_normal_interval() -> None:
    rng = numpy.random.default_rng(5)
    theirs = rng.gamma(4, 60, 1500)
    ours = theirs * rng.uniform(0.2, 1.1, 1500)
    mean, low, high = paired_difference(ours, theirs)
    half = 1.96 * (ours - theirs).std(ddof=1) / math.sqrt(1500)
    assert mean == pytest.approx((ours - theirs).mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.06 * half)
    unpaired = 1.96 * math.sqrt((ours.var() + theirs.var()) / 1500)
    assert half < 0.8 * unpaired  # the test would notice


def test_the_bootstrap_is_the_same_each_time() -> None:
    assert paired_difference([1, 0, 1, 1], [0, 0, 1, 0]) == paired_difference([1, 0, 1, 1], [0, 0, 1, 0])


@pytest.mark.parametrize(("ours", "theirs", "value"), [([1.0], [0.0], 1.0), ([1, 2, 3], [0, 1, 2], 1.0)])
def test_without_any_spread_the_interval_is_a_point(ours: list, theirs: list, value: float) -> None:
    assert paired_difference(ours, theirs) == (value, value, value)


# --- A whole run ----------------------------------------------------------------------------------------------------


def card(seen: list[Question] = (), stories: list[Question] = ()) -> AdapterCard:
    return AdapterCard({}, [q.question_hash for q in seen], [q.context_hash for q in (*seen, *stories)])


def test_trained_questions_are_refused_by_id() -> None:
    with pytest.raises(
        UserError, match=r"2 of these questions were trained on \(q/1, q/3 …\).*task\.context_split=test"
    ):
        run.uncontaminated(QUESTIONS, [card(QUESTIONS[1:2]), None, card(QUESTIONS[3:])])


def test_questions_about_a_trained_story_are_told_apart() -> None:
    assert run.uncontaminated(QUESTIONS, [card(stories=QUESTIONS[:1]), card(stories=QUESTIONS[2:3])]) == {"q/1", "q/3"}
    assert run.uncontaminated(QUESTIONS, [None]) == {q.id for q in QUESTIONS}


@pytest.fixture
def recipe(tmp_path: Path) -> EvaluateRecipe:
    return load(EvaluateRecipe, ["recipe=tiny/eval", "task.limit=4", f"output={tmp_path / 'run'}"])


@pytest.fixture
def no_model(recipe: EvaluateRecipe, monkeypatch: pytest.MonkeyPatch) -> list[Question]:
    """Puts the fake engine in the model's place; the recipe's questions."""
    asked, _ = select_questions(recipe.task)
    ids = dict(zip((q.id for q in asked), ESTIMATES, strict=True))

    def fake(_config: object, _base: object, folder: Path, adapters: list[str | None]) -> list[JournaledEngine]:
        trained = FakeEngine(asked, lambda a: said(f"[[{a.question.gold}]]", 11))
        base = FakeEngine(asked, lambda a: reply(Asked(Question(ids[a.question.id], "", ""), a.way, a.budget, 0)))
        return [
            JournaledEngine(trained if adapter else base, folder / f"journal-{i}.jsonl", {})
            for i, adapter in enumerate(adapters)
        ]

    base = SimpleNamespace(
        name="m", identity={"name": "m", "weights": "01"}, merge=None, max_model_len=None, chat=lambda: None
    )
    monkeypatch.setattr(run, "find_model", lambda *_: base)
    monkeypatch.setattr(run, "engines", fake)
    return asked


def test_a_run_writes_replies_tables_and_a_plot(recipe: EvaluateRecipe, no_model: list[Question]) -> None:
    rows = run.evaluate(recipe)
    folder = Path(recipe.output)
    labels = ["Directly answering", "Vanilla CoT", "CoT, budget 8", "TALE-EP"]
    assert [row.method for row in rows] == labels
    assert [row.tokens_difference is None for row in rows] == [False, True, False, False]
    lines = [json.loads(line) for line in (folder / "replies.jsonl").read_text().splitlines()]
    assert [(line["method"], line["question"]) for line in lines] == [(m, q.id) for m in labels for q in no_model]
    assert [Row(**row) for row in json.loads((folder / "summary.json").read_text())] == rows
    assert not (folder / "summary_clean.json").exists()
    with Image.open(folder / "accuracy_tokens.png") as plot:
        assert plot.format == "PNG"
        assert len(plot.convert("L").getcolors()) > 2  # something is drawn


def test_adapters_answer_their_methods_alone(
    recipe: EvaluateRecipe, no_model: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the clean questions get a table of their own."""
    monkeypatch.setattr(run, "check_adapter", lambda _folder, _base: card(stories=no_model[:1]))
    recipe.methods = [method("vanilla", adapter="runs/sft/adapter"), method("vanilla"), method("direct")]
    recipe.sampling.max_tokens = 512
    sft, vanilla, direct = run.evaluate(recipe)
    assert (sft.method, sft.accuracy, sft.output_tokens) == ("sft", 1, 11)
    assert vanilla.output_tokens == direct.output_tokens == 173
    assert vanilla.tokens_difference is None
    assert sft.tokens_ratio == pytest.approx(11 / 173)
    clean = json.loads((Path(recipe.output) / "summary_clean.json").read_text())
    assert [row["questions"] for row in clean] == [3, 3, 3]
    assert [row["output_tokens"] for row in clean] == [11, pytest.approx(592 / 3), pytest.approx(592 / 3)]


def test_weights_are_freed_before_the_next_are_loaded(
    recipe: EvaluateRecipe,
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loads_alone: list[weakref.ref],
) -> None:
    adapters = [str(tmp_path / name) for name in "ab"]
    for seed, adapter in enumerate(adapters):
        torch.manual_seed(seed)
        save_adapter(adapted(tiny_model_folder), AdapterCard({}, [], []), Path(adapter))
    monkeypatch.setattr(run, "check_adapter", lambda _folder, _base: None)
    recipe.model.name_or_path = str(tiny_model_folder)
    recipe.methods = [method("vanilla"), *(method("vanilla", adapter=adapter, label=adapter) for adapter in adapters)]
    run.evaluate(recipe)
    assert len(loads_alone) == 3


def test_no_clean_table_where_every_story_was_trained_on(
    recipe: EvaluateRecipe, no_model: list[Question], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(run, "check_adapter", lambda _folder, _base: card(stories=no_model))
    recipe.methods = [method("vanilla", adapter="runs/sft/adapter")]
    (row,) = run.evaluate(recipe)
    assert row.questions == 4
    assert not (Path(recipe.output) / "summary_clean.json").exists()
    assert "the context of every question was trained on" in capsys.readouterr().out


def test_what_a_merged_adapter_was_trained_on_is_refused_too(
    recipe: EvaluateRecipe, no_model: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = SimpleNamespace(name="m", identity={}, merge=Path("merged/m"))
    monkeypatch.setattr(run, "find_model", lambda *_: base)
    monkeypatch.setattr(run, "read_card", lambda folder: card(no_model) if folder == base.merge else None)
    with pytest.raises(UserError, match="4 of these questions were trained on"):
        run.evaluate(recipe)
    assert not Path(recipe.output).exists()
