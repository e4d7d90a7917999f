"""What a run keeps of itself, recipe, command without secrets, versions and commit; and several runs in a row."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.runs import run as runs
from tale.runs.run import start_run
from tale.runs.stages import Stage, run_stages
from tale.search.recipe import SearchRecipe
from tests import ROOT


@pytest.fixture
def recipe(tmp_path: Path) -> SearchRecipe:
    return load(SearchRecipe, ["recipe=tiny/search", f"output={tmp_path / 'a' / 'run'}", "sampling.max_tokens=9"])


def started(recipe: SearchRecipe, **identity: object) -> dict:
    return json.loads((start_run(recipe, **identity) / "run.json").read_text())


def test_the_resolved_recipe_is_kept_and_gives_the_same_run(recipe: SearchRecipe) -> None:
    folder = start_run(recipe)
    assert folder == Path(recipe.output)
    text = (folder / "recipe.yaml").read_text()
    assert "max_tokens: 9" in text
    assert "batch_size: 4" in text  # the recipe's own
    assert "temperature: 0.0" in text  # a default
    assert load(SearchRecipe, [f"recipe={folder / 'recipe.yaml'}"]) == recipe


def test_command_identity_versions_and_commit_are_kept(recipe: SearchRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/search.py", "recipe=tiny/search", "output=a b"])
    run = started(recipe, base={"name": "m", "weights": "01"})
    assert run["command"] == "scripts/search.py recipe=tiny/search 'output=a b'"
    assert run["base"] == {"name": "m", "weights": "01"}
    assert run["packages"]["torch"] == metadata.version("torch")
    assert {"lightning", "transformers", "peft"} <= run["packages"].keys()
    assert run["python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_commit_is_this_checkouts(recipe: SearchRecipe) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("not a git checkout")
    commit = started(recipe)["commit"]
    assert len(commit.removesuffix("-dirty")) >= 12
    assert head.stdout.startswith(commit.removesuffix("-dirty"))


def test_outside_a_checkout_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "tale" / "runs.py"))
    (tmp_path / "tale").mkdir()
    assert runs.code_version() == "unknown"


@pytest.mark.parametrize("secret", ["hf_AbCdEf0123456789", "sk-proj-AbC_123-xyz", "sk-0123456789abcdef"])
@pytest.mark.parametrize("argument", ["{}", "token={}", "--token={}", "model.name_or_path=https://u:{}@host/m"])
def test_a_secret_on_the_command_line_is_not_written_down(
    secret: str, argument: str, recipe: SearchRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["search.py", argument.format(secret), "recipe=x"])
    start_run(recipe)
    written = (Path(recipe.output) / "run.json").read_text()
    assert secret not in written
    assert secret[3:] not in written
    assert re.search(r"….*recipe=x", written)


def test_what_only_looks_a_little_like_a_secret_is_kept(recipe: SearchRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["search.py", "output=runs/risk-free_shelf_life"])
    assert started(recipe)["command"].endswith("output=runs/risk-free_shelf_life")


# --- Several stages -------------------------------------------------------------------------------------------------


@pytest.fixture
def stages(tiny_model_folder: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """`stages(...)` runs a search and a training that reads it, both stubs; which of them really ran."""

    def call(*overrides: str, dies: str | None = None) -> list[str]:
        ran: list[str] = []

        def stub(recipe: SearchRecipe | TrainRecipe) -> None:
            name = Path(recipe.output).name
            ran.append(name)
            journal = start_run(recipe) / "journal.jsonl"
            ran.extend(["resumed"] if journal.exists() else [])
            journal.touch()
            if name == dies:
                raise KeyboardInterrupt

        def stage(kind: type, name: str, reads: list[str], *given: str) -> Stage:
            fixed = [f"model.name_or_path={tiny_model_folder}", f"output={tmp_path / name}"]
            return Stage(kind, f"tiny/{name}", stub, reads=reads, overrides=[*fixed, *given])

        both = [
            stage(SearchRecipe, "search", [], *overrides),
            stage(TrainRecipe, "sft", ["tiny/search"], "data.records=[r]"),
        ]
        try:
            run_stages(both)
        except KeyboardInterrupt:
            ran.append("killed")
        return ran

    return call


def test_a_stage_that_is_done_is_not_run_again(stages: Callable[..., list[str]]) -> None:
    assert stages() == ["search", "sft"]
    assert stages() == []


def test_a_stage_that_another_command_overwrote_is_run_again(stages: Callable[..., list[str]], tmp_path: Path) -> None:
    stages()
    start_run(load(TrainRecipe, ["recipe=tiny/sft", f"output={tmp_path / 'sft'}", "data.records=[others]"]))
    assert stages() == ["sft", "resumed"]
    assert stages() == []


def test_a_changed_stage_runs_again_with_all_that_read_it(stages: Callable[..., list[str]]) -> None:
    stages()
    assert stages("sampling.max_tokens=17") == ["search", "sft"]


def test_changed_code_runs_everything_again(stages: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    stages()
    monkeypatch.setattr("tale.runs.stages.code_hash", lambda: "other")
    assert stages() == ["search", "sft"]


def test_a_stage_cut_short_resumes_unless_it_has_changed(stages: Callable[..., list[str]]) -> None:
    assert stages(dies="search") == ["search", "killed"]
    assert stages(dies="sft") == ["search", "resumed", "sft", "killed"]
    assert stages() == ["sft", "resumed"]
    assert stages("sampling.max_tokens=17", dies="search") == ["search", "killed"]
    assert stages() == ["search"]
