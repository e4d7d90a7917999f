"""What `--help` says of a command: its recipes and its keys."""

from __future__ import annotations

from tale.config.fields import Recipe
from tale.config.keys import rows
from tale.config.recipes import load, recipe_names
from tale.errors import UserError


def describe(kind: type[Recipe]) -> str:
    """The help text: what the command does, the shipped recipes of this kind, and every key."""
    fitting = [name for name in recipe_names() if _fits(kind, name)]
    needless = "none is needed" + (", the model is that of the adapter's own run" if kind.source == "adapter" else "")
    recipes = ", ".join(fitting) or needless
    lines = [str(kind.__doc__), "", f"recipes: {recipes}", "", "keys (override any with key=value):"]
    lines += [f"  {key:<32} {type_:<22} {meaning}{default}" for key, type_, default, meaning in rows(kind)]
    return "\n".join(lines)


def _fits(kind: type[Recipe], name: str) -> bool:
    try:
        load(kind, [f"recipe={name}"])
    except UserError:
        return False
    return True
