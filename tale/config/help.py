"""The `--help` text of a command, and the document of all keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import cleandoc

from tale.config.fields import Recipe
from tale.config.keys import KeyHelp, iter_keys
from tale.config.recipes import load, recipe_names
from tale.errors import UserError


def describe(kind: type[Recipe]) -> str:
    """The help text: what the command does, the shipped recipes of this kind, and every key."""
    fitting = [name for name in recipe_names() if _fits(kind, name)]
    needless = "none is needed" + (", the model is that of the adapter's own run" if kind.source == "adapter" else "")
    recipes = ", ".join(fitting) or needless
    lines = [str(kind.__doc__), "", f"recipes: {recipes}", "", "keys (override any with key=value):"]
    lines += [f"  {key:<32} {type_:<22} {meaning} [{default}]" for key, type_, default, meaning in iter_keys(kind)]
    return "\n".join(lines)


def document(recipes: Mapping[str, type[Recipe]]) -> str:
    """Every key of every command in Markdown: a table for each command, and one for each section.

    A section that several commands share is listed once.
    """
    own: dict[str, list[KeyHelp]] = {command: [] for command in recipes}
    sections: dict[tuple[KeyHelp, ...], list[str]] = {}
    for command, kind in recipes.items():
        for keys in _by_section(iter_keys(kind)):
            if len(keys) == 1:
                own[command] += keys
            else:
                sections.setdefault(tuple(keys), []).append(command)
    parts = [HEAD]
    for command, kind in recipes.items():
        parts += [f"## tale {command}", cleandoc(str(kind.__doc__)), _table(own[command])]
    for shared, commands in sections.items():
        parts += [f"## {_section(shared[0])} ({', '.join(commands)})", _table(shared)]
    return "\n\n".join(parts) + "\n"


HEAD = """# Keys of a recipe

`tale keys` writes this file from the schema. A key is given in a recipe's file or as `key=value` on the command line.
Commands are at the top, sections that they share below. Where a key was renamed, an error names the new one."""


def _section(key: KeyHelp) -> str:
    return key[0].partition(".")[0].partition("[")[0]


def _by_section(keys: Iterable[KeyHelp]) -> Iterable[list[KeyHelp]]:
    found: dict[str, list[KeyHelp]] = {}
    for key in keys:
        found.setdefault(_section(key), []).append(key)
    return found.values()


def _table(keys: Iterable[KeyHelp]) -> str:
    rows = [(f"`{key}`", f"`{type_}`", f"`{default}`", meaning) for key, type_, default, meaning in keys]
    escaped = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
    lines = [("key", "type", "default", "meaning"), ("---",) * 4, *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fits(kind: type[Recipe], name: str) -> bool:
    try:
        load(kind, [f"recipe={name}"])
    except UserError:
        return False
    return True
