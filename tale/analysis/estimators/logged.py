"""Zero-shot estimates from the replies of an evaluation, which include the estimator's texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from tale.data import prompts
from tale.data.question import Question
from tale.errors import UserError
from tale.estimators.base import Estimate
from tale.estimators.zero_shot import estimate_of
from tale.evaluation.replies import read_replies
from tale.inference import Completion


def logged_estimates(file: Path, questions: Sequence[Question], budget_line: str | None) -> dict[str, list[Estimate]]:
    """The estimates in a replies.jsonl, by method and seed, one per question.

    `budget_line` is that of the evaluation's methods.

    Raises:
        UserError: the file is damaged, or has no estimates, or not for all of these questions.
    """
    found: dict[str, dict[str, Estimate]] = {}
    by_id = {question.id: question for question in questions}
    for reply in chain.from_iterable(read_replies(file).values()):
        question = by_id.get(reply.question)
        # Another benchmark may have the same id; the prompt identifies the question. A strategy's may be any call's.
        if not question or reply.prompt != prompts.chain_of_thought(question, reply.budget, budget_line):
            continue
        if reply.estimator_text is not None and reply.calls is None:
            method = f"{reply.method}, seed {reply.seed}" if reply.seed is not None else reply.method
            estimator = Completion(reply.estimator_text, reply.estimator_tokens, "stop", reply.estimator_prompt_tokens)
            found.setdefault(method, {})[question.id] = estimate_of(estimator)
    if not found:
        raise UserError(f"replies: {file} holds no zero-shot estimate of the grid's questions")
    for method, of in found.items():
        if missing := by_id.keys() - of.keys():
            raise UserError(f"replies: {file}: {method} has no estimate of {len(missing)} questions ({min(missing)} …)")
    return {f"{method} ({file.parent.name})": [of[id] for id in by_id] for method, of in found.items()}
