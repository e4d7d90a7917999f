"""Several seeds in one evaluation: every question answered once for each, one seed being the special case of one.

Replies, and figures of them, stand seed by seed, each seed over the same questions in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy

from tale.data.question import Question
from tale.errors import UserError
from tale.evaluation.recipe import EvaluateRecipe
from tale.inference import Sampling


def check_seeds(recipe: EvaluateRecipe) -> None:
    """Refuse seeds under which the same answers would be counted twice.

    Raises:
        UserError: one stands there twice, or there are several and decoding is greedy.
    """
    if len(set(recipe.seeds)) < len(recipe.seeds):
        raise UserError(f"seeds={recipe.seeds}: a seed twice gives the same answers twice; name each once")
    if len(recipe.seeds) > 1 and recipe.sampling.temperature == 0:
        raise UserError(
            f"seeds={recipe.seeds}: greedy decoding gives each the same answers; set sampling.temperature above 0, or "
            "leave seeds out"
        )


def sampling_of(recipe: EvaluateRecipe) -> Sampling:
    """How a run decodes; of several seeds with the first."""
    sampling = Sampling(**vars(recipe.sampling))
    return replace(sampling, seed=recipe.seeds[0]) if recipe.seeds else sampling


def seeds_of(recipe: EvaluateRecipe) -> list[int] | list[None]:
    """The seeds that replies are told apart by: where there is one alone, None for the sampling's own."""
    return recipe.seeds if len(recipe.seeds) > 1 else [None]


def each_seed(questions: Sequence[Question], recipe: EvaluateRecipe) -> tuple[list[Question], list[int | None]]:
    """The questions once for each seed, and the seed of each."""
    seeds = seeds_of(recipe)
    return [*questions] * len(seeds), [seed for seed in seeds for _ in questions]


def by_question(values: Sequence[float], seeds: int) -> list[float]:
    """The mean over the seeds of each question's values."""
    return numpy.reshape(values, (seeds, -1)).mean(axis=0).tolist()


def spread(values: Sequence[float], seeds: int) -> float | None:
    """The standard deviation of the seeds' means; None of one seed."""
    return float(numpy.reshape(values, (seeds, -1)).mean(axis=1).std(ddof=1)) if seeds > 1 else None
