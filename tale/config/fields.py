"""How a key of a recipe is declared: its meaning, default and range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from types import MappingProxyType
from typing import Any

LARGEST = 2**31 - 1  # what every library takes as an integer, and more than any number here has to be


@dataclass(frozen=True)
class Bounds:
    """Where a number lies: from `least` to `most`, or strictly `above` and `below`, or `at`. NaN lies nowhere."""

    least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    most: float = LARGEST
    at: float | None = None

    def hold(self, value: float) -> bool:
        """Whether the number lies there."""
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
    """A field with its meaning, which `--help` prints; without a default the recipe must give it.

    A number, or each in a list of them, lies within `Bounds(**bounds)`; a text is among `one_of`, has `holds` in it, or
    matches `like`, a regular expression that comes with its meaning. `was` is the key's earlier name, and
    `values_were` maps earlier values to those of now: both are refused with the name of now.
    """
    metadata = {"help": meaning, "bounds": Bounds(**bounds) if bounds else None, "one_of": one_of, "holds": holds}
    metadata |= {"like": like, "was": was, "values_were": values_were}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default="???" if default is MISSING else default, metadata=metadata)


def seed_of(what: str, default: Any) -> Any:
    """A field for a seed, or several: what torch, NumPy and vLLM all take."""
    return opt(what, default, least=0, most=2**32 - 1)


def budget_line(whose: str = "") -> Any:
    """A field for how a budget is asked for (`tale.data.prompts.budgeted`)."""
    meaning = (
        f"{whose}last line of a prompt with a budget, {{budget}} standing for it; with {{question}} in it the whole "
        "prompt, {format} standing for its answer format; default: the paper's (Table 1)"
    )
    return opt(meaning, None, holds="{budget}")


def group(kind: type, was: str = "") -> Any:
    """A nested section of a recipe; `was` is its earlier name."""
    return field(default_factory=kind, metadata={"was": was})


class Recipe:
    """What a command is given: its keys are the fields of a dataclass, its docstring says what the command does."""

    source = "recipe"  # the file that its keys come from: "recipe"; the "adapter"'s own run; "none", as they are few
    kept = True  # whether it is written to a run folder, and so must hold no secret
    bare = ""  # the key of an argument without `key=`, if there is one
