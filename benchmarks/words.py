"""The words of a benchmark's command line: its own options, and what is left for a recipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tale.errors import UserError


def options(defaults: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """A benchmark's own words of the command line over their defaults, and the other words, which are a recipe's."""
    mine = [word for word in sys.argv[1:] if "=" in word and word.split("=")[0] in defaults]
    return defaults | dict(word.split("=", 1) for word in mine), [word for word in sys.argv[1:] if word not in mine]


def named(words: str, known: Iterable[str], option: str) -> list[str]:
    """The names in an option such as `cases=sft,dpo`.

    Raises:
        UserError: one of them is not known.
    """
    names, known = words.split(","), list(known)
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"{option}={','.join(unknown)}: known are {', '.join(known)}")
    return names


def only(defaults: dict[str, str]) -> dict[str, str]:
    """The same of a benchmark that takes no recipe.

    Raises:
        UserError: a word is none of its options.
    """
    own, others = options(defaults)
    if others:
        raise UserError(f"{' '.join(others)}: known are {', '.join(f'{name}=' for name in defaults)}")
    return own
