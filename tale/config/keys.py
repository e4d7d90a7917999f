"""All keys of a recipe with their help texts."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from dataclasses import MISSING
from enum import Enum
from typing import Any

from tale.config.fields import LARGEST

KeyHelp = tuple[str, str, str, str]  # the key, its type, its default, and its help text with its bounds


def iter_keys(kind: type, prefix: str = "") -> Iterator[KeyHelp]:
    """The keys of a recipe or a section, nested sections included, in order."""
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        hint, key = hints[item.name], prefix + item.name
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from iter_keys(hint, key + ".")
            continue
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        default = default.value if isinstance(default, Enum) else default
        shown = {"???": "required", "None": "null", "True": "true", "False": "false"}.get(str(default), str(default))
        bounds = str(item.metadata["bounds"] or "").removesuffix(f", at most {LARGEST}")
        kinds = ", ".join(sorted(getattr(kind, "kinds", {}))) if item.name == "kind" else ""
        meaning = item.metadata["help"] + (f": {kinds}" if kinds else "") + (f"; {bounds}" if bounds else "")
        yield key, _type_name(hint), shown, meaning
        if typing.get_origin(hint) is list and dataclasses.is_dataclass(typing.get_args(hint)[0]):
            yield from iter_keys(typing.get_args(hint)[0], key + "[i].")
            yield from _of_kinds(typing.get_args(hint)[0], key + "[i].")


def renamed_keys(section: Any) -> dict[str, str]:
    """The keys of a section by their old names."""
    if not dataclasses.is_dataclass(section):
        return {}
    return {old: item.name for item in dataclasses.fields(section) if (old := item.metadata.get("renamed_from"))}


def unread_keys(section: Any, objective: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of a training recipe that are not at their default although this objective does not read them."""
    fresh = type(section)()
    for item in dataclasses.fields(section):
        value, default = getattr(section, item.name), getattr(fresh, item.name)
        if objective in (item.metadata.get("objectives") or [objective]):
            if dataclasses.is_dataclass(value):
                yield from unread_keys(value, objective, f"{prefix}{item.name}.")
        elif value != default:
            yield from _changed(value, default, prefix + item.name)


def _changed(value: Any, default: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The keys of a section, or the key itself, whose value is not the default."""
    if not dataclasses.is_dataclass(value):
        yield from [(key, value)] if value != default else []
        return
    for item in dataclasses.fields(value):
        yield from _changed(getattr(value, item.name), getattr(default, item.name), f"{key}.{item.name}")


def _of_kinds(section: type, prefix: str) -> Iterator[KeyHelp]:
    """The keys that only some kinds of a section have, each once."""
    shared = {key for key, *_ in iter_keys(section, prefix)}
    found: dict[KeyHelp, list[str]] = {}
    for name, each in sorted(getattr(section, "kinds", {}).items()):  # whatever the order of imports
        for row in iter_keys(each, prefix):
            if row[0] not in shared:
                found.setdefault(row, []).append(name)
    for (key, type_, default, meaning), kinds in found.items():
        yield key, type_, default, f"kind {', '.join(kinds)}: {meaning}"


def _type_name(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "|".join(hint.__members__)
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return re.sub(r"(?:\w+\.)+(\w+)", r"\1", str(hint))  # a class by its name, without its module
