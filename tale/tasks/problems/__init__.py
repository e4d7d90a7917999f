"""Short stories with several numbers and one question: a benchmark that needs no file."""

from tale.tasks.problems.sampling import load

__all__ = ["load"]
