"""Declaring a key of a recipe: its help text, default and range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from types import MappingProxyType
from typing import Any

LARGEST = 2**31 - 1  # every library accepts it as an integer


@dataclass(frozen=True)
class Bounds:
    """The range of a number, by pydantic's words; `allow` is one number outside it. NaN is never inside."""

    ge: float = -math.inf
    gt: float = -math.inf
    lt: float = math.inf
    le: float = LARGEST
    allow: float | None = None

    def __contains__(self, value: float) -> bool:
        return value == self.allow or (self.ge <= value <= self.le and self.gt < value < self.lt)

    def __str__(self) -> str:
        words = {"at least": self.ge, "above": self.gt, "below": self.lt, "at most": self.le}
        limits = ", ".join(f"{word} {bound}" for word, bound in words.items() if math.isfinite(bound))
        return limits if self.allow is None else f"{self.allow}, or {limits}"


def opt(
    meaning: str,
    default: Any = MISSING,
    *,
    choices: Any = None,
    contains: str = "",
    pattern: tuple[str, str] | None = None,
    renamed_from: str = "",
    renamed_values: Mapping[str, str] = MappingProxyType({}),
    objectives: Sequence[str] = (),
    **bounds: float,
) -> Any:
    """A field with the help text that `--help` prints; without a default the recipe must set it.

    A number, or every number of a list, must be within `Bounds(**bounds)`; a text, or every text of a list, must be
    among `choices`; a text must contain `contains`, or match `pattern`, a regular expression with its description. With
    `objectives`, those of a training that read the key, it is refused with others. `renamed_from` is the key's old
    name, and `renamed_values` maps old values to new ones: an old name or value is refused with an error that gives the
    new one.
    """
    metadata = {"help": meaning, "bounds": Bounds(**bounds) if bounds else None, "choices": choices}
    metadata |= {"contains": contains, "pattern": pattern, "renamed_from": renamed_from}
    metadata |= {"renamed_values": renamed_values, "objectives": objectives}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default="???" if default is MISSING else default, metadata=metadata)


def seed_option(what: str, default: Any) -> Any:
    """A field for a seed or a list of seeds, within the range that torch, NumPy and vLLM all accept."""
    return opt(what, default, ge=0, le=2**32 - 1)


def budget_line_option(whose: str = "") -> Any:
    """A field for the line of a prompt that asks for a budget (`tale.data.prompts.budgeted`)."""
    meaning = (
        f"{whose}last line of a prompt with a budget, with {{budget}} as placeholder; with {{question}} in it, the "
        "whole prompt, with {format} as placeholder of the answer format; default: the paper's line (Table 1)"
    )
    return opt(meaning, None, contains="{budget}")


def section(kind: type, renamed_from: str = "", objectives: Sequence[str] = ()) -> Any:
    """A nested section of a recipe; `renamed_from` is its old name, `objectives` as in `opt`."""
    return field(default_factory=kind, metadata={"renamed_from": renamed_from, "objectives": objectives})


class Recipe:
    """The configuration of a command: a dataclass whose fields are the keys; its docstring describes the command."""

    source = "recipe"  # where keys are read from: a "recipe" file, the "adapter"'s run, or "none": overrides only
    kept = True  # whether it is written to a run folder, and so must not contain secrets
    bare = ""  # the key of an argument given without `key=`, if any
