"""Recipes: every shipped one loads, every key is read and explained, and a wrong one is refused by name."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tale.analysis.estimators.recipe import EstimateRecipe
from tale.analysis.recipe import AnalyseRecipe
from tale.cli import keys
from tale.config import recipes
from tale.config.recipes import Recipe, load, recipe_names, to_yaml
from tale.config.sections import ContextSplit
from tale.config.training import Objective, TrainRecipe
from tale.errors import UserError
from tale.evaluation.ask import AskRecipe
from tale.evaluation.recipe import EvaluateRecipe
from tale.results.recipe import ReportRecipe
from tale.search.recipe import SearchRecipe
from tale.serve.recipe import ServeRecipe
from tale.solvers.registry import METHODS
from tale.training.merge import MergeRecipe
from tale.wordings.recipe import WordingsRecipe
from tests import ROOT
from tests.scripts import run_script

KINDS = {"search": SearchRecipe, "sft": TrainRecipe, "dpo": TrainRecipe, "grpo": TrainRecipe, "eval": EvaluateRecipe}
KINDS |= {"wordings": WordingsRecipe, "strategies": EvaluateRecipe, "serve": ServeRecipe}
SCRIPTS = {
    "search": SearchRecipe,
    "train": TrainRecipe,
    "evaluate": EvaluateRecipe,
    "wordings": WordingsRecipe,
    "analyse": AnalyseRecipe,
    "estimate": EstimateRecipe,
    "merge": MergeRecipe,
    "ask": AskRecipe,
    "report": ReportRecipe,
    "serve": ServeRecipe,
}


# Those that a command runs; the others are bases.
WHOLE = [name for name in recipe_names() if not name.startswith("paper/")]


def kind_of(name: str) -> type:
    return KINDS[name.rpartition("/")[2].partition("_")[0]]


def sections(kind: type) -> set[type]:
    """A recipe's dataclass with those nested in it."""
    hints = typing.get_type_hints(kind).values()
    nested = [typing.get_args(hint)[0] if typing.get_origin(hint) is list else hint for hint in hints]
    nested += [each for hint in nested for each in getattr(hint, "kinds", {}).values() if kind is EvaluateRecipe]
    return {kind}.union(*(sections(hint) for hint in nested if dataclasses.is_dataclass(hint)))


# --- Shipped recipes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
def test_a_shipped_recipe_loads_as_its_kind_and_no_other(name: str) -> None:
    kind = kind_of(name)
    assert isinstance(load(kind, [f"recipe={name}"]), kind)
    for other in {SearchRecipe, TrainRecipe, EvaluateRecipe} - {kind}:
        with pytest.raises(UserError, match=rf"{name}\.yaml: "):
            load(other, [f"recipe={name}"])


@pytest.mark.parametrize("name", WHOLE)
def test_a_resolved_recipe_is_a_recipe_that_gives_the_same(name: str, tmp_path: Path) -> None:
    recipe = load(kind_of(name), [f"recipe={name}"])
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(recipe))
    assert load(kind_of(name), [f"recipe={file}"]) == recipe


@pytest.mark.parametrize(
    ("name", "epochs", "lr", "weight_decay"), [("sft_llama8b", 3, 1e-4, 0.01), ("dpo_llama8b", 2, 3e-5, 0.001)]
)
def test_the_8b_recipes_have_the_papers_values(name: str, epochs: int, lr: float, weight_decay: float) -> None:
    """A.3."""
    recipe = load(TrainRecipe, [f"recipe={name}"])
    assert recipe.model.name_or_path == "meta-llama/Llama-3.1-8B-Instruct"
    assert (recipe.train.epochs, recipe.optimizer.lr, recipe.optimizer.weight_decay) == (epochs, lr, weight_decay)
    assert (recipe.lora.r, recipe.lora.lora_alpha, recipe.train.global_batch_size) == (8, 32, 16)
    assert recipe.lora.target_modules == ["q_proj", "v_proj"]
    assert (recipe.loss.reduction, recipe.loss.use_ref_model, recipe.loss.beta) == ("example", False, 1.0)
    assert not recipe.loss.length_normalized


@pytest.mark.parametrize("name", ["search_llama8b", "eval_llama8b"])
def test_the_8b_model_is_decoded_as_in_the_paper(name: str) -> None:
    """A.3: temperature 0.1, one path, seed 1024."""
    recipe = load(kind_of(name), [f"recipe={name}"])
    assert (recipe.sampling.temperature, recipe.sampling.seed) == (0.1, 1024)


# --- Keys -----------------------------------------------------------------------------------------------------------

# How the code names a section's instance, besides the section's own key.
ALIASES = {
    "ModelConfig": "config",
    "TaskConfig": "config",
    "EngineConfig": "config",
    "GRPOConfig": "config",
    "QuestionsConfig": "task",
    "FabricConfig": "config",
    "DevicesConfig": "config",
    "EndpointConfig": "config",
    "VllmConfig": "config",
    "LoraConfig": "config",
    "OptimizerConfig": "config",
    "TrainConfig": "t",
    **{each.__name__: "self|method|m" for method in METHODS.values() for each in method.__mro__},
}
SECTIONS = {each for section in set().union(*map(sections, SCRIPTS.values())) for each in section.__mro__}
FIELDS = [
    (section, item.name)
    for section in sorted(filter(dataclasses.is_dataclass, SECTIONS), key=lambda s: s.__name__)
    for item in dataclasses.fields(section)
    if item.name in section.__annotations__
]


@pytest.mark.parametrize(("section", "key"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_every_key_is_read_somewhere(section: type, key: str) -> None:
    names = section.__name__.removesuffix("Config").removesuffix("Recipe").lower()
    alias = ALIASES.get(section.__name__)
    read = re.compile(rf"\b(?:{names}|recipe|{names}s)\.{key}\b")
    aliased = re.compile(rf"\b(?:{alias})\.{key}\b") if alias else None
    files = [
        file for file in (ROOT / "tale").rglob("*.py") if file.parent.name != "config" and file.name != "recipe.py"
    ]
    texts = [file.read_text() for file in files]
    # An alias counts only where the section is mentioned: `config` is several sections' name.
    mentions = re.compile(rf"\b(?:{section.__name__}|recipe\.{names})\b")
    assert any(read.search(t) or (aliased and mentions.search(t) and aliased.search(t)) for t in texts)


def leaves(kind: type, prefix: str = "") -> list[tuple[str, typing.Any, dataclasses.Field]]:
    """Every dotted key with its type."""
    rows = []
    for item in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind)[item.name]
        if dataclasses.is_dataclass(hint):
            rows += leaves(hint, f"{prefix}{item.name}.")
            continue
        rows.append((prefix + item.name, hint, item))
        if typing.get_origin(hint) is list and dataclasses.is_dataclass(typing.get_args(hint)[0]):
            rows += leaves(typing.get_args(hint)[0], f"{prefix}{item.name}[i].")
    return rows


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_lists_the_recipes_and_every_key(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key with its type, default and meaning."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        run_script(ROOT / "scripts" / f"{script}.py")
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert f"python scripts/{script}.py" in out
    listed = next(line for line in out.splitlines() if line.startswith("recipes: "))
    fitting = [name for name in WHOLE if kind_of(name) is SCRIPTS[script]]
    of_adapter = ", the model is that of the adapter's own run" if script in ("merge", "ask") else ""
    assert listed.removeprefix("recipes: ") == (", ".join(fitting) or f"none is needed{of_adapter}")
    assert "tale." not in out.partition("keys (")[2]  # a type is known by its name, not by its module
    for key, hint, item in leaves(SCRIPTS[script]):
        line = next(line for line in out.splitlines() if line.split()[:1] == [key])
        assert item.metadata["help"] in line
        if isinstance(hint, type) and issubclass(hint, Enum):
            assert "|".join(hint.__members__) in line
        elif isinstance(hint, type):
            assert f" {hint.__name__} " in line
        default = item.default if item.default is not dataclasses.MISSING else item.default_factory()
        words = {"???": "required", "None": "null", "True": "true", "False": "false"}
        value = str(getattr(default, "value", default))
        shown = words.get(value, value)
        assert line.endswith(f"[{shown}]")


COMMANDS = [file for file in sorted((ROOT / "benchmarks").glob("*.py")) if "__main__" in file.read_text()]


@pytest.mark.parametrize("file", [*COMMANDS, ROOT / "scripts" / "demo.py"], ids=lambda file: file.stem)
def test_help_of_a_command_without_a_recipe_is_its_docstring(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(file), "--help"])
    head = run_script(file)["__doc__"]
    assert capsys.readouterr().out == f"{head.strip()}\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_arguments_a_script_prints_its_help_and_fails(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{script}.py"])
    with pytest.raises(SystemExit) as end:
        run_script(ROOT / "scripts" / f"{script}.py")
    assert end.value.code == 2
    assert "keys (override any with key=value):" in capsys.readouterr().out


# --- Overrides ------------------------------------------------------------------------------------------------------


def test_overrides_change_their_key_alone() -> None:
    recipe = load(
        TrainRecipe, ["recipe=sft_llama8b", "optimizer.lr=2e-5", "lora.target_modules=[q_proj]", "train.max_steps=7"]
    )
    plain = load(TrainRecipe, ["recipe=sft_llama8b"])
    assert (plain.optimizer.lr, plain.lora.target_modules, plain.train.max_steps) == (1e-4, ["q_proj", "v_proj"], None)
    plain.optimizer.lr, plain.lora.target_modules, plain.train.max_steps = 2e-5, ["q_proj"], 7
    assert recipe == plain


def test_enums_booleans_null_and_sections_can_be_overridden() -> None:
    recipe = load(
        TrainRecipe,
        ["recipe=tiny/sft", "objective=dpo", "loss.use_ref_model=true", "model.name=null", "optimizer={lr: 0.5}"],
    )
    assert (recipe.objective, recipe.loss.use_ref_model, recipe.model.name) == (Objective.dpo, True, None)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay) == (0.5, 0.01)
    search = load(SearchRecipe, ["recipe=tiny/search", "task.context_split=test", "task.limit=null"])
    assert (search.task.context_split, search.task.limit) == (ContextSplit.test, None)


def test_one_method_of_a_list_can_be_overridden() -> None:
    recipe = load(EvaluateRecipe, ["recipe=tiny/eval", "methods[3].budget_multiplier=2", "methods[0].label=plainly"])
    assert [m.kind for m in recipe.methods] == ["direct", "vanilla", "fixed_budget", "tale_ep"]
    assert recipe.methods[3].budget_multiplier == 2
    assert [m.label for m in recipe.methods] == ["plainly", None, None, None]


@pytest.mark.parametrize(
    "text",
    [
        "Tom: how many?",
        "What is 5 # 3?",
        "1, 2 [or] {3}?",
        "a = b",
        "- 3 + 4",
        "007",
        "1e3",
        "yes",
        "12:30",
        "${a.b} and ${oc.env:HOME}",
        r"\${x}",
        r"\\${",
        "http://host/?q=5",
    ],
)
def test_a_text_is_taken_as_it_stands(text: str, tmp_path: Path) -> None:
    """Not as YAML, where a colon makes a section and a hash a comment."""
    base = tmp_path / "base.yaml"
    base.write_text("model: {name_or_path: x}\n")
    assert load(AskRecipe, [f"recipe={base}", "adapter=a", f"question={text}"]).question == text


@pytest.mark.parametrize("text", ["${a.b} and ${oc.env:HOME}", r"\${x}", r"\\${", "$x", "two\nlines: \x1b[2J\t"])
def test_a_text_of_a_resolved_recipe_stays_as_it_was(text: str, tmp_path: Path) -> None:
    recipe = load(SearchRecipe, ["recipe=tiny/search", f"model.name={text}"])
    assert recipe.model.name == text
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert load(SearchRecipe, [f"recipe={tmp_path / 'recipe.yaml'}"]) == recipe


def test_a_recipe_may_refer_to_its_own_keys(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "output: runs/${model.name}\nmodel: {name_or_path: m, name: n}\nobjective: sft\n"
    )
    assert load(TrainRecipe, [f"recipe={tmp_path / 'mine.yaml'}"]).output == "runs/n"


SECRET = "Zx9secretQ7"


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("model.name", "${oc.env:A_NAME}", "${…:…} is not resolved in a recipe; write the value itself"),
        ("model.name", "${oc.env:${model.name_or_path}}", "${…:…} is not resolved"),
        ("output", "runs/${oc.decode:${oc.env:A_NAME}}", "${…:…} is not resolved"),
        ("task.path", "a\0b", "has a character that files and paths cannot have"),
        (
            "engine.endpoint.api_key_env",
            SECRET,
            "must be the name of an environment variable, in capitals, and not the key",
        ),
        ("engine.endpoint.api_key_env", f"sk-{SECRET}0", "looks like a key; give keys only by the environment"),
        (
            "engine.endpoint.base_url",
            f"http://me: {SECRET}@host/v1",
            "must be a url that begins with http:// or https://",
        ),
        (
            "engine.endpoint.base_url",
            f"http://me:{SECRET}@host/v1",
            "give a password in a URL, and all values after its ?",
        ),
        (
            "engine.endpoint.base_url",
            f"http://host/v1?api-key={SECRET}",
            "give a password in a URL, and all values after",
        ),
        ("model.name_or_path", f"https://{SECRET}@huggingface.co/org/model", "give a password in a URL"),
        ("output", "runs/0123456789x", "contains the value of the environment variable A_TOKEN; leave it out"),
    ],
)
def test_an_unsafe_value_is_refused_by_file_and_not_repeated(
    key: str, text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_NAME", SECRET)
    monkeypatch.setenv("A_TOKEN", "0123456789")
    file = tmp_path / "theirs.yaml"
    made: dict = {"output": "o", "model": {"name_or_path": "m"}, "task": {"name": "gsm8k"}}
    section, _, last = key.rpartition(".")
    if section == "engine.endpoint":
        made["engine"] = {"endpoint": {last: text}}
    else:
        (made[section] if section else made)[last] = text
    file.write_text(json.dumps(made))  # JSON is YAML
    with pytest.raises(UserError) as refused:
        load(SearchRecipe, [f"recipe={file}"])
    assert str(refused.value).startswith(f"{file}: {key}: {message}")
    assert SECRET not in str(refused.value)


def test_an_unsafe_value_is_refused_in_a_list_and_an_argument() -> None:
    with pytest.raises(UserError, match=r"^methods\[0\].label: looks like a key") as refused:
        load(EvaluateRecipe, ["recipe=tiny/eval", "methods=[{kind: vanilla, label: hf_0123456789abc}]"])
    assert "0123456789" not in str(refused.value)
    with pytest.raises(UserError, match=r"^task.path: has a character that files and paths cannot have"):
        load(SearchRecipe, ["recipe=tiny/search", "task.path=a\udc80b"])  # what a byte that is no UTF-8 becomes
    with pytest.raises(UserError, match=r"^optimizer.lr=hf_…: Value 'hf_…'"):
        load(TrainRecipe, ["recipe=tiny/sft", "optimizer.lr=hf_0123456789abc"])


def test_a_number_is_read_into_a_text_where_the_key_is_one() -> None:
    assert load(TrainRecipe, ["recipe=tiny/sft", "fabric.devices=4"]).fabric.devices == "4"


def test_a_recipe_can_be_any_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("output: out\nmodel: {name_or_path: m}\ntask: {name: gsm8k}\nsampling: {temperature: 2e-1}\n")
    recipe = load(SearchRecipe, [f"recipe={file}"])
    assert (recipe.output, recipe.task.name, recipe.sampling.temperature) == ("out", "gsm8k", 0.2)


@pytest.mark.parametrize("kind", [MergeRecipe, AskRecipe])
def test_merge_and_ask_take_the_model_from_beside_the_adapter(kind: type[Recipe], tmp_path: Path) -> None:
    trained = load(
        TrainRecipe, ["recipe=tiny/sft", "model.name_or_path=there", "model.dtype=float32", "optimizer.lr=1"]
    )
    (tmp_path / "recipe.yaml").write_text(to_yaml(trained))
    given = {"output": "o"} if kind is MergeRecipe else {"question": "q"}
    recipe = load(kind, [f"adapter={tmp_path / 'adapter'}", *(f"{k}={v}" for k, v in given.items())])
    assert recipe.model == trained.model


@pytest.mark.parametrize(
    ("has", "dtype", "precision"),
    [
        ({"avx2": True, "amx_bf16": False}, "float32", "32-true"),
        ({"avx512_bf16": True}, "bfloat16", "bf16-mixed"),
        ({"amx_bf16": True}, "bfloat16", "bf16-mixed"),
    ],
)
def test_auto_is_the_dtype_that_the_processor_multiplies(monkeypatch, has, dtype, precision) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    made = load(TrainRecipe, ["recipe=sft_qwen"])
    assert (made.model.dtype.value, made.fabric.precision) == (dtype, precision)
    assert f"dtype: {dtype}" in recipes.to_yaml(made)
    named = load(TrainRecipe, ["recipe=sft_qwen", "model.dtype=bfloat16", "fabric.precision=32-true"])
    assert (named.model.dtype.value, named.fabric.precision) == ("bfloat16", "32-true")


def test_what_works_on_runs_needs_no_recipe(tmp_path: Path) -> None:
    given = ["records=[a/records.jsonl, b/records.jsonl]", "output=o"]
    recipe = load(AnalyseRecipe, given)
    assert recipe == AnalyseRecipe("o", ["a/records.jsonl", "b/records.jsonl"])
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert load(AnalyseRecipe, [f"recipe={tmp_path / 'recipe.yaml'}"]) == recipe
    with pytest.raises(UserError, match=r"^output, records: not given"):
        load(AnalyseRecipe, ["recipe=" + str(tmp_path / "none")][1:])
    with pytest.raises(UserError, match=r"unknown key record. Did you mean 'records'"):
        load(AnalyseRecipe, ["record=[a]", "output=o"])


def test_the_last_of_two_equal_keys_counts() -> None:
    assert load(SearchRecipe, ["recipe=tiny/search", "samples=2", "samples=3"]).samples == 3


# --- Refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (TrainRecipe, ["recipe=sft_lama8b"], "recipe=sft_lama8b: .* Did you mean 'sft_llama8b'?"),
        (TrainRecipe, ["recipe=zzz"], "recipe=zzz: no such recipe or file. Shipped: .*sft_llama8b"),
        (TrainRecipe, [], "recipe=… is missing; shipped recipes: .*sft_llama8b"),
        (TrainRecipe, ["recipe=tiny/sft", "fast"], "'fast': arguments are key=value"),
        (TrainRecipe, ["recipe=tiny/sft", "=1"], "'=1': arguments are key=value"),
        (TrainRecipe, ["recipe=tiny/sft", "optimizer.lrr=1"], "unknown key optimizer.lrr. Did you mean 'lr'?"),
        (TrainRecipe, ["recipe=tiny/sft", "lr=1"], "unknown key lr. Did you mean 'optimizer.lr'?"),
        (
            SearchRecipe,
            ["recipe=tiny/search", "seed=1"],
            "unknown key seed. Did you mean 'task.seed' or 'sampling.seed'?",
        ),
        (
            TrainRecipe,
            ["recipe=tiny/sft", "lora.quantised=1"],
            "unknown key lora.quantised. Known: r, lora_alpha, lora_dropout",
        ),
        (TrainRecipe, ["recipe=tiny/sft", "optimizer.lr.x=1"], "unknown key optimizer.lr.x."),
        (TrainRecipe, ["recipe=tiny/sft", "optimizer={lrr: 1}"], "unknown key optimizer.lrr. Did you mean 'lr'?"),
        (
            EvaluateRecipe,
            ["recipe=tiny/eval", "methods[0].lable=x"],
            "unknown key methods.0..lable. Did you mean 'label'?",
        ),
        (
            EvaluateRecipe,
            ["recipe=tiny/eval", "methods=[{knd: x}]"],
            "unknown key methods.0..knd. Did you mean 'kind'?",
        ),
        (EvaluateRecipe, ["recipe=tiny/eval", "methods[9].label=x"], "methods.9..label=x: "),
        (EvaluateRecipe, ["recipe=tiny/eval", "methods=[{label: x}]"], "methods.0..kind: not given"),
        (TrainRecipe, ["recipe=tiny/sft", "optimizer.lr=fast"], "optimizer.lr=fast: .*'fast'.* Float"),
        (TrainRecipe, ["recipe=tiny/sft", "train.epochs=2.5"], "train.epochs=2.5: .* Integer"),
        (TrainRecipe, ["recipe=tiny/sft", "train.epochs=null"], "train.epochs=null: .* not Optional"),
        (TrainRecipe, ["recipe=tiny/sft", "output="], "output=: .* not Optional"),
        (TrainRecipe, ["recipe=tiny/sft", "objective=ppo"], "objective=ppo: .*expected one of .sft, dpo, grpo"),
        (TrainRecipe, ["recipe=tiny/sft", "data.records=a.jsonl"], "data.records=a.jsonl: .*[Ll]ist"),
        (TrainRecipe, ["recipe=tiny/sft", "optimizer=3"], "optimizer must be a section"),
        (
            TrainRecipe,
            ["recipe=tiny/sft", "lora.target_modules=[q_proj"],
            "lora.target_modules=.q_proj: did not find expected ',' or '.'",
        ),
        (
            TrainRecipe,
            ["recipe=tiny/sft", "optimizer.lr_scheduler=cosin"],
            "optimizer.lr_scheduler=cosin: one of cosine, linear, constant",
        ),
        (
            TrainRecipe,
            ["recipe=tiny/sft", "train.global_batch_size=0"],
            "train.global_batch_size=0: must be at least 1",
        ),
        (
            TrainRecipe,
            ["recipe=tiny/sft", "data.val_fraction=1.5"],
            "data.val_fraction=1.5: must be at least 0, below 1",
        ),
        (
            SearchRecipe,
            ["recipe=tiny/search", "sampling.temperature=.nan"],
            "sampling.temperature=nan: must be 0, or at least 0.01",
        ),
        (
            SearchRecipe,
            ["recipe=tiny/search", "budget_line=Be brief"],
            "budget_line=Be brief: must have {budget} in it",
        ),
        (
            EvaluateRecipe,
            ["recipe=tiny/eval", "methods=[{kind: tale_ep, budget_line: Be brief}]"],
            r"methods.0..budget_line=Be brief: must have {budget} in it",
        ),
        (EvaluateRecipe, ["recipe=tiny/eval", "prices.input=-1"], "prices.input=-1.0: must be at least 0"),
        (TrainRecipe, ["recipe=tiny/search"], r"recipes.tiny.search\.yaml: unknown key sampling. Did you mean .plan."),
        (MergeRecipe, ["adapter=nowhere/adapter", "output=o"], "adapter=nowhere/adapter: no run there"),
        (AskRecipe, ["question=q"], "recipe=… is missing"),
        (ReportRecipe, ["output=o"], "runs: not given"),
        (ReportRecipe, ["runs=[a]"], "output: not given"),
        (ReportRecipe, ["runs=[a]", "output=o", "exmples=3"], "unknown key exmples. Did you mean 'examples'?"),
        (ReportRecipe, ["runs=[a]", "output=o", "price_per_hour=-1"], "price_per_hour=-1.0: must be at least 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_refused_by_name(kind: type[Recipe], arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^(?:/.*)?{message.replace('?', '[?]')}"):
        load(kind, arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("output: o\nobjectiv: sft\n", "unknown key objectiv. Did you mean 'objective'"),
        ("output: o\nmodel:\n  sauce: x\n", "unknown key model.sauce. Known: name_or_path, "),
        ("output: o\nmodel: x\n", "model must be a section"),
        ("output: o\ndata: {records: [a, [b]]}\n", r"data.records\[1\] must be one value"),
        ("output: o\nlora: {target_modules: [{a: b}]}\n", r"lora.target_modules\[0\] must be one value"),
        ("output: o\ndata: {records: {a: b}}\n", "data.records must be a list"),
        ("output: [a\nmodel: {\n", "line 2: "),
        ("output: a\nmodel:\n\tsource: x\n", "line 3: "),
        ("output: a\noutput: b\n", "line 2: found duplicate key output"),
        ("- output\n", "the recipe must be a section"),
        ("", "model.name_or_path, objective, output: not given"),
        (
            "output: o\nobjective: sft\nmodel: {name_or_path: m}\ntrain: {epochs: many}\n",
            "train.epochs: .*'many'.*Integer",
        ),
        ("output: o\nobjective: sft\nmodel: {name_or_path: m}\nlora: {r: 0}\n", "lora.r=0: must be at least 1"),
        ("output: o\nobjective: ppo\nmodel: {name_or_path: m}\n", "objective: .*expected one of .sft, dpo, grpo"),
        (b"output: \xff\n", "can't decode byte"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_key_or_line(content: str | bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}: .*{message}"):
        load(TrainRecipe, [f"recipe={file}"])


@pytest.mark.parametrize(("section", "key"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_numbers_have_bounds_that_their_defaults_keep(section: type, key: str) -> None:
    """No bounds hold NaN, what is infinite, or an integer of 400 digits."""
    item, hint = section.__dataclass_fields__[key], typing.get_type_hints(section)[key]
    bounds = item.metadata.get("bounds")
    assert bool(bounds) == ({hint, *typing.get_args(hint)} & {int, float} != set())
    if bounds:
        default = item.default_factory() if item.default is dataclasses.MISSING else item.default
        assert all(n in bounds for n in (default if isinstance(default, list) else [default] if default else []))
        assert not any(n in bounds for n in (math.nan, math.inf, -math.inf, 10**400, -(10**400), -1))


NO_NUMBER_OF = {
    TrainRecipe: {
        "optimizer.max_grad_norm": ["0", ".nan", ".inf"],
        "optimizer.lr": ["0", "-1e-4", ".nan"],
        "optimizer.warmup_ratio": ["1.1", ".nan"],
        "optimizer.weight_decay": ["-1", ".inf"],
        "lora.lora_dropout": ["1", ".nan"],
        "lora.lora_alpha": ["0", "-32"],
        "lora.r": ["0", "9999999999"],
        "loss.beta": ["0", ".nan", ".inf"],
        "data.val_fraction": ["1", ".nan"],
        "train.seed": ["-1", "4294967296"],
        "data.seed": ["-1"],
    },
    SearchRecipe: {
        "budget_fractions": ["[0.5, .nan]", "[.inf]", "[0]", "[-1]"],
        "task.test_fraction": ["0", "1", ".nan"],
        "task.seed": ["-1"],
        "sampling.seed": ["-1"],
        "sampling.temperature": [".inf", ".nan", "-1", "0.001"],
        "sampling.max_tokens": ["1" + "0" * 400],
        "engine.prefix_cache_gb": [".nan"],
        "engine.vllm.gpu_memory_utilization": ["0"],
        "engine.endpoint.timeout": ["0", ".inf"],
        "prices.output": [".nan", ".inf"],
    },
    EvaluateRecipe: {"seeds": ["[1, -1]"], "methods[3].budget_multiplier": ["0", ".nan"], "methods[2].budget": ["0"]},
    EstimateRecipe: {
        "coverage": ["0", "1"],
        "calibration_fraction": ["0", "1"],
        "ridge": ["0", ".nan"],
        "budget_multiplier": ["0", ".inf"],
    },
}
BASIS = {
    TrainRecipe: ["recipe=tiny/sft"],
    SearchRecipe: ["recipe=tiny/search"],
    EvaluateRecipe: ["recipe=tiny/eval"],
    EstimateRecipe: ["train_records=[a]", "output=o"],
}


def renamed(kind: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every earlier name of a key with its name of now; in a list of sections of the last of them."""
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        if item.metadata["renamed_from"]:
            yield prefix + item.metadata["renamed_from"], prefix + item.name
        hint, place = hints[item.name], f"{prefix}{item.name}."
        if typing.get_origin(hint) is list:
            hint, place = typing.get_args(hint)[0], f"{prefix}{item.name}[{3 if item.name == 'methods' else 0}]."
        hint = getattr(hint, "kinds", {}).get("tale_ep", hint)
        if dataclasses.is_dataclass(hint):
            yield from renamed(hint, place)


RENAMED = [(kind, *names) for kind in (*BASIS, WordingsRecipe) for names in renamed(kind)]


@pytest.mark.parametrize(("kind", "old", "new"), RENAMED, ids=lambda value: value if isinstance(value, str) else "")
def test_an_old_key_is_answered_by_its_new_name(kind: type[Recipe], old: str, new: str, tmp_path: Path) -> None:
    """On the command line, and in a file."""
    answer = rf"unknown key {re.escape(old)}: it is now {re.escape(new)}(, in which .*)?$"
    with pytest.raises(UserError, match=f"^{answer}"):
        load(kind, [*BASIS.get(kind, ["recipe=tiny/wordings"]), f"{old}=1"])
    if "[" not in old:
        made = OmegaConf.create()
        OmegaConf.update(made, old, 1)
        (tmp_path / "old.yaml").write_text(OmegaConf.to_yaml(made))
        with pytest.raises(UserError, match=rf"old\.yaml: {answer}"):
            load(kind, [f"recipe={tmp_path / 'old.yaml'}"])


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (SearchRecipe, "strategy=minimum", "^strategy=minimum: it is now shortest_correct$"),
        (SearchRecipe, "strategy=printed", "^strategy=printed: it is now algorithm1_verbatim$"),
        (SearchRecipe, "acceptance=shortest", "^acceptance=shortest: it is now any$"),
        (EvaluateRecipe, "methods=[{kind: budget, budget: 9}]", r"^methods\[0\].kind: budget is now fixed_budget$"),
        (EvaluateRecipe, "methods=[{kind: searched}]", r"^methods\[0\].kind: searched is now optimal_budget$"),
        (EvaluateRecipe, "methods=[{kind: estimated}]", r"^methods\[0\].kind: estimated is now tale_ep$"),
        (TrainRecipe, "optim={clip: 1}", "^unknown key optim: it is now optimizer, in which .*clip is max_grad_norm"),
    ],
)
def test_an_old_value_is_answered_by_its_new_name(kind: type[Recipe], given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(kind, [*BASIS[kind], given])


def test_the_document_of_all_keys_is_current() -> None:
    assert (ROOT / "docs" / "keys.md").read_text() == keys(), "run: tale keys > docs/keys.md"


def test_the_changelog_lists_every_renamed_key() -> None:
    text = " ".join((ROOT / "CHANGELOG.md").read_text().split())
    for _, old, new in RENAMED:
        assert f"`{old.rpartition('.')[2]}` → `{new.rpartition('.')[2]}`" in text


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [(kind, key, value) for kind, keys in NO_NUMBER_OF.items() for key, values in keys.items() for value in values],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_number_that_trains_or_means_nothing_is_refused(kind: type[Recipe], key: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"^{re.escape(key)}=.*: must be "):
        load(kind, [*BASIS[kind], f"{key}={value}"])


def test_nothing_but_dataclasses_and_enums_makes_a_recipe() -> None:
    """So a recipe can be written out whole and read again."""
    for section, key in FIELDS:
        hint = typing.get_type_hints(section)[key]
        element = typing.get_args(hint)[0] if typing.get_origin(hint) in (list, types.UnionType) else hint
        plain = element in (str, int, float, bool)
        assert plain or dataclasses.is_dataclass(element) or issubclass(element, Enum)
    assert recipes.RECIPES.is_dir()


# --- Recipes that rest on others ------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """`written(a="…", b="…")` writes these recipes; the path of the first."""

    def write(**files: str) -> str:
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text.replace("@", f"{tmp_path}/"))
        return f"recipe={tmp_path / next(iter(files))}.yaml"

    return write


def test_a_recipe_takes_from_its_bases_what_it_does_not_say(written: Callable[..., str]) -> None:
    """Sections key by key, lists as a whole; of two bases the later one counts, and the recipe itself above both."""
    given = written(
        a="base: [@b.yaml, @c.yaml]\noutput: a\noptimizer: {lr: 0.1}\n",
        b="base: tiny/sft\noutput: b\noptimizer: {lr: 0.2, max_grad_norm: 2}\nlora: {target_modules: [o_proj]}\n",
        c="optimizer: {max_grad_norm: 3, warmup_ratio: 0.5}\n",
    )
    made = load(TrainRecipe, [given, "optimizer.lr_scheduler=constant"])
    assert (made.output, made.objective, made.model.name) == ("a", Objective.sft, "tiny-llama")
    assert (
        made.optimizer.lr,
        made.optimizer.max_grad_norm,
        made.optimizer.warmup_ratio,
        made.optimizer.lr_scheduler,
    ) == (0.1, 3, 0.5, "constant")
    assert made.lora.target_modules == ["o_proj"]
    assert (made.lora.r, made.train.epochs) == (2, 2)


def test_the_resolved_recipe_rests_on_none(written: Callable[..., str], tmp_path: Path) -> None:
    made = load(TrainRecipe, [written(a="base: tiny/sft\noutput: a\n")])
    (tmp_path / "resolved.yaml").write_text(recipes.to_yaml(made))
    assert load(TrainRecipe, [f"recipe={tmp_path / 'resolved.yaml'}"]) == made
    assert "base:" not in recipes.to_yaml(made)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "base: @a.yaml\n"}, r"a\.yaml: base: a → a comes back to itself"),
        (
            {"a": "base: @b.yaml\n", "b": "base: [tiny/sft, @c.yaml]\n", "c": "base: @b.yaml\n"},
            r"a\.yaml: base: a → b → c → b comes back to itself",
        ),
        (
            {"a": "base: sft_lama8b\n"},
            r"a\.yaml: base: sft_lama8b: no such recipe or file\. Did you mean 'sft_llama8b'",
        ),
        ({"a": "base: 7\n"}, r"a\.yaml: base: must be a recipe's name, or a list of names"),
        ({"a": "base: [tiny/sft, 7]\n"}, r"a\.yaml: base: must be a recipe's name, or a list of names"),
        (
            {"a": "base: @b.yaml\n", "b": "base: tiny/sft\noptimizer: {lt: 1}\n"},
            r"b\.yaml: unknown key optimizer\.lt\. Did you",
        ),
        ({"a": "base: tiny/search\n"}, r"tiny/search\.yaml: unknown key sampling\."),
    ],
)
def test_a_base_that_is_none_is_one_clear_error(
    files: dict[str, str], message: str, written: Callable[..., str]
) -> None:
    with pytest.raises(UserError, match=message):
        load(TrainRecipe, [written(**files)])
