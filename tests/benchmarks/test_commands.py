"""Every benchmark from its command line to its figures, in this process, on tiny models; peers where installed."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
from transformers import PreTrainedTokenizerFast

from tale.config.recipes import load, to_yaml
from tale.config.training import TrainRecipe
from tale.data import prompts
from tale.data.records import write_records
from tale.errors import UserError
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import Reply
from tale.evaluation.run import evaluate
from tale.models import architectures
from tale.runs.run import finish_run, start_run
from tale.storage.files import write_jsonl_atomic
from tale.tasks.selection import select_questions
from tale.training.run import train
from tests import ROOT, fake_endpoint
from tests.conftest import free_port
from tests.factories import pairs
from tests.scripts import benchmark, run_script
from tests.tiny_llama import saved, tiny_llama

SHARED = ("compare_checkouts", "planner_error", "search_scale", "strategy_pairs", "training_steps", "trl_steps")
compare_checkouts, planner_error, search_scale, strategy_pairs, training_steps, trl_steps = map(benchmark, SHARED)
gpu_proof, gpu_models = benchmark("gpu_proof"), benchmark("gpu_models")
gpu_attention, gpu_training = benchmark("gpu_attention"), benchmark("gpu_training")
FILES = {file.stem: file for file in sorted((ROOT / "benchmarks").glob("*.py"))}
COMMANDS = {name for name, file in FILES.items() if "__main__" in file.read_text()}
Run = Callable[..., str]


def test_every_benchmark_is_run_here() -> None:
    """And every other file of the folder is part of one."""
    assert set(re.findall(r'\brun\(\s*"(\w+)"', Path(__file__).read_text())) == COMMANDS
    assert FILES.keys() - COMMANDS == set().union(*map(imported, FILES.values())) - COMMANDS


def imported(file: Path) -> set[str]:
    """The files beside it that a file imports."""
    modules = {node.module for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)}
    return modules & FILES.keys()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_is_the_head_of_the_file(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", [str(FILES[name]), "--help"])
    head = run_script(sys.argv[0])["__doc__"]
    assert capsys.readouterr().out.strip() == head.strip()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Run:
    """Runs a benchmark with the words of a command line, in a folder of its own; what it printed.

    What it starts as `python <file> …` runs in this process, and memory is not limited.
    """
    other = subprocess.run

    def in_process(command: list[str], **options: Any) -> subprocess.CompletedProcess:
        if command[0] != sys.executable or Path(command[1]) not in FILES.values():
            return other(command, **options)
        with redirect_stdout(StringIO()) as output, monkeypatch.context() as patched:
            patched.setattr(sys, "argv", command[1:])
            run_script(command[1])
        text = output.getvalue()
        return subprocess.CompletedProcess(command, 0, text if options.get("text") else text.encode())

    def run(name: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(FILES[name]), *words])
        benchmark(name).main()
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", in_process)
    monkeypatch.setattr(training_steps, "limit_memory", lambda: None)
    return run


def figures(name: str) -> dict[str, Any]:
    """What a benchmark has written."""
    return json.loads(Path(f"runs/benchmarks/{name}.json").read_text())


@pytest.fixture
def model(tiny_model_folder: Path) -> list[str]:
    """A recipe's words for the tiny model."""
    return [
        f"model.name_or_path={tiny_model_folder}",
        "model.name=tiny-llama",
        "model.merge_adapter=null",
        "model.dtype=float32",
    ]


@pytest.fixture
def asked(model: list[str], tmp_path: Path) -> list[str]:
    """A recipe's words for 3 questions to the tiny model."""
    rows = [{"question": f"Story {i}: a fox has {i} cubs. How many?", "answer": i} for i in range(20)]
    write_jsonl_atomic(tmp_path / "dev.jsonl", rows)
    data = ["task.name=gsm8k_zero", f"task.path={tmp_path}/dev.jsonl", "task.limit=3"]
    return [*model, *data, "engine.batch_size=2", "sampling.max_tokens=12"]


@pytest.fixture
def trained(model: list[str], tmp_path: Path) -> list[str]:
    """A recipe's words for training the tiny model on 6 records."""
    write_records(tmp_path / "records.jsonl", pairs(6))
    return [*model, f"data.records=[{tmp_path}/records.jsonl]", "train.global_batch_size=4", "train.micro_batch_size=2"]


# --- Generation and search ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["none", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_generation_speed_counts_equal_answers(
    run: Run,
    asked: list[str],
    peer: str,
    monkeypatch: pytest.MonkeyPatch,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if peer == "vllm":
        pytest.importorskip("vllm", reason="vLLM is in the environment that `make vllm` makes")
        wide = tiny_llama(hidden_size=128, head_dim=64)  # the least that vLLM takes on a CPU
        asked = [*asked, f"model.name_or_path={saved(wide, tiny_tokenizer, tmp_path_factory)}"]
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    run("generation_speed", *asked)
    found, others = figures("generation_speed"), {"plain", *{peer} - {"none"}}
    assert {key: found[key] for key in ("prompts", "batch size", "limit")} == {
        "prompts": 3,
        "batch size": 2,
        "limit": 12,
    }
    assert {found[f"answers equal to {other}'s"] for other in others} == {3}
    assert all(found[f"{engine}: output tokens a second"] > 0 for engine in {"tale", *others})


def test_strategies_generate_what_they_are_measured_by(run: Run, asked: list[str]) -> None:
    """Greedily the tiny model never ends: 6 chains of 12 tokens, in steps of 5, 5 and 2 with forced answers of 8."""
    run("strategy_speed", "chains=2", "rounds=2", "steps=5,12", *asked, "sampling.temperature=0")
    found = figures("strategy_speed")
    made = {"plain": (6, 72), "step 5": (36, 216), "step 12": (12, 120), "sequential": (6, 72)}
    for name, calls_and_tokens in made.items():
        assert [(of["calls"], of["tokens"]) for of in found[name]] == [calls_and_tokens] * 2
    assert found["step 5"][0]["of these cached"] > found["step 12"][0]["of these cached"] > 0
    assert all(found[f"{name} / plain, wall seconds"]["least"] > 0 for name in made.keys() - {"plain"})


def test_pairs_of_strategies_differ_as_the_table_has_it(run: Run, asked: list[str], tmp_path: Path) -> None:
    """A question's first sample is wrong, the next two are right: within B = 12 one has room, within 36 all three."""
    samples: Counter[str] = Counter()

    def script(call: dict, _: int) -> fake_endpoint.Reply:
        prompt = call["messages"][0]["content"]
        samples[prompt] += 1
        count = prompt.split("a fox has ")[1].split()[0]
        return fake_endpoint.answer(f"[[{count if samples[prompt] > 1 else -1}]]", usage=fake_endpoint.used(20, 10))

    methods = "methods=[{kind: single}, {kind: self_consistency, max_samples: 3}]"
    words = ["recipe=tiny/eval", *asked, methods, "budgets=[12,36]", "sampling.temperature=0.7", "engine.kind=openai"]
    with fake_endpoint.FakeEndpoint(script) as server:
        evaluate(load(EvaluateRecipe, [*words, f"engine.endpoint.base_url={server.url}", f"output={tmp_path}/run"]))
    table = json.loads((tmp_path / "run" / "strategies.json").read_text())
    run("strategy_pairs", f"run={tmp_path}/run", "strategy=Single chain")
    found = {row["strategy"]: row for row in figures("strategy_pairs")["rows"]}
    assert list(found) == ["Single chain, while it runs", "Self-consistency", "Self-consistency, while it runs"]
    for name in list(found)[1:]:
        assert [found[name][key] for key in ("B = 12", "B = 36", "mean")] == [0, 1, 0.5]
    for row in table[2:]:
        for end in ("", "_low", "_high"):
            assert found["Self-consistency"][f"B = {row['total_budget']:.0f}{end}"] == row[f"single_difference{end}"]


def test_differences_of_strategies_over_budgets_by_hand() -> None:
    """By one question of two at B = 20 alone: 0.25 on average, and (0 / 10 + 0.5 / 10) / 2 a token."""
    row = strategy_pairs.beside(numpy.array([[0.0, 1], [1, 1]]), numpy.array([[0.0, 0], [1, 1]]), [10, 20])
    assert [row[name] for name in ("B = 10", "B = 20", "mean", "gain")] == [0, 0.5, 0.25, 2.5]


def test_search_speed_finds_the_same_records_both_ways(run: Run, asked: list[str]) -> None:
    run("search_speed", "alone=2", *asked)
    found = figures("search_speed")
    assert found["questions: batched, one by one"] == [3, 2]
    assert (found["records equal"], found["same budget"]) == (2, 2)
    inside = found["one by one: output tokens a second inside generate alone"]
    assert inside >= found["one by one: output tokens a second"] > 0


def test_search_scale_has_a_row_for_each_size(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_scale, "SIZES", ((3, 20), (5, 20)))
    headings, *lines = run("search_scale", "call=0.5").splitlines()
    rows = figures("search_scale")["rows"]
    assert headings.split(" | ") == list(rows[0])
    assert [line.split(" | ")[0].strip() for line in lines] == ["3", "5"]
    assert [row["tokens an answer"] for row in rows] == [20, 20]
    assert all(row["calls"] >= row["questions"] and row["ms a call"] > 0 for row in rows)


# What official_search.py uses of a checkout, in the same form; every question has its vanilla answer for a budget.
CHECKOUT = """
import json
import tiktoken
from llm_datasets import *
from llm_models import LLMModel

gsm8k_prompts = {"reasoning": [{"prompt": "Think about: {question}"}]}

class AccEvaluator:
    def evaluate_sample(self, sample):
        return sample["question"].startswith("Think about: Story")

def token_measure(text):
    return len(tiktoken.encoding_for_model("gpt-4").encode(text))

def search_budget(sample, budget, model, evaluator):
    (answer,) = model.query([{"prompt": sample["question"] + f" ({budget})"}])[0]
    return {"question_budget": budget, "answer": answer}, [budget]

def save_to_jsonl(rows, file):
    with open(file, "w") as opened:
        opened.writelines(json.dumps(row) + "\\n" for row in rows)
"""


@pytest.mark.parametrize("peer", ["none", "official"])
def test_official_search_asks_the_same_questions_twice(
    run: Run, asked: list[str], peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = Path(os.environ.get("TALE_CHECKOUT", ROOT.parent / "TALE")) if peer == "official" else tmp_path
    if peer == "none":
        (tmp_path / "search_budget.py").write_text(CHECKOUT)
    elif not (checkout / "search_budget.py").is_file():
        pytest.skip(f"no checkout of the official code at {checkout}; set TALE_CHECKOUT to its folder")
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("tiktoken", "llm_models", "llm_datasets", "search_budget"):  # which are forgotten at the end
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    del sys.modules["search_budget"]
    run("official_search", f"checkout={checkout}", *asked)
    found = figures("official_search")
    assert found["questions"] == 3
    assert found["one by one: calls, output tokens"][0] >= 3
    assert found["official loop: output tokens a second"] > 0
    if peer == "none":
        assert found["official loop: calls, output tokens"] == [6, 6 * 12]
        assert found["official loop: with a budget"] == 3


# What strategy_reference.py uses of a checkout, by another form of the same probability.
CRITERION = """
from collections import Counter
from math import comb

class BetaStoppingCriteria:
    pass

class AC:
    def __init__(self, max_gens, stop_criteria):
        assert (max_gens, stop_criteria) == (40, BetaStoppingCriteria)

    def should_stop(self, answers, return_dict):
        (most_common, a), (_, b) = (*Counter(answers).most_common(2), (None, 0))[:2]
        prob = sum(comb(a + b + 1, k) for k in range(b + 1, a + b + 2)) / 2 ** (a + b + 1)
        return {"most_common": most_common, "prob": prob, "stop": prob >= 0.95}
"""


@pytest.mark.parametrize("peer", ["none", "official"])
def test_strategy_reference_stops_where_the_authors_code_does(
    run: Run, peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = Path(os.environ.get("AC_CHECKOUT", ROOT.parent / "AdaptiveConsistency"))
    if peer == "none":
        checkout = tmp_path / "checkout"
        (checkout / "adaptive_consistency").mkdir(parents=True)
        (checkout / "adaptive_consistency" / "__init__.py").write_text(CRITERION)
    elif not (checkout / "adaptive_consistency").is_dir():
        pytest.skip(f"no checkout of AdaptiveConsistency at {checkout}; set AC_CHECKOUT to its folder")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "adaptive_consistency", ModuleType("forgotten at the end"))
    del sys.modules["adaptive_consistency"]
    run("strategy_reference", f"checkout={checkout}", "questions=20")
    found = figures("strategy_reference")
    assert (found["questions"], found["stopped after as many answers"]) == (20, 20)
    assert found["of them with the same majority"] == found["stopped before the last answer"] > 0
    assert found["largest difference of probability"] < 1e-6


# --- Training -------------------------------------------------------------------------------------------------------


def own_steps(*given: Any, **_: Any) -> Iterator[dict[str, float]]:
    """This code's steps in place of TRL's, with what TRL's tell."""
    for step in training_steps.ours(*given):
        yield {"seconds": step["seconds"], "loss": step["loss"]}


@pytest.mark.parametrize("peer", ["none", "trl"])
def test_training_speed_has_the_same_losses_on_both_sides(
    run: Run, trained: list[str], peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if peer == "trl":
        pytest.importorskip("trl", reason="pip install -e '.[peers]' brings TRL")
    else:
        monkeypatch.setattr(trl_steps, "theirs", own_steps)
    run("training_speed", "rounds=1", "steps=1", "sizes=2", *trained)
    found = figures("training_speed")
    for case in ("sft", "dpo", "dpo_reference"):
        for side in ("tale", "trl"):
            rate, seconds = found[case]["examples a second"][side], found[case]["seconds a step"][side]
            assert rate * seconds == pytest.approx(4, rel=0.2)  # train.global_batch_size
        assert len(found[case]["losses"]["tale"]) == 2
        assert 0 < found[case]["share of the measured peak"] < 2
    assert "2 without padding" in found["sft"]["micro-batches"]["trl: seconds a step, peak GB"]
    differences = [found[case]["largest difference of losses"] for case in ("sft", "dpo_reference")]
    assert differences == pytest.approx([0, 0], abs=1e-4 if peer == "none" else 0.01)
    assert Path("runs/benchmarks/training_speed.png").read_bytes().startswith(b"\x89PNG")


def test_a_profile_has_shares_that_sum_to_one(run: Run, trained: list[str]) -> None:
    run("training_speed", "profile=true", "cases=sft", *trained)
    shares = figures("training_profile")["sft"]
    assert sum(shares.values()) == pytest.approx(1, abs=0.005)
    assert shares["matrix products"] > 0


def test_the_training_ablations_end_in_their_table(run: Run, trained: list[str]) -> None:
    chosen = ["rounds=1", "steps=1", "cases=dpo", "variants=whole_head,padded,unshared"]
    assert "padded" in run("training_ablations", *chosen, *trained)
    rows = figures("training_ablations")["dpo"]
    assert rows.keys() == {"as_it_is", "whole_head", "padded", "unshared"}
    assert all(row["largest difference of margin"] < 0.01 for row in rows.values())


def test_step_memory_sets_a_step_beside_its_plan(run: Run, wide_model_folder: Path) -> None:
    batch = ["data.max_length=64", "train.global_batch_size=3", "train.micro_batch_size=1", "fabric.accelerator=cpu"]
    model = [f"model.name_or_path={wide_model_folder}", "model.quantization=nf4", "layers=1"]
    run("step_memory", "recipe=dpo_llama8b", *model, *batch)
    found = figures("step_memory_dpo")
    assert found["micro-batches"] == 3
    assert found["gradient norm"] > 0
    assert sum(found["the plan's parts, GB"].values()) == pytest.approx(found["plan, GB"], abs=0.01)
    assert found["error of the plan, %"] == pytest.approx(100 * (found["plan, GB"] / found["peak, GB"] - 1), abs=0.5)


def test_step_memory_samples_a_groups_answers(run: Run, wide_model_folder: Path) -> None:
    batch = ["data.max_length=48", "grpo.max_completion_length=16", "grpo.num_generations=4", "fabric.accelerator=cpu"]
    model = [f"model.name_or_path={wide_model_folder}", "layers=1", "train.global_batch_size=4"]
    run("step_memory", "recipe=grpo_llama8b", *model, *batch)
    found = figures("step_memory_grpo")
    assert found["gradient norm"] > 0
    assert "rollout" in found["the plan's parts, GB"]
    assert found["of these sampling the last step's answers"] > 0


def test_grpo_length_says_how_far_off_lengths_are(run: Run) -> None:
    """Of two steps of a random model, whose answers have at most 40 tokens for 20."""
    run("grpo_length", "train.max_steps=2", "train.global_batch_size=16")
    found = figures("grpo_length")
    assert 0 < found["of the last 10 steps"] <= 20
    assert found["mean absolute error, tokens, every 10 steps"] == [found["of the last 10 steps"]]


def test_the_control_of_grpo_length_trains_but_does_not_sample(run: Run) -> None:
    """Its gradient is not 0, though what it samples is the base's."""
    run("grpo_length", "adapter=false", "train.max_steps=1", "train.global_batch_size=16")
    assert figures("grpo_length_without_adapter")["largest gradient norm"] > 0


def test_grpo_speed_measures_both_sides(run: Run, tiny_model_folder: Path) -> None:
    pytest.importorskip("trl")
    model = ["recipe=tiny/grpo", f"model={{name_or_path: {tiny_model_folder}, name: tiny-llama, dtype: float32}}"]
    run("grpo_speed", *model, "rounds=1", "steps=1", "sizes=8", "grpo.max_completion_length=4", "train.seed=1")
    found = figures("grpo_speed")
    assert found["times faster"] == pytest.approx(
        found["steps an hour"]["tale"] / found["steps an hour"]["trl"], rel=0.1
    )
    assert found["sampled tokens a step"] == {"tale": 32, "trl": pytest.approx(32, abs=12)}  # 8 answers of 4


def test_planner_error_has_a_row_for_each_objective(
    run: Run, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "CONFIGS", tiny_model_folder.parent)
    monkeypatch.setattr(planner_error, "MODELS", {"tiny": ("tiny-llama", (64,))})
    lines = run("planner_error", "model=tiny").splitlines()
    rows = figures("planner_error")["rows"]
    assert [(row["model"], row["objective"], row["tokens"]) for row in rows] == [
        ("tiny-llama", "sft", 64),
        ("tiny-llama", "dpo", 64),
    ]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    shown = [[value for key, value in row.items() if not key.startswith("details")] for row in rows]
    assert [row[:2] for row in cells] == [row[:2] for row in shown]
    assert [[float(cell.replace("−", "-")) for cell in row[2:]] for row in cells] == [row[2:] for row in shown]


def test_architectures_are_right_or_refused(run: Run) -> None:
    rows = [line.split(" | ") for line in run("architectures", "only=llama,falcon").splitlines()[2:]]
    assert [row[0] for row in rows] == ["| falcon", "| llama"]
    assert rows[0][1].startswith("refused: falcon is not known to training")
    assert rows[1][1].startswith("right: ")
    assert [row[2] for row in rows] == ["right |", "right |"]


# --- A GPU ----------------------------------------------------------------------------------------------------------


def test_gpu_proof_runs_each_case_or_says_why_not(
    run: Run, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, in this process: a kill is an exit, and what a process group writes to the environment is forgotten."""

    def in_this_process(function: Callable[..., Any], *arguments: Any) -> int:
        with monkeypatch.context() as patched:
            patched.setattr(os, "kill", lambda _, signal: sys.exit(-signal))
            with pytest.raises(SystemExit) as ended:
                function(*arguments)
        return ended.value.code

    monkeypatch.setattr(gpu_training, "in_another_process", in_this_process)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    parts = "engine,search,strategies,resume"  # cases of the others are in the next tests
    run("gpu_proof", "size=tiny", f"parts={parts}", f"model={tiny_model_folder}", "budget_s=1000")
    found = json.loads(Path("runs/gpu_proof/results.json").read_text())["parts"]
    assert {part["state"] for part in found.values()} == {"done"}
    cases = {f"{name}: {case['case']}": case for name, part in found.items() for case in part["cases"]}
    assert {name for name, case in cases.items() if "skipped" in case} == {"engine: static cache, batch 4"}
    assert [cases[f"strategies: {name}"]["a loss differs by"] for name in ("ddp", "fsdp2")] == [0, 0]
    assert cases["resume: killed and resumed"]["resumed: an adapter differs by"] == 0
    assert cases["search: 2 questions in float32"]["records equal"] == 2


def test_gpu_proof_trains_in_4_bits() -> None:
    """The loss is about that of the same random weights in bfloat16."""
    size = gpu_models.SIZES["tiny"]
    cases = dict(gpu_training.qlora(size))
    with pytest.raises(UserError, match="needs a CUDA device"):
        cases["sft, nf4, paged AdamW"]()
    found = cases["sft, nf4"]()
    assert found["losses"] == pytest.approx(dict(gpu_training.bf16(size))["sft"]()["losses"], rel=0.05)
    assert 0 < found["plan, GB"] < 0.01


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_a_packed_step_in_float32_is_single_sequences(objective: str) -> None:
    """The proof's comparison, where nothing is rounded."""
    exact = "model.dtype=float32", "fabric.precision=32-true"
    found = gpu_attention.compared(gpu_models.SIZES["tiny"], objective, *exact)
    differences = [found[f"packed: {of} differs by"] for of in ("loss", "a gradient")]
    assert differences == pytest.approx([0, 0], abs=1e-5)


def test_kernels_are_compared_where_they_run() -> None:
    """On a CPU one of them, in bfloat16, whose steps are 2 ** -8 of a number."""
    cases = dict(gpu_attention.attention_cases(gpu_models.SIZES["tiny"]))
    assert 0 < cases["one by one"]()["output and gradients differ by"] < 0.02
    for name in ("varlen_attn", "flex_attention"):
        with pytest.raises(UserError, match=f"{name} needs a GPU"):
            cases[name]()


def test_a_part_that_is_stopped_keeps_its_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cases are done, a third is half written; a part without time is not begun."""

    def stopped(command: list[str], timeout: float, **_: object) -> None:
        Path(command[-1]).write_text('{"case": "a", "ms": 1.23456}\n{"case": "b", "skipped": "no GPU"}\n{"case": "c')
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", stopped)
    part = gpu_proof.run_part("bf16", "tiny", "", 30)
    assert (part["state"], [case["case"] for case in part["cases"]]) == ("stopped after 30 s", ["a", "b"])
    assert gpu_proof.run_part("bf16", "tiny", "", 1) == {"state": "skipped: the time is used up", "cases": []}
    shown = {"device": "GPU", "date": "today", "commit": "c", "size": "gpu", "versions": {}, "parts": {"bf16": part}}
    assert gpu_proof.markdown(shown).splitlines()[-4:] == [
        "| case | ms | skipped |",
        "| --- | --- | --- |",
        "| a | 1.235 |  |",
        "| b |  | no GPU |",
    ]


# --- The official code's errors, and damaged files ------------------------------------------------------------------


def test_errors_of_counting_and_grading_are_recounted_by_hand(run: Run, model: list[str], tmp_path: Path) -> None:
    """Of 4 questions 2 are right, in 100 tokens; a gold's digits alone make the first wrong and the last right."""
    written = [
        ("12.5", "[[12.5]]", True, 10),
        ("50", "[[7]]", False, 30),
        ("3", "[[3]]", True, 20),
        ("12.25", "12", False, 40),
    ]
    rows = [{"question": f"Story {i}: how many?", "answer": float(gold)} for i, (gold, *_) in enumerate(written)]
    write_jsonl_atomic(tmp_path / "dev.jsonl", rows)
    data = ["task.name=gsm8k_zero", f"task.path={tmp_path}/dev.jsonl", "task.limit=null"]
    recipe = load(EvaluateRecipe, ["recipe=tiny/eval", *model, *data, "output=eval"])
    questions, _ = select_questions(recipe.task)
    start_run(recipe, None, ["replies.jsonl"], base={"name": "tiny-llama", "weights": "01"}, questions={"asked": 4})
    replies = [
        Reply("v", q.id, prompts.vanilla(q), text, right, None, "number", "stop", tokens, 90)
        for q, (_, text, right, tokens) in zip(questions, written, strict=True)
    ]
    write_jsonl_atomic(tmp_path / "eval" / "replies.jsonl", [reply.line for reply in replies])
    finish_run(tmp_path / "eval")
    run("official_errors", "run=eval")
    found = figures("official_errors_3_6_7")
    assert found["methods"]["v"] == {
        "questions": 4,
        "right": 2,
        "mean tokens": 25,
        "3: mean tokens": 50,
        "6: golds cut short": 2,
        "6": {"right": 2, "made right": 1, "made wrong": 1},
        "7": {"right": 3, "made right": 1, "made wrong": 0},  # [[50]] stands in every prompt, as the format's example
    }
    write_jsonl_atomic(tmp_path / "eval" / "replies.jsonl", [replace(reply, correct=None).line for reply in replies])
    finish_run(tmp_path / "eval")
    with pytest.raises(UserError, match="open-ended"):
        run("official_errors", "run=eval")


def test_error_1_trains_another_adapter_and_evaluates_both(run: Run, asked: list[str], trained: list[str]) -> None:
    sft = load(TrainRecipe, ["recipe=tiny/sft", "output=runs/sft", "train.epochs=1", *trained])
    train(sft)
    Path("mine.yaml").write_text(to_yaml(sft))
    run("official_errors", "error=1", "sft=mine.yaml", "padding=300", "recipe=tiny/eval", *asked)
    found = figures("official_errors_1")
    assert found.pop("padding") == 300
    assert Path("runs/benchmarks/official_sft/adapter/adapter_model.safetensors").is_file()
    methods = ("Vanilla CoT", "SFT", "SFT as in the official code")
    assert [found[method]["questions"] for method in methods] == [3, 3, 3]


def test_error_4_decodes_the_same_questions_another_way(run: Run, asked: list[str]) -> None:
    run("official_errors", "error=4", "recipe=tiny/eval", *asked)
    found = figures("official_errors_4")
    assert (found["method"], found["questions"], found["mean tokens"]) == ("Vanilla CoT", 3, 12)
    assert found["4: mean tokens"] <= 12


def test_fuzz_readers_has_a_line_for_each_kind_of_file(run: Run) -> None:
    lines = [line.split() for line in run("fuzz_readers", "count=1", "seed=1").splitlines()]
    assert {"records", "replies", "journal", "run.json", "card", "recipe"} < {line[0] for line in lines}
    assert {tuple(line[1:3]) for line in lines} == {("1", "inputs")}


# --- An endpoint ----------------------------------------------------------------------------------------------------


def test_the_calls_in_flight_are_those_of_the_search(run: Run) -> None:
    """Twice the same checkout makes the same calls; no more of them are in flight than may be."""
    run("endpoint_calls", f"before={ROOT}", f"after={ROOT}", "questions=6", "concurrency=3", "slow=0.1")
    found = figures("endpoint_calls")
    assert found["before"]["calls"] == found["after"]["calls"] > 6
    assert 0 < found["after"]["mean in flight"] <= 3
    assert Path("runs/benchmarks/endpoint_calls.png").stat().st_size > 10_000


def test_serving_adds_a_time_to_the_direct_one(run: Run) -> None:
    """Through the proxy's own command, to the last idle stream."""
    run("serve_overhead", "streams=2", "requests=2", "rounds=1", "events=2", "rate=100", "idle=3")
    found = figures("serve_overhead")
    times = found["to the first event, ms"]["2 streams"]
    for at in (0, 1):
        assert times["added by tale"][at] == pytest.approx(times["tale"][at] - times["direct"][at], abs=0.02)
    assert found["memory, MB"]["tale"]["streams"] == 3
    assert 0 < found["memory, MB"]["tale"]["before"] <= found["memory, MB"]["tale"]["with idle streams"]


def test_questions_through_the_proxy_are_those_of_tale_ep(run: Run, asked: list[str]) -> None:
    """Equal prompts and answers: 3 questions, estimates of 40 tokens in 5, answers that the prompt alone decides."""
    answer, used = fake_endpoint.answer, fake_endpoint.used

    def script(call: dict, _: int) -> fake_endpoint.Reply:
        prompt = call["messages"][0]["content"]
        if "estimate the minimum" in prompt:
            return answer("Budget: [[40]]", usage=used(50, 5))
        count = prompt.split("a fox has ")[1].split()[0]
        return answer(f"{prompt[-30:]} so [[{count}]]", usage=used(20, 6 if "less than 40" in prompt else 11))

    with fake_endpoint.FakeEndpoint(script) as server:
        words = [f"upstream={server.url}", f"port={free_port()}", "recipe=tiny/eval", *asked]
        run("serve_questions", *words, "sampling.max_tokens=64")
        sent = [call["messages"][0]["content"] for call in server.calls]
    found = figures("serve_questions")
    direct, stated = sent[:9], sent[9:15]
    assert sorted(stated) == sorted(prompt for prompt in direct if not prompt.endswith("step by step:\n"))
    assert found["vanilla CoT"] == {"accuracy": 100, "tokens": 11}
    same = {"accuracy": 100, "tokens": 11, "tokens saved, %": [0, 0, 0]}
    for name in ("TALE-EP", "proxy, stated", "proxy, enforced"):
        assert {key: found[name][key] for key in same} == same
    assert [found[f"proxy, {name}"]["answers equal to TALE-EP's"] for name in ("stated", "enforced")] == [3, 3]


# --- Two checkouts --------------------------------------------------------------------------------------------------


def test_a_checkout_equals_itself_and_a_changed_prompt_is_found(
    run: Run, tiny_model_folder: Path, trained: list[str], tmp_path: Path
) -> None:
    """Against itself, and against a copy with another estimator's prompt, which the records do not depend on."""
    other = tmp_path / "other"
    for name in ("tale", "scripts", "recipes"):
        shutil.copytree(ROOT / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    prompts = other / "tale" / "data" / "prompts.py"
    prompts.write_text(prompts.read_text().replace("Task: Analyze", "Task: analyze"))
    words = [f"model={tiny_model_folder}", "questions=2", f"records={tmp_path / 'records.jsonl'}", f"after={ROOT}"]
    with pytest.raises(SystemExit):
        run("compare_checkouts", f"before={other}", *words)
    different = {what: of["different"] for what, of in figures("compare_checkouts").items() if isinstance(of, dict)}
    assert different.pop("ids of prompts") == 50
    assert different.pop("replies") > 0  # TALE-EP's
    different.pop("summary")
    assert different == {"records": 0, "adapters, by their bytes": 0}
    script = compare_checkouts.python(ROOT, "scripts/search.py", "--help")
    assert "  full_answers " in script
