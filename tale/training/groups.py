"""From a question's sampled answers to an example to train on: graded, rewarded, compared with their group."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tale.config.training import GRPOConfig
from tale.data import prompts
from tale.data.examples import Example
from tale.data.question import Question
from tale.grading import grade
from tale.inference import Completion
from tale.losses import group_advantages
from tale.rewards import Outcome, total_rewards


@dataclass(frozen=True)
class Group:
    """A question's answers with their rewards, and the example made of them.

    Failed requests are left out; `error` is the first one's.
    """

    question: Question
    budget: int | None
    completions: tuple[Completion, ...]
    outcomes: tuple[Outcome, ...]
    rewards: tuple[float, ...]
    example: Example
    error: str | None = None


def drawn_budget(config: GRPOConfig, question: Question, *seeds: int) -> int | None:
    """The budget that a prompt states, drawn from `budget_range` by question and seeds; None without a range."""
    if not config.budget_range:
        return None
    least, most = config.budget_range
    digest = hashlib.sha256(repr((seeds, question.id)).encode()).digest()
    return least + int.from_bytes(digest[:8], "big") % (most - least + 1)


def prompt_of(config: GRPOConfig, question: Question, budget: int | None) -> str:
    """The vanilla prompt, or the one that states the budget."""
    return prompts.chain_of_thought(question, budget, config.budget_line)


def outcome(completion: Completion, question: Question, budget: int | None) -> Outcome:
    """Grade an answer; one that was cut off is not right."""
    verdict = grade(completion.text, question, completion.truncated)
    right = verdict.correct and not completion.truncated
    return Outcome(right, completion.tokens, completion.truncated, verdict.via == "brackets", budget)


def scored_group(
    config: GRPOConfig,
    question: Question,
    budget: int | None,
    prompt: list[int],
    completions: Sequence[Completion],
) -> Group:
    """Grade, reward and compare the answers to one prompt.

    The ids that were sampled are those to train on. An answer without ids has a reward but nothing to train on.

    Raises:
        UserError: a reward function fails.
    """
    answered = tuple(completion for completion in completions if completion.finish != "error")
    outcomes = tuple(outcome(completion, question, budget) for completion in answered)
    rewards, parts = total_rewards(outcomes, config, question.id)
    advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64), config.scale_rewards).tolist()
    if config.mask_truncated_completions:
        advantages = [0.0 if o.truncated else a for o, a in zip(outcomes, advantages, strict=True)]
    trained = [(c, a) for c, a in zip(answered, advantages, strict=True) if c.ids]
    sums = {f"reward/{name}": sum(values) for name, values in parts.items()}
    sums |= {"reward": sum(rewards), "groups": 1, "groups_without_spread": len({*rewards}) < 2}
    sums |= {"asked": len(completions), "unanswered": len(completions) - len(answered)}
    sums["empty"] = len(answered) - len(trained)
    example = Example(
        question.id,
        prompt,
        tuple(list(c.ids or ()) for c, _ in trained),
        size=len(answered),
        advantages=tuple(advantage for _, advantage in trained),
        logprobs=tuple(c.logprobs or () for c, _ in trained),
        sums=sums | answer_sums(outcomes),
    )
    error = next((completion.error for completion in completions if completion.error), None)
    return Group(question, budget, answered, outcomes, tuple(rewards), example, error)


def answer_sums(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Sums over answers: how many are right, cut off, over their budget, and their tokens, right and wrong apart."""
    right, wrong = ([o for o in outcomes if o.correct is kind] for kind in (True, False))
    tokens = {name: sum(o.tokens for o in of) for name, of in (("right_tokens", right), ("wrong_tokens", wrong))}
    sums: dict[str, float] = {"accuracy": len(right), "right": len(right), "wrong": len(wrong), **tokens}
    sums |= {"answer_tokens": sum(tokens.values()), "truncated": sum(o.truncated for o in outcomes)}
    if budgets := [(o.tokens, o.budget) for o in outcomes if o.budget]:
        sums["budget_error"] = sum(abs(used - asked) / asked for used, asked in budgets)
        sums["over_budget"] = sum(used > asked for used, asked in budgets)
    return sums
