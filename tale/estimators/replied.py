"""Zero-shot estimates that an evaluation has already asked for: its replies keep the estimator's own texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tale import prompts
from tale.data.question import Question
from tale.engines import Completion
from tale.errors import UserError
from tale.estimators.base import Estimate
from tale.estimators.zero_shot import estimate_of
from tale.files import read_jsonl


def replied(file: Path, questions: Sequence[Question]) -> dict[str, list[Estimate]]:
    """The estimates in a replies.jsonl, by method, one for each of the questions; those of each seed by themselves.

    Raises:
        UserError: there are none, or not for all of these questions.
    """
    found: dict[str, dict[str, Estimate]] = {}
    by_id = {question.id: question for question in questions}
    for line, row in read_jsonl(file):
        try:
            question, text = by_id.get(row["question"]), row["estimator_text"]
            if question and text is not None and _asks(row["prompt"], question, row["budget"]):
                reply = Completion(text, row["estimator_tokens"], "stop", row["estimator_prompt_tokens"])
                method = f"{row['method']}, seed {row['seed']}" if row.get("seed") is not None else row["method"]
                found.setdefault(method, {})[question.id] = estimate_of(reply)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{file}:{line}: not a reply ({error}); scripts/evaluate.py writes replies.jsonl"
            ) from error
    if not found:
        raise UserError(f"replies: {file} holds no zero-shot estimate of the grid's questions")
    for method, of in found.items():
        if missing := by_id.keys() - of.keys():
            raise UserError(f"replies: {file}: {method} has no estimate of {len(missing)} questions ({min(missing)} …)")
    return {f"{method} ({file.parent.name})": [of[id] for id in by_id] for method, of in found.items()}


def _asks(prompt: str, question: Question, budget: int | None) -> bool:
    """Whether the prompt is about this question: an id alone may be another benchmark's."""
    return prompt == (prompts.vanilla(question) if budget is None else prompts.budgeted(question, budget))
