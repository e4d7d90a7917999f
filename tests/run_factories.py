"""Run folders written by hand, small enough that every figure of their report can be worked out on paper."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from tale.analysis.elasticity import BudgetLevel, ModelSummary, QuestionSummary
from tale.analysis.estimators.recipe import EstimateRecipe
from tale.analysis.estimators.score import Score
from tale.analysis.paths import Iteration, Saving
from tale.analysis.recipe import AnalyseRecipe
from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.data import prompts
from tale.data.question import Question
from tale.data.records import write_records
from tale.estimators.base import Constant
from tale.estimators.saved import EstimatorCard, save_estimator
from tale.evaluation import run as evaluation
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import Reply
from tale.inference import Completion, Sampling
from tale.inference.journal import JournaledEngine, request_key
from tale.output.tables import write_rows
from tale.runs.run import finish_run, start_run
from tale.search.recipe import SearchRecipe
from tale.serve.log import FILE, RequestRow
from tale.serve.recipe import ServeRecipe
from tale.storage.files import write_jsonl_atomic
from tale.tasks.selection import select_questions
from tests.factories import record
from tests.fake_engine import Asked, FakeEngine, ask, questions

BASE = {"name": "tiny-llama", "weights": "01"}
PRICES = ("prices.input=1", "prices.output=2")
METHODS = (
    "{kind: vanilla}, {kind: tale_ep}, {kind: vanilla, label: TALE-PT-SFT, adapter: runs/sft/adapter}, "
    "{kind: vanilla, label: long, adapter: runs/other/adapter}"
)


def journal(file: Path, calls: Sequence[tuple[bytes, Completion, float]], **settings: Any) -> None:
    """A journal of these calls: key, answer, seconds."""
    lines = [{"key": key.hex(), "seconds": seconds, **asdict(answer)} for key, answer, seconds in calls]
    write_jsonl_atomic(file, [{"name": "tiny-llama", **settings}, *lines])


def search_run(folder: str = "runs/search", *overrides: str) -> Path:
    """3 calls, 300 tokens read, 400 generated, 4 s, $0.0011; one target of 6 tokens for 21, two questions without."""
    recipe = load(SearchRecipe, ["recipe=tiny/search", f"output={folder}", *PRICES, *overrides])
    run = start_run(recipe, None, ["records.jsonl"], base=BASE, questions={"all": 3, "searched": 3, "duplicates": 2})
    calls = [
        (bytes([i] * 12), Completion("x", t, "stop", 100), s) for i, (t, s) in enumerate([(200, 2), (100, 1), (100, 1)])
    ]
    journal(run / "journal.jsonl", calls)
    wrong, none = "vanilla answer wrong", "no feasible budget"
    records = [("q/0", "5 [1]", None), ("q/1", None, wrong), ("q/2", None, none)]
    write_records(run / "records.jsonl", [record(i, f"{i}?", t, "20 tokens and a last", r) for i, t, r in records])
    finish_run(run)
    return run


def serve_run(folder: str = "runs/serve", control: int = 80) -> Path:
    """A proxy's log: under a budget 40 and 20 + 20 tokens, 3 times 80 of the control group, one unchanged, one cut."""
    recipe = load(ServeRecipe, ["recipe=serve", f"output={folder}"])
    run = start_run(recipe)
    whole = RequestRow(route="chat/completions", outcome="done", status=200, model="m", counted="usage", first_byte=0.5)
    ours = replace(whole, arm="budget", source="trained", asked=30, limit=124, used=40, key="a")
    rows = [
        ours,
        replace(ours, key="b", source="zero_shot", asked=50, used=20, estimator_tokens=20, limit_fired=True),
        *(replace(whole, arm="control", used=control, key=key) for key in "cdd"),
        replace(whole, arm="unchanged", reason="tools", used=900),
        replace(ours, outcome="client left", used=5),
        replace(whole, route="other", used=None),
    ]
    write_jsonl_atomic(run / FILE, [asdict(row) for row in rows])
    return run


def train_run(folder: str = "runs/sft", records: str = "runs/search/records.jsonl", *overrides: str) -> Path:
    """3 steps of 100, 100 and 40 tokens in 12 s; the loss falls from 2 to 1."""
    recipe = load(TrainRecipe, ["recipe=tiny/sft", f"output={folder}", f"data.records=[{records}]", *overrides])
    run = start_run(
        recipe, None, ["adapter"], base=BASE, examples={"train": 5, "left_out": {"vanilla answer wrong": 7}}
    )
    steps(run, {0: (2.0, 100), 1: (1.5, 100), 2: (1.0, 40)}, began=1000)
    (run / "adapter").mkdir()
    finish_run(run)
    return run


def steps(
    run: Path,
    losses: dict[int, tuple[float, int]],
    began: float,
    purge_step: int = 0,
    suffix: str = "",
    **others: float,
) -> None:
    """An event file of these steps' loss and tokens, and `others` of each: one every 6 s, the first at `began`."""
    writer = SummaryWriter(str(run), purge_step=purge_step, filename_suffix=suffix)
    for i, (step, (loss, tokens)) in enumerate(losses.items()):
        writer.add_scalar("train/loss", loss, step, walltime=began + 6 * i)
        for name, value in {"tokens": tokens, **others}.items():
            writer.add_scalar(f"train/{name}", value, step, walltime=began + 6 * i)
    writer.close()


def evaluation_run(folder: str = "runs/eval", *overrides: str, extra: str = "", trained: str = "TALE-PT-SFT") -> Path:
    """4 questions, 4 methods. Output tokens: vanilla 100, TALE-EP 57.5, TALE-PT-SFT 40, "long" 110; right: 2, 3, 2, 0.

    A vanilla answer took 1 s, one under a budget 0.3 s, an estimate 0.1 s, one of SFT 0.4 s, one of "long" 2 s.
    `extra` is added to every answer's text, `trained` is the label of SFT.
    """
    given = [
        f"output={folder}",
        f"methods=[{METHODS}]",
        f"methods[2].label={trained}",
        "task.name=gsm8k",
        *PRICES,
        *overrides,
    ]
    recipe = load(EvaluateRecipe, ["recipe=tiny/eval", *given])
    outputs = ["replies.jsonl", "summary_clean.json"]
    run = start_run(recipe, None, outputs, base=BASE, questions={"asked": 4, "duplicates": 1})
    asked, sampling = questions(4), Sampling(**vars(recipe.sampling))
    vanilla = _replies("Vanilla CoT", asked, [100, 120, 80, 100], [True, True, False, False], extra)
    sft = _replies(trained, asked, [40, 60, 20, 40], [False, True, True, False], extra)
    long = _replies("long", asked, [110, 130, 90, 110], [False] * 4, extra)
    estimated = [*_estimated(asked[:3], extra), _fallback(vanilla[3])]
    key = lambda reply: request_key(ask(reply.prompt, sampling=sampling))  # noqa: E731
    base = [(key(r), _said(r), 1.0) for r in vanilla] + [(key(r), _said(r), 0.3) for r in estimated[:3]]
    for i, reply in enumerate(estimated):
        text = str(reply.estimator_text)
        base.append((hashlib.sha256(bytes([i])).digest()[:12], Completion(text, 10, "stop", 70), 0.1))
    journal(run / "journal.jsonl", base)
    for name, replies, seconds in (("sft", sft, 0.4), ("long", long, 2.0)):
        journal(run / f"journal-{name}.jsonl", [(key(r), _said(r), seconds) for r in replies], adapter=name)
    write_jsonl_atomic(run / "replies.jsonl", map(asdict, [*vanilla, *estimated, *sft, *long]))
    finish_run(run)
    return run


def _replies(
    method: str, asked: Sequence[Question], tokens: Sequence[int], right: Sequence[bool], extra: str
) -> list[Reply]:
    """Replies to the vanilla prompt, 90 tokens read for each."""
    return [
        _reply(method, q, prompts.vanilla(q), t, ok, 90, extra) for q, t, ok in zip(asked, tokens, right, strict=True)
    ]


def _reply(
    method: str, q: Question, prompt: str, tokens: int, right: bool, read: int, extra: str, **more: Any
) -> Reply:
    value = "7" if right else "8"
    text = f"{method} says so. [[{value}]]{extra}"
    return Reply(method, q.id, prompt, text, right, value, "brackets", "stop", tokens, read, **more)


def _estimated(asked: Sequence[Question], extra: str) -> list[Reply]:
    budget = {"budget": 25, "estimator_text": "[[25]]", "estimator_tokens": 10, "estimator_prompt_tokens": 70}
    return [_reply("TALE-EP", q, prompts.budgeted(q, 25), 30, True, 95, extra, **budget) for q in asked]


def _fallback(vanilla: Reply) -> Reply:
    budget = {"estimator_text": "Who knows", "estimator_tokens": 10, "estimator_prompt_tokens": 70}
    return Reply(**{**asdict(vanilla), "method": "TALE-EP", **budget, "fallback": "unreadable estimate"})


def _said(reply: Reply) -> Completion:
    return Completion(reply.text, reply.tokens, "stop", reply.prompt_tokens)


def analysis_run(folder: str = "runs/analysis") -> Path:
    """A grid search of 4 questions under two budgets, 3 of them with a budget of their own, and a halving search."""
    files = "[runs/grid/records.jsonl,runs/greedy/records.jsonl]"
    recipe = load(AnalyseRecipe, [f"output={folder}", f"records={files}"])
    tables = ("elasticity", "questions", "models", "iterations", "savings")
    run = start_run(recipe, None, [f"{table}.json" for table in tables])
    curve = [
        BudgetLevel("grid", 0.25, 4, 25, 40, 30, 50, 0.4, 0.5, 0.15, 0.85, 1.6, 0.25, 0),
        BudgetLevel("grid", 0.5, 4, 50, 60, 55, 65, 0.6, 0.75, 0.3, 0.95, 1.2, 0.5, 0.25),
        BudgetLevel("grid", None, 4, None, 100, 100, 100, 1, 1, 0.51, 1, None, None, 0),
    ]
    each = [
        QuestionSummary("grid", "q/0", 100, 25, 25, True, 25, 50, True, True),
        QuestionSummary("grid", "q/1", 200, 20, 30, False, 30, 100, False, True),
        QuestionSummary("grid", "q/2", 100, None, None, None, None, None, None, None),
    ]
    path = [(0, 100, 100, True), (1, 50, 40, True), (2, 20, 170, False)]
    write_rows(curve, run, "elasticity")
    write_rows(each, run, "questions")
    write_rows([ModelSummary("grid", 5, 4, 3, 0.25, True, 27.5, 0.5, 0.6, 0.2, 0.94, 1)], run, "models")
    write_rows([Iteration("greedy", "q/0", *one) for one in path], run, "iterations")
    write_rows([Saving("greedy", 1, 100, 40, -60, -62, -58)], run, "savings")
    finish_run(run)
    return run


def estimate_run(folder: str = "runs/budgets", *overrides: str) -> Path:
    """A constant and a better estimator, scored on 8 questions."""
    given = [
        "train_records=[runs/search/records.jsonl]",
        "grid_records=[runs/grid/records.jsonl]",
        "budget_multiplier=1.5",
    ]
    recipe = load(EstimateRecipe, [f"output={folder}", *given, *overrides])
    run = start_run(
        recipe, None, ["constant", "scores.json"], examples={"train": 20, "held_out": 8 * bool(recipe.grid_records)}
    )
    save_estimator(Constant(20.0), EstimatorCard("m", [], []), run / "constant")
    nothing, none = (None, None, None), ("", 12.5, 0.5, 0.2, 0.8, 0, 0)
    scores = [
        Score("constant", 8, 0, 0.25, 0.07, 0.59, 30, 20, *nothing, *none),
        Score("TALE-EP (e)", 8, 1, 0.5, 0.2, 0.8, 10, 4, -16, -20, -12, "nearer", 6.5, 0.75, 0.3, 0.95, 6, 40),
    ]
    write_rows(scores, run, "scores")
    finish_run(run)
    return run


def strategies_run(folder: Path, extra: str = "", *overrides: str) -> Path:
    """Each strategy at every budget on 12 questions under 2 seeds, answered at random by the fake engine, `extra` last.

    A chain has 20 to 160 tokens. Called again it resumes, or changes what the overrides say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = ["budgets=[100,200,400]", "seeds=[1,2]", "sampling={max_tokens: 512, temperature: 0.7}", "task.limit=12"]
    kinds = "methods=[{kind: vanilla}, {kind: single}, {kind: self_consistency}]"
    recipe = load(EvaluateRecipe, ["recipe=tiny/eval", *keys, kinds, *PRICES, f"output={folder}", *overrides])
    asked, _ = select_questions(recipe.task)

    def said(asked: Asked) -> Completion:
        draw = Random(f"{asked.question.id} {asked.sample}")
        value = asked.question.gold if draw.random() < 0.5 else "-1"
        return Completion(f"So it is [[{value}]]{extra}", draw.randint(20, 160), "stop", 10)

    base = SimpleNamespace(name="m", identity={"name": "m"}, merge=None, max_model_len=None, chat=lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "find_model", lambda *_: base)
        patch.setattr(evaluation, "check_engine", lambda *_: None)
        engine = JournaledEngine(FakeEngine(asked, said), folder / "journal.jsonl", {})
        patch.setattr(evaluation, "engines", lambda *_: [engine])
        evaluation.evaluate(recipe)
    return folder
