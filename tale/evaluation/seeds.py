"""Several seeds in one evaluation: every question is answered once per seed.

Replies, and figures of them, are ordered seed by seed, each with the same questions in the same order.
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
    """Refuse seeds with which the same answers would be counted twice.

    Raises:
        UserError: a seed is given twice, or there are several and decoding is greedy.
    """
    if len(set(recipe.seeds)) < len(recipe.seeds):
        raise UserError(f"seeds={recipe.seeds}: a seed given twice gives the same answers twice; give each once")
    if len(recipe.seeds) > 1 and recipe.sampling.temperature == 0:
        raise UserError(
            f"seeds={recipe.seeds}: greedy decoding gives the same answers for each; set sampling.temperature above 0, "
            "or leave seeds out"
        )


def sampling_of(recipe: EvaluateRecipe) -> Sampling:
    """The sampling of a run, with the first of its seeds."""
    sampling = Sampling(**vars(recipe.sampling))
    return replace(sampling, seed=recipe.seeds[0]) if recipe.seeds else sampling


def seeds_of(recipe: EvaluateRecipe) -> list[int] | list[None]:
    """The seeds recorded in replies: with a single one, None for the sampling's."""
    return recipe.seeds if len(recipe.seeds) > 1 else [None]


def repeat_for_seeds(questions: Sequence[Question], recipe: EvaluateRecipe) -> tuple[list[Question], list[int | None]]:
    """The questions repeated for each seed, and the seed of each."""
    seeds = seeds_of(recipe)
    return [*questions] * len(seeds), [seed for seed in seeds for _ in questions]


def mean_over_seeds(values: Sequence[float], seeds: int) -> list[float]:
    """Each question's mean over the seeds."""
    return numpy.reshape(values, (seeds, -1)).mean(axis=0).tolist()


def std_over_seeds(values: Sequence[float], seeds: int) -> float | None:
    """The standard deviation of the seeds' means; None for one seed."""
    return float(numpy.reshape(values, (seeds, -1)).mean(axis=1).std(ddof=1)) if seeds > 1 else None
