"""A strategy that cannot work is refused in one line that names the key, before any weights are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tale.config.recipes import load
from tale.errors import UserError
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.run import evaluate
from tale.models.base import BaseModel

B = "total_budget: 64"
REMOTE = ("engine.kind=openai", "engine.endpoint.base_url=http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("kind: single, total_budget: 0", (), r"methods\[0\].total_budget.*at least 1"),
        ("kind: single", ("budgets=[64, 0]",), r"budgets=\[64, 0\]: must be at least 1"),
        ("kind: single", ("budgets=[64, 32, 64]",), r"budgets=\[64, 32, 64\]: one is given twice"),
        ("kind: single", ("budget_multipliers=[1, 1]",), r"budget_multipliers=\[1.0, 1.0\]: one is given twice"),
        ("kind: direct", ("budgets=[64]",), "budgets: no strategy among the methods takes its B from here"),
        ("kind: single", (), r"methods\[0\]: kind single needs either total_budget \(or budgets\) or budget_mu"),
        (f"kind: single, {B}, budget_multiplier: 1", (), r"methods\[0\]: kind single needs either"),
        (f"kind: single, {B}, estimator: e", (), r"methods\[0\].estimator: only budget_multiplier and"),
        ("kind: single, budget_multiplier: 1, estimator: no/where", (), "no/where"),
        (f"kind: single, {B}, force_answer: true, answer_reserve: 64", (), r"answer_reserve=64: leaves nothing of B"),
        (f"kind: single, {B}, prompt_budget: '0'", (), r"methods\[0\].prompt_budget.*a positive number of tokens"),
        (f"kind: anytime, {B}, step: 65", (), r"methods\[0\].step=65: is above B = 64; set a step within it"),
        ("kind: anytime, step: 50", ("budgets=[64, 32]",), r"methods\[0\].step=50: is above B = 32"),
        (f"kind: anytime, {B}, step: 8, answer_reserve: 64", (), r"answer_reserve=64: leaves nothing of B = 64"),
        (f"kind: anytime, {B}, step: 8, epsilon: -0.01", (), r"methods\[0\].epsilon.*at least 0"),
        (f"kind: anytime, {B}, step: 8", REMOTE, "cannot continue an assistant turn"),
        (f"kind: single, {B}, force_answer: true", REMOTE, "cannot continue an assistant turn"),
        (f"kind: single, {B}, wait: 1", REMOTE, "cannot continue an assistant turn"),
        (f"kind: self_consistency, {B}, max_samples: 0", (), r"methods\[0\].max_samples.*at least 1"),
        (f"kind: self_consistency, {B}", (), r"methods\[0\]: kind self_consistency .* set methods\[0\].temperature"),
        (f"kind: adaptive_consistency, {B}", (), "adaptive_consistency compares samples, and at temperature 0 all are"),
        (f"kind: best_of_n, {B}", (), "best_of_n compares samples, and at temperature 0 all are the same"),
        (f"kind: best_of_n, {B}, max_samples: 0", (), r"methods\[0\].max_samples.*at least 1"),
        (f"kind: best_of_n, {B}, scorer: oracle", (), r"methods\[0\].scorer.*model.*majority"),
        (f"kind: best_of_n, {B}, temperature: 1", REMOTE, "cannot continue an assistant turn"),
        (f"kind: early_stopping, {B}", (), "early_stopping compares samples, and at temperature 0 all are the same"),
        (f"kind: early_stopping, {B}, window: 1", (), r"methods\[0\].window.*at least 2"),
        (f"kind: adaptive_consistency, {B}, confidence: 1", (), r"methods\[0\].confidence.*below 1"),
    ],
)
def test_a_strategy_that_cannot_work_is_refused(
    method: str,
    more: tuple[str, ...],
    message: str,
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BaseModel, "load", None)
    words = ["recipe=tiny/eval", f"model.name_or_path={tiny_model_folder}", f"output={tmp_path}/eval", *more]
    with pytest.raises(UserError, match=message) as refused:
        evaluate(load(EvaluateRecipe, [*words, f"methods=[{{{method}}}]"]))
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "eval").exists()
