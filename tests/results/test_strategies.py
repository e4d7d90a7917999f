"""The report of strategies at equal budgets: tables, costs, and each question's calls as they ran."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Canvas

from tale.config.recipes import load
from tale.evaluation.replies import AnswerRecord, CallRecord, Reply, read_replies
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.results.strategies import tree_of
from tests.results.test_report import Page
from tests.run_factories import strategies_run

RUN = "eval/replies.jsonl"
HOSTILE = " </pre></details><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} \x1b[31m"


def call(role: str, parent: int | None = None, **more: object) -> CallRecord:
    return CallRecord(**{"role": role, "limit": 40, "tokens": 10, "prompt_tokens": 5, "finish": "stop", "text": role,
                         "parent": parent, **more})  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run whose answers are hostile."""

    def save(_figure: Canvas, file: io.StringIO | io.BytesIO, format: str, **_: object) -> None:
        file.write("<svg></svg>" if format == "svg" else b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("report"))
        strategies_run(Path("eval"), HOSTILE)
        patch.setattr(Canvas, "savefig", save)
        return report(load(ReportRecipe, ["runs=[eval]", "output=report", "examples=5"])).resolve()


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_the_page_has_the_runs_own_tables_of_strategies(page: Path) -> None:
    for name in ("strategies", "anytime"):
        saved = json.loads((page.parent.parent / "eval" / f"{name}.json").read_text())
        shown = rows(page.parent / f"{name}-eval.csv")
        assert [row["strategy"] for row in shown] == [row["strategy"] for row in saved]
        for column in shown[0].keys() & saved[0].keys() - {"strategy", "source"}:
            assert [float(row[column] or "nan") for row in shown] == pytest.approx(
                [float("nan") if row[column] is None else row[column] for row in saved], nan_ok=True
            )


def test_a_strategys_cost_is_of_all_its_calls_without_time(page: Path) -> None:
    ledger = {row["what"]: row for row in rows(page.parent / "ledger.csv")}
    for name, replies in read_replies(page.parent.parent / RUN).items():
        calls = [call for reply in replies for call in reply.calls or [reply]]
        row = ledger[name]
        assert [int(row[key]) for key in ("calls", "tokens_in", "tokens_out")] == [
            len(calls), sum(call.prompt_tokens for call in calls), sum(call.tokens for call in calls)
        ]  # fmt: skip
        assert bool(row["seconds"]) == (name == "Vanilla CoT")
    assert int(ledger["Self-consistency, B = 400"]["calls"]) > 24


def test_a_picked_questions_calls_are_text_alone(page: Path) -> None:
    text, seen = page.read_text(encoding="utf-8"), Page(page)
    assert "5 of 12 questions are on the page, under seed 1" in seen.text
    assert text.count("<option>") == text.count('class="picked"') == 5
    picked, replies = re.findall(r"<option>(.*?): \d of 6 right<", text), read_replies(page.parent.parent / RUN)
    shown = [r for of in replies.values() for r in of if r.seed == 1 and r.question in picked and r.calls is not None]
    assert len(shown) == 5 * 6
    assert text.count('class="node"') == sum(len(reply.calls) for reply in shown)
    assert "1: chain · " in seen.text
    # All of the page's one script is ours, which its policy names; what the answers say is text.
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in text
    assert "<img" not in text
    assert html.escape("</pre></details><script>alert(1)</script>") in text
    assert "\x1b" not in text


def test_calls_follow_parents_indented_but_for_a_next_step() -> None:
    calls = [
        call("thought"), call("value", 0, score=0.5), call("thought", 0), call("thought", 0),
        call("thought", 2, finish="length"), call("forced answer", 4, value="7"), call("thought"),
    ]  # fmt: skip
    answers = [AnswerRecord(60, 5, True)]
    reply = Reply("Tree", "q", "?", "!", True, "7", "brackets", "stop", 70, 35, total_budget=90, calls=calls,
                  answers=answers)  # fmt: skip
    tree = tree_of(reply)
    assert tree.title == "Tree: right, 7 calls, 70 of 90 tokens, read as 7"
    assert tree.note == "The answer: from 60 tokens on that of call 5, right."
    assert [(node.depth, node.title) for node in tree.nodes] == [
        (0, "0: thought · 10 of 40 tokens"),
        (1, "1: value · after 0 · 10 of 40 tokens · value 0.50"),
        (1, "2: thought · after 0 · 10 of 40 tokens"),
        (1, "4: thought · after 2 · 10 of 40 tokens, cut off"),
        (2, "5: forced answer · after 4 · 10 of 40 tokens · answer 7"),
        (1, "3: thought · after 0 · 10 of 40 tokens"),
        (0, "6: thought · 10 of 40 tokens"),
    ]
    chain = [call("chain")] + [call("chain", i) for i in range(3000)]
    long = replace(reply, tokens=30010, prompt_tokens=15005, calls=chain, answers=[])
    assert {node.depth for node in tree_of(replace(long, correct=False, value=None)).nodes} == {0}
