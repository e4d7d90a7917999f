"""The questions of a run: a benchmark's rows without duplicates, on one side of the split, and as many as wanted."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.fabric.utilities import rank_zero_only

from tale.config.sections import BenchmarkConfig, Part
from tale.data.question import Question
from tale.data.splits import by_context, contexts, deduplicate, drawn, preamble
from tale.errors import UserError
from tale.storage.folder import Scoring
from tale.tasks import load


def select(config: BenchmarkConfig) -> tuple[list[Question], int]:
    """The questions, and how many duplicates were dropped.

    A draw of `count` keeps the file's order, and a larger draw contains every smaller one.

    Raises:
        UserError: unknown benchmark, missing or damaged file, or fewer questions than asked for.
    """
    questions, dropped = deduplicate(load(config.name, config.path, config.split, config.count, config.seed))
    if config.part is not Part.all:
        said = preamble(questions)
        if said:
            rank_zero_only(print)(f"benchmark.part={config.part.value}: {said}")
        whole, questions = questions, by_context(questions, config.part.value, config.held_out, config.seed)
        if not questions:
            raise UserError(_one_sided(config, whole))
    if config.count is not None:
        if config.count > len(questions):
            raise UserError(f"benchmark.count={config.count}: only {len(questions)} questions are there")
        questions = drawn(questions, config.count, config.seed)
    return questions, dropped


def _one_sided(config: BenchmarkConfig, questions: Sequence[Question]) -> str:
    return (
        f"benchmark.part={config.part.value}: {config.name} has no question there; its {len(questions)} questions "
        f"are of {len(set(contexts(questions)))} contexts, a share of benchmark.held_out={config.held_out} of which is "
        "drawn for the side 'test': take another benchmark.seed or held_out"
    )


def scoring(questions: Sequence[Question]) -> Scoring:
    """What their answers are measured by: right or wrong, or BLEU where they have reference texts.

    Raises:
        UserError: there are questions of both sorts, of which no single figure can be made.
    """
    kinds = {q.kind == "text" for q in questions}
    if len(kinds) > 1:
        raise UserError("benchmark: some questions have an answer, others a reference; give each sort its own file")
    return "bleu" if True in kinds else "accuracy"
