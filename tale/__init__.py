"""tale: training recipes that make a language model reason with fewer tokens (arXiv:2412.18547)."""

__version__ = "0.1.0"
