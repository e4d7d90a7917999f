"""The whole method on a tiny random Llama: search, SFT and DPO on what it found, evaluation, merging and asking."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tale.config.recipes import load
from tale.config.sections import ModelConfig
from tale.config.training import TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.data.question import Question
from tale.data.records import Confirmation, read_records
from tale.errors import UserError
from tale.evaluation.ask import AskRecipe, ask
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.run import evaluate
from tale.inference import Completion
from tale.inference.journal import JournaledEngine
from tale.inference.requests import RequestSource
from tale.inference.transformers.engine import TransformersEngine
from tale.models.base import resolve
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.search import run as search_run
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tale.tasks import load as load_benchmark
from tale.training.merge import MergeRecipe, merge
from tale.training.run import train
from tests.fake_engine import FakeEngine, said

QUESTIONS = 8


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def tokens(text: str) -> int:
    """Of the tiny model: its bytes, and the end."""
    return len(text.encode()) + 1


def script(question: Question, budget: int | None) -> Completion:
    """A right answer of 61 tokens, of 31 under half of that or more, and a wrong one under less."""
    answer = f"[[{question.gold}]]"
    length = 60 if budget is None else 30
    text = f"{answer:.>{length}}" if budget is None or budget >= 30 else "[[x]]"
    return said(text, tokens(text))


@pytest.fixture(scope="module")
def runs(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search by a fake engine, SFT and DPO adapters trained on its records, GRPO's on its questions."""
    folder = tmp_path_factory.mktemp("runs")
    model = [f"model.name_or_path={tiny_model_folder}"]
    questions = load_benchmark("problems", None, "train", QUESTIONS, 0)
    with pytest.MonkeyPatch.context() as patch:
        engine = FakeEngine(questions, lambda asked: script(asked.question, asked.budget))
        patch.setattr(search_run, "engines", lambda *_: [JournaledEngine(engine, folder / "journal.jsonl", {})])
        records = run_search(
            load(SearchRecipe, ["recipe=tiny/search", *model, f"output={folder / 'search'}", "sampling.max_tokens=128"])
        )
    for objective in ("sft", "dpo"):
        # As a sum, DPO's loss of the half as long target is saturated, and nothing is learnt.
        loss = f"loss.length_normalized={objective == 'dpo'}"
        given = [*model, f"output={folder / objective}", f"data.records=[{records}]", loss, "optimizer.lr=0.1"]
        train(load(TrainRecipe, [f"recipe=tiny/{objective}", *given]))
    given = [*model, f"output={folder / 'grpo'}", f"task.limit={QUESTIONS}", "train.max_steps=1"]
    train(load(TrainRecipe, ["recipe=tiny/grpo", *given]))
    return folder


@pytest.fixture
def no_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(_self: object, more: RequestSource) -> list:
        if requests := more():
            pytest.fail(f"{len(requests)} answers are generated again")
        return []

    monkeypatch.setattr(TransformersEngine, "generate", generate)


def evaluation(runs: Path, model: Path, *overrides: str) -> EvaluateRecipe:
    adapted = ", ".join(f"{{kind: vanilla, adapter: {runs / name / 'adapter'}}}" for name in ("sft", "dpo"))
    methods = f"methods=[{{kind: direct}}, {{kind: vanilla}}, {{kind: tale_ep}}, {adapted}]"
    given = [f"model.name_or_path={model}", f"output={runs / 'eval'}", "task.limit=3", methods]
    return load(EvaluateRecipe, ["recipe=tiny/eval", *given, *overrides])


def test_the_search_finds_the_fake_engines_targets(runs: Path) -> None:
    records = read_records(runs / "search" / "records.jsonl")
    assert len(records) == QUESTIONS
    for record in records:
        assert (record.vanilla.best.tokens, record.budget, record.target.tokens) == (61, 30, 31)
        assert record.target.value == record.question.gold
        assert [a.budget for a in record.attempts] == [30, 15]


def test_a_finished_search_can_ask_its_targets_alone_again(
    runs: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3 draws, numbered from 1, the first is right."""
    shutil.copy(runs / "journal.jsonl", tmp_path)
    questions = load_benchmark("problems", None, "train", QUESTIONS, 0)
    engine = FakeEngine(questions, lambda asked: script(asked.question, 30 if asked.sample == 1 else 1))
    monkeypatch.setattr(search_run, "engines", lambda *_: [JournaledEngine(engine, tmp_path / "journal.jsonl", {})])
    given = [f"model.name_or_path={tiny_model_folder}", f"output={tmp_path / 'search'}"]
    records = read_records(
        run_search(load(SearchRecipe, ["recipe=tiny/search", *given, "sampling.max_tokens=128", "confirm_samples=3"]))
    )
    assert [(asked.budget, asked.sample) for asked in sorted(engine.calls, key=lambda asked: asked.sample)] == [
        (30, sample) for sample in (1, 2, 3) for _ in range(QUESTIONS)
    ]
    assert [replace(record, again=None) for record in records] == read_records(runs / "search" / "records.jsonl")
    assert {record.again for record in records} == {Confirmation(1, 3, 0.7)}


@pytest.mark.parametrize("objective", ["sft", "dpo", "grpo"])
def test_training_leaves_an_adapter_that_knows_what_it_has_seen(objective: str, runs: Path) -> None:
    card = json.loads((runs / objective / "adapter" / "tale.json").read_text())
    run = json.loads((runs / objective / "run.json").read_text())
    records = read_records(runs / "search" / "records.jsonl")
    assert card["base"] == run["base"] == json.loads((runs / "search" / "run.json").read_text())["base"]
    assert len(card["questions"]) == run["examples"]["train"] < QUESTIONS
    assert set(card["questions"]) < {record.question.question_hash for record in records}


def test_evaluation_with_adapters_and_again_from_the_journal(
    runs: Path, tiny_model_folder: Path, request: pytest.FixtureRequest
) -> None:
    recipe = evaluation(runs, tiny_model_folder)
    rows = evaluate(recipe)
    assert [row.method for row in rows] == ["Directly answering", "Vanilla CoT", "TALE-EP", "sft", "dpo"]
    folder = runs / "eval"
    replies = lines(folder / "replies.jsonl")
    by_method = {row.method: [r for r in replies if r["method"] == row.method] for row in rows}
    for row in rows:
        counted = [r["tokens"] + r["estimator_tokens"] for r in by_method[row.method]]
        assert row.output_tokens == sum(counted) / 3
    prompts = {method: [r["prompt"] for r in by_method[method]] for method in ("Vanilla CoT", "sft", "dpo")}
    assert prompts["sft"] == prompts["dpo"] == prompts["Vanilla CoT"]
    texts = [tuple(r["text"] for r in by_method[method]) for method in prompts]
    assert len(set(texts)) == 3  # both adapters were on
    assert len(list(folder.glob("journal*.jsonl"))) == 3

    kept = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in (".jsonl", ".csv", ".json")}
    request.getfixturevalue("no_generation")
    assert evaluate(recipe) == rows
    assert {name: (folder / name).read_bytes() for name in kept} == kept


def test_the_report_counts_what_was_generated_and_trained_on(runs: Path, tiny_model_folder: Path) -> None:
    """The tiny recipes train for 2 epochs; what a micro-batch's prompts begin with is read once."""
    evaluate(evaluation(runs, tiny_model_folder, f"output={runs / 'reported'}"))
    names = ("search", "sft", "dpo", "reported")
    given = [f"runs=[{','.join(str(runs / name) for name in names)}]", f"output={runs / 'report'}"]
    report(load(ReportRecipe, given))
    with (runs / "report" / "ledger.csv").open(newline="", encoding="utf-8") as file:
        ledger = {(Path(row["run"]).name, row["what"]): row for row in csv.DictReader(file)}
    for objective in ("sft", "dpo"):
        recipe = load(TrainRecipe, [f"recipe={runs / objective / 'recipe.yaml'}"])
        data = TaleDataModule(recipe, resolve(recipe.model).chat())
        data.setup()
        read = {e.id: len(e.prompt) + sum(len(answer) - 1 for answer in e.answers) for e in data.train}
        prompts = {e.id: e.prompt for e in data.train}
        batches = [batch.ids for step in data.train_dataloader() for batch in step]
        columns = [[len(set(column)) for column in zip(*(prompts[i] for i in ids), strict=False)] for ids in batches]
        shared = [[*of, 0].index(next((n for n in of if n > 1), 0)) for of in columns]
        again = sum((len(ids) - 1) * of for ids, of in zip(batches, shared, strict=True))
        trained = 2 * sum(read.values()) - again
        assert int(ledger[objective, f"training, {objective.upper()}"]["trained"]) == trained
    base = lines(runs / "reported" / "journal.jsonl")[1:]
    adapted = [lines(file)[1:] for file in (runs / "reported").glob("journal-*.jsonl")]
    calls = [*base, *adapted[0], *adapted[1]]
    row = ledger["reported", "evaluation"]
    assert int(row["calls"]) == len(calls)
    assert int(row["tokens_out"]) == sum(call["tokens"] for call in calls)
    assert float(row["seconds"]) == pytest.approx(sum(call["seconds"] for call in calls))
    seconds = sorted(float(ledger["reported", name]["seconds"]) for name in ("sft", "dpo"))
    assert seconds == pytest.approx(sorted(sum(call["seconds"] for call in journal) for journal in adapted))


def test_questions_that_were_trained_on_are_refused(runs: Path, tiny_model_folder: Path) -> None:
    with pytest.raises(UserError, match="of these questions were trained on"):
        evaluate(evaluation(runs, tiny_model_folder, "task.split=train", f"output={runs / 'none'}"))
    assert not (runs / "none").exists()


def test_a_merged_model_answers_as_its_adapter(
    runs: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = f"adapter={runs / 'sft' / 'adapter'}"
    merged = merge(load(MergeRecipe, [adapter, f"output={runs / 'merged'}"]))
    given = ["recipe=tiny/eval", "task.limit=3", "methods=[{kind: vanilla}]"]
    (plain,) = evaluate(
        load(EvaluateRecipe, [*given, f"model.name_or_path={merged}", f"output={runs / 'eval_merged'}"])
    )
    methods = f"methods=[{{kind: vanilla, adapter: {runs / 'sft' / 'adapter'}}}]"
    on_top = [*given[:2], methods, f"model.name_or_path={tiny_model_folder}", f"output={runs / 'eval_sft'}"]
    (adapted,) = evaluate(load(EvaluateRecipe, on_top))
    assert (plain.method, adapted.method) == ("Vanilla CoT", "sft")
    texts = [[r["text"] for r in lines(runs / name / "replies.jsonl")] for name in ("eval_merged", "eval_sft")]
    assert texts[0] == texts[1]

    (question,) = load_benchmark("problems", None, "test", 1, 0)
    capsys.readouterr()
    ask(load(AskRecipe, [adapter, f"question={question.text}", "sampling.max_tokens=16"]))
    vanilla, trained = capsys.readouterr().out.split("── ")[1:]
    assert vanilla.startswith("vanilla CoT: ")
    assert trained.startswith(f"{runs / 'sft' / 'adapter'}: ")
    first = lines(runs / "eval_sft" / "replies.jsonl")[0]
    assert first["prompt"].startswith(f"Q: {question.text}\n")
    assert first["text"] in trained
    assert f"{first['tokens']} tokens" in trained


def test_a_search_keeps_every_question_and_resumes(
    tiny_model_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A random model's: each question with its reason; the second run answers from the journal."""
    given = ["recipe=tiny/search", f"model.name_or_path={tiny_model_folder}", f"output={tmp_path}", "task.limit=3"]
    tokenizer_hash = resolve(ModelConfig(str(tiny_model_folder))).chat().fingerprint
    file = run_search(load(SearchRecipe, given))
    first = file.read_bytes()
    assert [r.reason for r in read_records(file)] == ["vanilla answer cut off"] * 3
    header, *completions = lines(tmp_path / "journal.jsonl")
    assert header["name"] == "tiny-llama"
    assert {r.tokenizer_hash for r in read_records(file)} == {header["tokenizer_hash"]} == {tokenizer_hash}
    assert {line["tokens"] for line in completions} == {16}
    request.getfixturevalue("no_generation")
    run_search(load(SearchRecipe, given))
    assert file.read_bytes() == first
    with pytest.raises(UserError, match=r"no example to train on; .*'vanilla answer cut off': 3"):
        train(load(TrainRecipe, ["recipe=tiny/sft", given[1], f"data.records=[{file}]", f"output={tmp_path / 'sft'}"]))


def test_a_dry_run_counts_what_a_search_takes_writing_nothing(tiny_model_folder, tmp_path, capsys) -> None:
    """8 questions; halving from 128 tokens asks 7 budgets; the tiny tokenizer's tokens are bytes."""
    given = ["recipe=tiny/search", f"model.name_or_path={tiny_model_folder}", f"output={tmp_path / 'search'}"]
    assert run_search(load(SearchRecipe, [*given, "sampling.max_tokens=128", "dry_run=true"])) is None
    said = capsys.readouterr().out
    assert f"at most {QUESTIONS} questions × 1 samples × (vanilla + 7 budgets) = 64 calls" in said
    assert "8,192 output tokens" in said
    run_search(load(SearchRecipe, [*given, "sampling.max_tokens=128", "dry_run=true", "confirm_samples=2"]))
    assert "samples × (vanilla + 7 budgets) + 2 again = 80 calls, 10,240 output tokens" in capsys.readouterr().out
    assert not (tmp_path / "search").exists()
