"""The warm start of a weak base model: generated problems, answered at a length that follows the prompt.

Under the vanilla prompt the solution is long; under a budget it is the longest that fits; under a budget that not even
the shortest fits it is long again, which is the paper's token elasticity (§3). Direct and estimator prompts get what
they ask for. This makes of a 135 M model what Llama-3.1-8B-Instruct is by itself: verbose, mostly right, budget-aware.
"""

from __future__ import annotations

import math
import random

from tale import prompts
from tale.chat import Chat
from tale.data.examples import Example
from tale.data.problems import Problem, generate
from tale.data.question import Question

# How often each prompt is asked.
PROMPTS = {"vanilla": 0.22, "budget": 0.58, "direct": 0.10, "estimate": 0.10}
# Under a budget: how often the solution of each length is wanted; 0 stands for a budget too small for any.
LEVELS = {0: 0.15, 1: 0.30, 2: 0.25, 3: 0.17, 4: 0.13}
LONG = 4


def warmup_examples(count: int, seed: int, chat: Chat) -> list[tuple[Question, Example]]:
    """`count` problems of the `warmup` split, each with one prompt and the answer that fits it."""
    rng = random.Random(seed)
    return [
        (problem.question, _example(problem, rng, chat)) for problem in generate(split="warmup", count=count, seed=seed)
    ]


def _example(problem: Problem, rng: random.Random, chat: Chat) -> Example:
    question, solutions = problem.question, problem.solutions
    lengths = [len(chat.target_ids(solution)) for solution in solutions]
    kind = _draw(rng, PROMPTS)
    if kind == "vanilla":
        prompt, answer = prompts.vanilla(question), solutions[LONG]
    elif kind == "direct":
        prompt, answer = prompts.direct(question), solutions[0]
    elif kind == "estimate":
        prompt, answer = prompts.estimate(question), f"Budget: [[{math.ceil(lengths[2] / 5) * 5}]]"
    else:
        level = _draw(rng, LEVELS)
        prompt = prompts.budgeted(question, _budget(rng, lengths, level))
        answer = solutions[level or LONG]
    return Example(question.id, chat.prompt_ids(prompt), (chat.target_ids(answer),))


def _budget(rng: random.Random, lengths: list[int], level: int) -> int:
    """A budget, log-uniform among those under which the solution of this level is the longest that fits."""
    low = lengths[level] + 1 if level else 1
    high = lengths[level + 1] if level < LONG else 2 * lengths[LONG]
    return round(math.exp(rng.uniform(math.log(low), math.log(max(low, high)))))


def _draw(rng: random.Random, shares: dict) -> object:
    return rng.choices(list(shares), weights=list(shares.values()))[0]
