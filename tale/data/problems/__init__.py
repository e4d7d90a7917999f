"""Short stories with several numbers and one question: a benchmark that needs no file, and data to warm up with."""

from __future__ import annotations

from tale.data.problems.sampling import Problem, generate
from tale.data.question import Question

__all__ = ["Problem", "generate", "load"]


def load(split: str, count: int, seed: int) -> list[Question]:
    """The questions of `generate(split, count, seed)`."""
    return [problem.question for problem in generate(split, count, seed)]
