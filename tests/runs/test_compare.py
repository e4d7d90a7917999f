"""Runs that decode differently, or were graded by different code, are refused in one comparison."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.errors import UserError
from tale.evaluation.recipe import EvaluateRecipe
from tale.runs import run as runs
from tale.runs.compare import check_comparable
from tale.runs.run import start_run
from tale.search.recipe import SearchRecipe


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """`run("name", "key=value", …)` starts a tiny evaluation, or a run of another kind."""

    def start(name: str, *overrides: str, kind: type = EvaluateRecipe, recipe: str = "tiny/eval") -> Path:
        return start_run(load(kind, [f"recipe={recipe}", f"output={tmp_path / name}", *overrides]))

    return start


def test_other_models_methods_and_questions_are_comparable(run: Callable[..., Path]) -> None:
    others = ["model.name_or_path=other", "task.name=gsm8k", "methods=[{kind: direct}]", "engine.batch_size=9"]
    searched = run("s", kind=SearchRecipe, recipe="tiny/search")
    check_comparable([run("a"), run("b", *others), searched])
    check_comparable([run("a")])
    check_comparable([])


@pytest.mark.parametrize(
    ("override", "was", "now"),
    [
        ("sampling.temperature=0.1", "sampling.temperature=0.0", "sampling.temperature=0.1"),
        ("sampling.max_tokens=99", "sampling.max_tokens=16", "sampling.max_tokens=99"),
        ("sampling.seed=3", "sampling.seed=1024", "sampling.seed=3"),
        ("seeds=[3]", "sampling.seed=1024", "sampling.seed=3"),
        ("seeds=[1024,3]", r"seeds=\[\]", r"seeds=\[3, 1024\]"),
    ],
)
def test_another_decoding_is_refused_by_its_key(run: Callable[..., Path], override: str, was: str, now: str) -> None:
    a, same, b = run("a"), run("same"), run("b", override)
    with pytest.raises(UserError, match=rf"^{a} has {was}, {b} has {now}: they cannot be compared"):
        check_comparable([a, same, b])


def test_equal_seeds_are_equal_decoding_however_given(run: Callable[..., Path]) -> None:
    searched = run("s", kind=SearchRecipe, recipe="tiny/search")
    check_comparable([run("a"), run("b", "seeds=[1024]", "sampling.seed=9"), searched])
    check_comparable([run("c", "seeds=[1,2]"), run("d", "seeds=[2,1]")])


@pytest.mark.parametrize("changed", ["source", "mpmath"])
def test_another_grading_is_refused(
    run: Callable[..., Path], changed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a = run("a")
    if changed == "source":
        shutil.copytree(Path(runs.__file__).parents[1] / "grading", tmp_path / "tale" / "grading")
        with (tmp_path / "tale" / "grading" / "numbers.py").open("a") as file:
            file.write("#\n")
        monkeypatch.setattr(runs, "__file__", str(tmp_path / "tale" / "runs" / "run.py"))
    else:
        monkeypatch.setattr(runs.metadata, "version", lambda name: "9.9" if name == "mpmath" else "1")
    b = run("b")
    with pytest.raises(
        UserError, match=rf"^{a} has grading=\w{{16}}, {b} has grading=\w{{16}}: they cannot be compared"
    ):
        check_comparable([a, b])


def test_what_is_no_run_or_does_not_say_is_refused_by_its_file(run: Callable[..., Path], tmp_path: Path) -> None:
    a = run("a")
    with pytest.raises(UserError, match=rf"^{tmp_path / 'none' / 'recipe.yaml'}: cannot be read"):
        check_comparable([a, tmp_path / "none"])
    trained = run("t", "data.records=[r]", kind=TrainRecipe, recipe="tiny/sft")
    with pytest.raises(UserError, match=rf"^{trained / 'recipe.yaml'}: has no sampling"):
        check_comparable([trained])
    described = json.loads((a / "run.json").read_text())
    del described["grading"]
    (a / "run.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=rf"^{a / 'run.json'}: names no grading code; run it again"):
        check_comparable([a])
