"""Evaluation under several seeds: what is asked, what is pooled, and intervals that resample questions, not answers."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from matplotlib.figure import Figure as Canvas

from tale.analysis.estimators.logged import logged_estimates
from tale.config.recipes import load
from tale.config.sections import PriceConfig
from tale.data import prompts
from tale.errors import UserError
from tale.evaluation import run
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import Reply, read_replies
from tale.evaluation.summary import Row, summarise
from tale.inference import Request
from tale.inference.requests import CompletionStream, RequestSource
from tale.inference.transformers.engine import TransformersEngine
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.statistics import Paired, PairedShares, mean_share, wilson
from tale.storage.files import write_jsonl_atomic
from tests.fake_engine import BRIEFLY, questions

METHODS = "methods=[{kind: direct}, {kind: vanilla}, {kind: tale_ep}]"


def replies(method: str, right: list[list[Any]], tokens: list[list[int]]) -> list[Reply]:
    """By seed, then by question."""
    return [
        Reply(method, f"q/{i}", "?", "!", bool(ok), "7", "brackets", "stop", count, 10, seed=seed)
        for seed, row in enumerate(zip(right, tokens, strict=True))
        for i, (ok, count) in enumerate(zip(*row, strict=True))
    ]


def resampled(values: numpy.ndarray) -> tuple[float, float]:
    """The middle 95 % of the mean over all answers to as many questions, drawn with all their answers."""
    rng, count = numpy.random.default_rng(8), values.shape[1]
    means = [values[:, rng.integers(count, size=count)].mean() for _ in range(20_000)]
    return tuple(numpy.quantile(means, (0.025, 0.975)))


# --- What is asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["seeds=[1,2]"], r"^seeds=\[1, 2\]: greedy decoding .* set sampling.temperature above 0"),
        (["seeds=[1,2,1]", "sampling.temperature=1"], r"^seeds=\[1, 2, 1\]: a seed given twice"),
    ],
)
def test_seeds_with_equal_answers_are_refused_before_a_model(given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run.evaluate(load(EvaluateRecipe, ["recipe=tiny/eval", "model.name_or_path=nowhere", *given]))


# --- With a model ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Evaluations under seeds 3 and 4, together and each alone, and how many requests each method's pass had."""
    folder, passes = tmp_path_factory.mktemp("runs"), []
    generate = TransformersEngine.generate

    def noted(engine: TransformersEngine, more: RequestSource) -> CompletionStream:
        if type(engine) is not TransformersEngine:  # the proof of its architecture is by another one
            return generate(engine, more)
        passes.append(0)

        def counted() -> Sequence[Request]:
            requests = more()
            passes[-1] += len(requests)
            return requests

        return generate(engine, counted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersEngine, "generate", noted)
        for name, given in {"both": "seeds=[3,4]", "3": "sampling.seed=3", "4": "seeds=[4]"}.items():
            recipe = ["recipe=tiny/eval", f"model.name_or_path={tiny_model_folder}", "task.limit=3", METHODS, given]
            run.evaluate(load(EvaluateRecipe, [*recipe, "sampling.temperature=1", f"output={folder / name}"]))
    return {"folder": folder, "passes": passes[:3]}


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_two_seeds_are_the_replies_of_both_in_one_pass(runs: dict[str, Any]) -> None:
    together = lines(runs["folder"] / "both" / "replies.jsonl")
    for seed in (3, 4):
        alone = lines(runs["folder"] / str(seed) / "replies.jsonl")
        assert [line for line in together if line["seed"] == seed] == [{**line, "seed": seed} for line in alone]
    assert len({line["text"] for line in together if line["method"] == "Vanilla CoT"}) == 3 * 2
    read = sum(line.get("budget") is not None for line in together)
    assert read > 0
    # The third method asks for 6 estimates; where it cannot read one it asks as vanilla CoT, which is known.
    assert runs["passes"] == [6, 6, 6 + read]
    known = {name: lines(runs["folder"] / name / "journal.jsonl")[1:] for name in ("both", "3", "4")}
    texts = {name: {line["key"]: line["text"] for line in of} for name, of in known.items()}
    assert texts["both"] == texts["3"] | texts["4"]
    assert not texts["3"].keys() & texts["4"].keys()


def test_one_seed_leaves_no_trace_of_there_being_several(runs: dict[str, Any]) -> None:
    folder = runs["folder"] / "4"
    assert [*lines(folder / "replies.jsonl")[0]] == [
        field.name for field in fields(Reply) if field.name not in ("seed", "error", "total_budget", "calls", "answers")
    ]
    rare = ("seeds", "accuracy_spread", "bleu_spread", "output_tokens_spread", "not_answered")
    with (folder / "summary.csv").open(newline="") as file:
        assert next(csv.reader(file)) == [field.name for field in fields(Row) if field.name not in rare]


def test_the_report_shows_the_spread_and_every_seeds_calls(
    runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(_figure: Canvas, file: io.StringIO | io.BytesIO, format: str, **_: object) -> None:
        file.write("<svg></svg>" if format == "svg" else b"")

    monkeypatch.setattr(Canvas, "savefig", save)
    monkeypatch.chdir(runs["folder"])
    page = report(load(ReportRecipe, ["runs=[both]", "output=report"])).read_text(encoding="utf-8")
    assert "SD of seeds, points" in page
    assert "seeds 3, 4" in page
    assert "Every question was answered under 2 seeds" in page
    assert "Vanilla CoT, 2 seeds: cut off" in page
    together = read_replies(Path("both/replies.jsonl"))["Vanilla CoT"]
    means = [numpy.mean([r.output_tokens for r in together if r.seed == seed]) for seed in (3, 4)]
    with Path("report/evaluation-both.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["method"] == "Vanilla CoT")
    assert float(row["output_tokens_spread"]) == pytest.approx(abs(means[0] - means[1]) / math.sqrt(2))
    with Path("report/ledger.csv").open(newline="") as file:
        ledger = {row["what"]: row for row in csv.DictReader(file)}
    calls = len(lines(Path("both/journal.jsonl"))) - 1
    assert (ledger["Vanilla CoT"]["calls"], ledger["evaluation"]["calls"]) == ("6", str(calls))
    assert all(row["seconds"] for row in ledger.values())
    with pytest.raises(UserError, match=r"both has seeds=\[3, 4\], 4 has seeds=\[\]: they cannot be compared"):
        report(load(ReportRecipe, ["runs=[both,'4']", "output=report"]))


def test_replies_that_lack_a_question_under_a_seed_are_refused(runs: dict[str, Any], tmp_path: Path) -> None:
    whole = (runs["folder"] / "both" / "replies.jsonl").read_text().splitlines(keepends=True)
    for kept in (whole[1:], whole[:5], [whole[i] for i in (0, 3, 1, 4, 2, 5)]):
        (tmp_path / "replies.jsonl").write_text("".join(kept))
        with pytest.raises(UserError, match="not every method has every question"):
            read_replies(tmp_path / "replies.jsonl")


@pytest.mark.parametrize(("line", "other"), [(None, BRIEFLY), (BRIEFLY, None)])
def test_each_seeds_estimates_stand_by_themselves(tmp_path: Path, line: str | None, other: str | None) -> None:
    (asked,) = questions(1)
    rows = [
        Reply("EP", "q/0", prompts.budgeted(asked, budget, line), "[[7]]", True, "7", "[[…]]", "stop", 4, 30, budget)
        for budget in (20, 30)
    ]
    estimates = [{"estimator_text": f"[[{row.budget}]]", "estimator_tokens": 5} for row in rows]
    write_jsonl_atomic(
        tmp_path / "replies.jsonl",
        [replace(row, seed=seed, **of).line for row, of, seed in zip(rows, estimates, (3, 4), strict=True)],
    )
    found = {
        name.split(" (")[0]: [one.value for one in of]
        for name, of in logged_estimates(tmp_path / "replies.jsonl", [asked], line).items()
    }
    assert found == {"EP, seed 3": [20], "EP, seed 4": [30]}
    with pytest.raises(UserError, match="holds no zero-shot estimate of the grid's questions"):
        logged_estimates(tmp_path / "replies.jsonl", [asked], other)


# --- Numbers --------------------------------------------------------------------------------------------------------


def test_means_are_of_all_answers_and_the_sd_of_seeds_means() -> None:
    """Right 1 of 2 and 2 of 2: 3/4, SD of 1/2 and 1 is 1/√8. Tokens 20 and 40 a seed: 30, SD 20/√2."""
    ours = replies("ours", [[1, 0], [1, 1]], [[10, 30], [20, 60]])
    theirs = replies("theirs", [[1, 1], [1, 1]], [[40, 40], [40, 40]])
    row, _ = summarise({"ours": ours, "theirs": theirs}, "theirs", PriceConfig())
    assert (row.questions, row.seeds, row.accuracy, row.output_tokens) == (2, 2, 0.75, 30)
    assert (row.accuracy_spread, row.output_tokens_spread) == pytest.approx((1 / math.sqrt(8), 20 / math.sqrt(2)))
    assert (row.accuracy_difference, row.tokens_difference, row.mcnemar_p) == (-0.25, -10, None)
    # By question −25 and 5 tokens: of two draws with replacement both are the first, or the second, in 1 of 4.
    assert (row.tokens_difference_low, row.tokens_difference_high) == (-25, 5)


def test_intervals_resample_questions_with_all_their_answers() -> None:
    rng = numpy.random.default_rng(4)
    known = rng.beta(0.4, 0.4, 300)  # most questions are answered right, or wrong, under every seed
    right = {name: (rng.random((3, 300)) < known).astype(int) for name in ("ours", "theirs")}
    tokens = {name: rng.integers(10, 90, (3, 300)) for name in right}
    of = {name: replies(name, right[name].tolist(), tokens[name].tolist()) for name in right}
    row, _ = summarise(of, "theirs", PriceConfig())
    assert (row.accuracy_low, row.accuracy_high) == pytest.approx(resampled(right["ours"]), abs=0.003)
    change = resampled(right["ours"] - right["theirs"])
    assert (row.accuracy_difference_low, row.accuracy_difference_high) == pytest.approx(change, abs=0.003)
    change = resampled(tokens["ours"] - tokens["theirs"])
    assert (row.tokens_difference_low, row.tokens_difference_high) == pytest.approx(change, abs=0.1)
    low, high = wilson(int(right["ours"].sum()), 900)  # as if 900 questions had been answered
    assert row.accuracy_high - row.accuracy_low > 1.3 * (high - low)


def test_with_few_differences_the_interval_keeps_the_unseen() -> None:
    """z² / (n + z²) = 3.8415 / 13.8415 to either side of 1/20; a bootstrap would say [0, 0.15], and "shown"."""
    few = PairedShares((0.5, *[0.0] * 9))
    assert few.interval() == pytest.approx((0.05 - 0.27753, 0.05 + 0.27753), abs=1e-5)
    assert few.not_worse(0.03) == "not enough questions"
    # ψ = (1/4 + 1.9207) / 13.8415 = 0.15683; 7.8489 · ψ / 0.03² = 1367.7
    assert few.questions_needed(0.03) == 1368
    assert mean_share([1.0] * 9 + [0.5])[1:] == pytest.approx((0.95 - 0.27753, 1), abs=1e-5)


def test_where_all_seeds_agree_there_is_one_verdict_a_question() -> None:
    of = {
        "ours": replies("ours", [[1, 0, 1]] * 2, [[9] * 3] * 2),
        "theirs": replies("t", [[1, 1, 0]] * 2, [[9] * 3] * 2),
    }
    row, _ = summarise(of, "theirs", PriceConfig())
    assert (row.accuracy_low, row.accuracy_high) == wilson(2, 3)
    assert (row.accuracy_difference_low, row.accuracy_difference_high) == Paired(1, 1, 3).interval()
    assert row.mcnemar_p is None


def test_the_interval_of_several_seeds_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 questions under 3 seeds, 400 studies of 500 resamples; 240 verdicts taken for as many questions cover less."""
    monkeypatch.setattr("tale.statistics.RESAMPLES", 500)
    rng = numpy.random.default_rng(6)
    covered = numpy.zeros(2)
    for _ in range(400):
        right = rng.binomial(3, rng.beta(0.6, 0.4, 80))
        _, *ours = mean_share((right / 3).tolist())
        covered += [low <= 0.6 <= high for low, high in (ours, wilson(int(right.sum()), 240))]
    assert 0.92 < covered[0] / 400 < 0.975
    assert covered[1] / 400 < 0.85
