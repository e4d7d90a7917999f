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
from tale.evaluation.methods import Reply, read_replies


def replied(file: Path, questions: Sequence[Question]) -> dict[str, list[Estimate]]:
    """The estimates in a replies.jsonl, by method, one for each of the questions; those of each seed by themselves.

    Raises:
        UserError: the file is damaged, or holds none, or not for all of these questions.
    """
    found: dict[str, dict[str, Estimate]] = {}
    by_id = {question.id: question for question in questions}
    for reply in (reply for replies in read_replies(file).values() for reply in replies):
        question = by_id.get(reply.question)
        if question and reply.estimator_text is not None and _asks(reply, question):
            method = f"{reply.method}, seed {reply.seed}" if reply.seed is not None else reply.method
            estimator = Completion(reply.estimator_text, reply.estimator_tokens, "stop", reply.estimator_prompt_tokens)
            found.setdefault(method, {})[question.id] = estimate_of(estimator)
    if not found:
        raise UserError(f"replies: {file} holds no zero-shot estimate of the grid's questions")
    for method, of in found.items():
        if missing := by_id.keys() - of.keys():
            raise UserError(f"replies: {file}: {method} has no estimate of {len(missing)} questions ({min(missing)} …)")
    return {f"{method} ({file.parent.name})": [of[id] for id in by_id] for method, of in found.items()}


def _asks(reply: Reply, question: Question) -> bool:
    """Whether the prompt is about this question: an id alone may be another benchmark's."""
    if reply.budget is None:
        return reply.prompt == prompts.vanilla(question)
    return reply.prompt == prompts.budgeted(question, reply.budget)
