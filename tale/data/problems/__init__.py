"""Short stories with several numbers and one question: a benchmark that needs no file."""

from tale.data.problems.sampling import load

__all__ = ["load"]
