"""Generation. An engine takes prompts and a way of sampling, and gives back completions with their token counts."""

from tale.engines.base import Completion, Engine, Request, Sampling, complete

__all__ = ["Completion", "Engine", "Request", "Sampling", "complete"]
