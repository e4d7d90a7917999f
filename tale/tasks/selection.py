"""The questions of a run: a benchmark's rows without duplicates, on one side of the split, up to the limit."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.fabric.utilities import rank_zero_only

from tale.config.sections import ContextSplit, TaskConfig
from tale.data.question import Question
from tale.data.splits import contexts, deduplicate, preamble, split_by_context, subsample
from tale.errors import UserError
from tale.tasks import load


def select_questions(config: TaskConfig) -> tuple[list[Question], int]:
    """The questions, and how many duplicates were dropped.

    A sample of `limit` questions keeps the file's order, and a larger one contains every smaller one.

    Raises:
        UserError: unknown benchmark, missing or damaged file, or fewer questions than the limit.
    """
    questions, dropped = deduplicate(load(config.name, config.path, config.split, config.limit, config.seed))
    if config.context_split is not ContextSplit.all:
        said = preamble(questions)
        if said:
            rank_zero_only(print)(f"task.context_split={config.context_split.value}: {said}")
        whole, questions = (
            questions,
            split_by_context(questions, config.context_split.value, config.test_fraction, config.seed),
        )
        if not questions:
            raise UserError(_one_sided(config, whole))
    if config.limit is not None:
        if config.limit > len(questions):
            raise UserError(f"task.limit={config.limit}: there are only {len(questions)} questions")
        questions = subsample(questions, config.limit, config.seed)
    return questions, dropped


def _one_sided(config: TaskConfig, questions: Sequence[Question]) -> str:
    return (
        f"task.context_split={config.context_split.value}: {config.name} has no question there; its {len(questions)} "
        f"questions are of {len(set(contexts(questions)))} contexts, a share of "
        f"task.test_fraction={config.test_fraction} of which is drawn for the side 'test': take another task.seed or "
        "test_fraction"
    )


def metric_of(questions: Sequence[Question]) -> str:
    """The metric of all questions.

    Raises:
        UserError: there are questions of several metrics, which have no common score.
    """
    metrics = {question.metric for question in questions}
    if len(metrics) > 1:
        raise UserError("task: some questions have an answer, others a reference; use a separate file for each kind")
    return metrics.pop()
