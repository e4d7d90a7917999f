"""Open-ended questions from their rows to the report: BLEU by hand and by sacrebleu, and who refuses them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import sacrebleu

from tale.config.recipes import load
from tale.data.question import Question
from tale.errors import UserError
from tale.evaluation import run
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import read_replies
from tale.evaluation.summary import Row
from tale.grading.bleu import Scored, corpus_bleu, score, sentence_bleu
from tale.inference import Completion
from tale.inference.journal import JournaledEngine
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.runs.compare import check_comparable
from tale.runs.run import start_run
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tale.statistics import paired_difference
from tale.tasks.selection import select_questions
from tests.fake_engine import Asked, FakeEngine, said
from tests.results.test_report import Page

SAID, REFERENCE = "the cat sat on the mat", "the cat is on the mat"
# 5 of 6 words, 3 of 5 pairs, 1 of 4 triples, and of 3 fours none, which counts as half a one; no text is the shorter.
BLEU = (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** (1 / 4)


# --- The figure -----------------------------------------------------------------------------------------------------


def test_sentence_bleu_by_hand() -> None:
    """A text of two words has no triples: all it says is right, and it is a third as long as the reference."""
    assert sentence_bleu(SAID, REFERENCE) == pytest.approx(BLEU)
    assert sentence_bleu("the cat", REFERENCE) == pytest.approx(math.exp(1 - 6 / 2))
    assert sentence_bleu("a dog", REFERENCE) == 0


def test_corpus_bleu_counts_a_missing_answer_as_an_empty_one() -> None:
    """6 words for 8: the same shares of n-grams, and a penalty on all of them for brevity."""
    assert corpus_bleu([SAID, None], [REFERENCE, "a dog"]) == pytest.approx(BLEU * math.exp(1 - 8 / 6))


def test_both_are_sacrebleus() -> None:
    said = ["def f(x):\n    return [x, 1]", "Adds one, or so.", "Sorry to hear that!"]
    references = ["def f(x):\n    return [1, x]", "Adds one.", "I'm sorry to hear that. Is she well?"]
    expected = [sacrebleu.sentence_bleu(s, [r]).score for s, r in zip(said, references, strict=True)]
    assert [100 * sentence_bleu(s, r) for s, r in zip(said, references, strict=True)] == pytest.approx(expected)
    assert 100 * corpus_bleu(said, references) == pytest.approx(sacrebleu.corpus_bleu(said, [references]).score)


@pytest.mark.parametrize(
    ("reply", "value", "via"),
    [
        ("In the format [[answer]]: first a, so [[b\nc]]. Done.", "b\nc", "brackets"),
        ("[[return [[0]] + x[[1, 2]]]]", "return [[0]] + x[[1, 2]]", "brackets"),
        ("[[\n```python\nx = 1\n```\n]]", "x = 1", "brackets"),
        ("```\nx[0]\n```", "x[0]", "whole-reply"),
        ("a ] [[b", "a ] [[b", "whole-reply"),
        ("[[]]", "", "brackets"),
    ],
)
def test_the_last_brackets_are_the_answer_else_the_whole_reply(reply: str, value: str, via: str) -> None:
    found = score(reply, "x", truncated=False)
    assert (found.value, found.via) == (value, via)


def test_a_cut_off_reply_has_only_what_stands_in_brackets() -> None:
    assert score(REFERENCE, REFERENCE, truncated=True) == Scored(None, "none", 0.0)
    assert score(f"[[{REFERENCE}]] Now", REFERENCE, truncated=True).bleu == pytest.approx(1)


# --- A whole run ----------------------------------------------------------------------------------------------------

ROWS = [
    {"text": f"Task {i}.", "code": code, "test_list": ["assert f(1)"]}
    for i, code in enumerate([REFERENCE, "a dog", "one two three four"])
]


def reply(asked: Asked) -> Completion:
    """Vanilla is the reference itself, in 100 tokens; under a budget the first is `SAID`, the second cut off."""
    if asked.way == "estimate":
        return said("[[40]]", 5)
    if asked.budget is None:
        return said(f"Let me see. [[{asked.question.gold}]]", 100)
    return {"0": said(f"[[{SAID}]]", 30), "1": said("a", 30, "length")}.get(
        asked.question.id[-1], said(asked.question.gold, 30)
    )


@pytest.fixture
def evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Row]]:
    """Runs vanilla CoT and TALE-EP on three MBPP rows, into runs/eval."""
    monkeypatch.chdir(tmp_path)
    Path("mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    given = ["task={name: mbpp, path: mbpp.jsonl, limit: 3}", "methods=[{kind: vanilla}, {kind: tale_ep}]"]
    recipe = load(EvaluateRecipe, ["recipe=tiny/eval", *given, "output=runs/eval", "sampling.max_tokens=512"])
    engine = JournaledEngine(FakeEngine(select_questions(recipe.task)[0], reply), tmp_path / "journal.jsonl", {})
    known = {"name": "m", "identity": {"name": "m", "weights": "01"}, "merge": None}
    base = SimpleNamespace(**known, chat=lambda: None, max_model_len=None)
    monkeypatch.setattr(run, "find_model", lambda *_: base)
    monkeypatch.setattr(run, "engines", lambda *_: [engine])
    return lambda: run.evaluate(recipe)


def test_an_evaluation_has_bleu_in_place_of_accuracy(
    evaluation: Callable[[], list[Row]], capsys: pytest.CaptureFixture[str]
) -> None:
    vanilla, estimated = evaluation()
    assert (vanilla.accuracy, estimated.accuracy_difference, estimated.mcnemar_p) == (None, None, None)
    assert (vanilla.bleu, vanilla.corpus_bleu) == pytest.approx((1, 1))
    assert estimated.bleu == pytest.approx((BLEU + 0 + 1) / 3)
    bounds = (estimated.bleu_difference, estimated.bleu_difference_low, estimated.bleu_difference_high)
    assert bounds == pytest.approx(paired_difference([BLEU, 0, 1], [1, 1, 1]))
    assert (estimated.output_tokens, estimated.in_format, estimated.by_whole_reply) == (35, 1 / 3, 1 / 3)
    assert estimated.corpus_bleu == corpus_bleu([SAID, None, "one two three four"], [r["code"] for r in ROWS])
    for reply in read_replies(Path("runs/eval/replies.jsonl"))["TALE-EP"]:
        assert (reply.correct, reply.reference) == (None, ROWS[int(reply.question[-1])]["code"])
    assert Path("runs/eval/bleu_tokens.png").is_file()
    shown = capsys.readouterr().out
    assert "corpus BLEU" in shown
    assert not any(word in shown for word in ("accuracy", "McNemar"))


def test_the_report_shows_bleu_with_the_papers_figures_below(evaluation: Callable[[], list[Row]]) -> None:
    evaluation()
    page = Page(report(load(ReportRecipe, ["runs=[runs/eval]", "output=runs/report"])))
    heading, vanilla, estimated = page.tables["3 questions; in brackets 95 % intervals"]
    assert heading[:4] == ["method", "BLEU", "Δ to vanilla, BLEU", "corpus BLEU"]
    assert (vanilla[1], estimated[1][:5], estimated[2][:6]) == ("1.000 [1.000, 1.000]", "0.460", "−0.540")
    table = page.tables["BLEU, output tokens and expense"]
    assert [row[0] for row in table[2:]] == [
        "mbpp: m, 3 questions (runs/eval)",
        "mbpp: the paper, model not known (Table 7)",
    ]
    assert [row[1:] for row in table[2:]] == [
        ["1.000", "100.00", "0.460", "35.00"],
        ["0.267", "461.77", "0.240", "171.08"],
    ]
    assert "Vanilla CoT and TALE-EP: 2 lower BLEU, 0 higher BLEU, 1 the same BLEU." in page.text
    assert f"Reference:\n{REFERENCE}" in page.text
    assert not any(word in page.text for word in ("Accuracy", "✓", "✗"))


# --- Refused --------------------------------------------------------------------------------------------------------


def test_runs_that_are_scored_differently_are_not_compared(evaluation: Callable[[], list[Row]]) -> None:
    evaluation()
    other = start_run(load(EvaluateRecipe, ["recipe=tiny/eval", "output=runs/other"]))
    with pytest.raises(UserError, match=r"^runs/eval has scoring=bleu, runs/other has scoring=accuracy: they cannot"):
        check_comparable([Path("runs/eval"), other])


def test_a_search_refuses_questions_without_right_and_wrong(tmp_path: Path, tiny_model_folder: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "Who?", "reference": "A dog."}\n')
    given = ["task.name=jsonl", f"task.path={tmp_path / 'q.jsonl'}", f"model.name_or_path={tiny_model_folder}"]
    recipe = load(SearchRecipe, ["recipe=tiny/search", "task.limit=null", f"output={tmp_path / 's'}", *given])
    with pytest.raises(UserError, match=r"^task.name=jsonl: has reference texts, and a search needs answers"):
        run_search(recipe)
    assert not (tmp_path / "s").exists()


def test_answers_and_references_are_not_evaluated_together() -> None:
    with pytest.raises(UserError, match="some questions have an answer, others a reference"):
        run.metric_of([Question("a", "?", "7"), Question("b", "?", "A dog.", "text")])
