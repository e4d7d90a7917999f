"""The cost of calls: tokens, wall time, dollars."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.sections import PriceConfig
from tale.inference.requests import Completion


@dataclass
class Cost:
    """The cost of all calls in a journal: tokens, and the engine's wall time in seconds."""

    calls: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, completion: Completion, seconds: float) -> None:
        """Add one call and its seconds."""
        self.calls += 1
        self.prompt_tokens += completion.prompt_tokens
        self.tokens += completion.tokens
        self.seconds += seconds

    def shown(self, prices: PriceConfig) -> str:
        """One line, with dollars if the recipe has prices."""
        paid = dollars(prices, self.prompt_tokens, self.tokens)
        price = f", ${paid:.4f}" if paid else ""
        return f"{self.calls:,} calls, {self.prompt_tokens:,} tokens in, {self.tokens:,} out{price}"


def dollars(prices: PriceConfig, prompt_tokens: int, tokens: int) -> float:
    """The price of prompt and output tokens; cached tokens count in full."""
    return (prompt_tokens * prices.input + tokens * prices.output) / 1e6
