"""A generated benchmark: short stories with several numbers and one question."""

from tale.tasks.problems.sampling import load

__all__ = ["load"]
