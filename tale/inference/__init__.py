"""Generation. An engine completes conversations, and counts their tokens."""

from tale.inference.requests import Completion, Engine, Message, Request, Sampling, complete

__all__ = ["Completion", "Engine", "Message", "Request", "Sampling", "complete"]
