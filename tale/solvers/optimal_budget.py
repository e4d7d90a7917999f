"""Chain of thought under the budget β* that a search of the same question found: an upper bound for estimators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tale.config.fields import opt
from tale.data.question import Question
from tale.data.records import iter_records, optimal_budgets, read_records
from tale.errors import UserError
from tale.estimators import Estimate
from tale.estimators.base import Oracle
from tale.inference import Sampling
from tale.inference.scheduler import Solver
from tale.solvers.budgeted import Budgeted


@dataclass
class OptimalBudget(Budgeted):
    """Ask for chain of thought under β*, if the search found one."""

    renamed_from = "searched"

    title = "CoT, searched budget"

    records: str | None = opt("records.jsonl of a search over the same questions", None)

    @property
    def reads(self) -> list[str]:
        """Paths of the method's input files and folders."""
        return [*super().reads, *([self.records] if self.records else [])]

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse records of other questions, or of a search with other sampling or another `budget_line`."""
        if not self.records:
            raise UserError(f"{where}.records: kind optimal_budget needs the records.jsonl of a search")
        records = read_records(Path(self.records))
        known = optimal_budgets(records)
        if not any(known.get(q.question_hash) for q in questions):
            raise UserError(f"{where}.records: {self.records} has no budget for any of these questions")
        for record in records:
            was = f"{where}.records: {self.records} was searched with"
            if record.sampling != sampling:
                raise UserError(f"{was} {record.sampling}, this run decodes with {sampling}")
            if record.budget_line != self.budget_line:
                raise UserError(f"{was} budget_line={record.budget_line}, this method has {self.budget_line}")

    def estimate(self, question: Question, sampling: Sampling) -> Solver[Estimate]:
        """β*."""
        yield []
        return self._oracle.estimate([question])[0]

    @cached_property
    def _oracle(self) -> Oracle:
        return Oracle(optimal_budgets(iter_records(Path(str(self.records)))))
