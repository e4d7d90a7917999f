"""Declaring a key of a recipe: its help text, default and range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from types import MappingProxyType
from typing import Any

LARGEST = 2**31 - 1  # every library accepts it as an integer


@dataclass(frozen=True)
class Bounds:
    """The range of a number: `least` to `most`, strictly `above` and `below`, or exactly `at`. NaN is never inside."""

    least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    most: float = LARGEST
    at: float | None = None

    def hold(self, value: float) -> bool:
        """Whether the number is in the range."""
        return value == self.at or (self.least <= value <= self.most and self.above < value < self.below)

    def __str__(self) -> str:
        words = {"at least": self.least, "above": self.above, "below": self.below, "at most": self.most}
        lies = ", ".join(f"{word} {bound}" for word, bound in words.items() if math.isfinite(bound))
        return lies if self.at is None else f"{self.at}, or {lies}"


def opt(
    meaning: str,
    default: Any = MISSING,
    *,
    one_of: Any = None,
    holds: str = "",
    was: str = "",
    values_were: Mapping[str, str] = MappingProxyType({}),
    like: tuple[str, str] | None = None,
    **bounds: float,
) -> Any:
    """A field with the help text that `--help` prints; without a default the recipe must set it.

    A number, or every number of a list, must be within `Bounds(**bounds)`; a text must be among `one_of`, contain
    `holds`, or match `like`, a regular expression with its description. `was` is the key's old name, and `values_were`
    maps old values to new ones: an old name or value is refused with an error that gives the new one.
    """
    metadata = {"help": meaning, "bounds": Bounds(**bounds) if bounds else None, "one_of": one_of, "holds": holds}
    metadata |= {"like": like, "was": was, "values_were": values_were}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default="???" if default is MISSING else default, metadata=metadata)


def seed_option(what: str, default: Any) -> Any:
    """A field for a seed or a list of seeds, within the range that torch, NumPy and vLLM all accept."""
    return opt(what, default, least=0, most=2**32 - 1)


def budget_line_option(whose: str = "") -> Any:
    """A field for the line of a prompt that asks for a budget (`tale.data.prompts.budgeted`)."""
    meaning = (
        f"{whose}last line of a prompt with a budget, with {{budget}} as placeholder; with {{question}} in it, the "
        "whole prompt, with {format} as placeholder of the answer format; default: the paper's line (Table 1)"
    )
    return opt(meaning, None, holds="{budget}")


def section(kind: type, was: str = "") -> Any:
    """A nested section of a recipe; `was` is its old name."""
    return field(default_factory=kind, metadata={"was": was})


class Recipe:
    """The configuration of a command: a dataclass whose fields are the keys; its docstring describes the command."""

    source = "recipe"  # where keys are read from: a "recipe" file, the "adapter"'s run, or "none": overrides only
    kept = True  # whether it is written to a run folder, and so must not contain secrets
    bare = ""  # the key of an argument given without `key=`, if any
