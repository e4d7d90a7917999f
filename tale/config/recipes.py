"""Reading recipes: YAML and `key=value` overrides, merged into a command's dataclass.

A recipe is a file in `recipes/`, or anywhere (`recipe=path/to/my.yaml`); keys that it does not set come from the
recipes named by its `base`. An unknown key, a wrong type or a value out of range is one error that names key and file,
raised before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tale.config.fields import Recipe as Base
from tale.config.keys import iter_keys, renamed_keys
from tale.config.sections import Dtype
from tale.errors import UserError, nearest
from tale.secrets import find_secret
from tale.storage.folder import check_output

# Inside the package when installed from a wheel, next to it in a checkout.
PLACES = [Path(__file__).resolve().parents[above] / "recipes" for above in (1, 2)]
RECIPES = next((folder for folder in PLACES if folder.is_dir()), PLACES[0])
FROM_OUTSIDE = re.compile(r"(\\*)\$\{(?![\w.\[\]]+\})")  # an interpolation of something other than a key of the recipe
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
Recipe = TypeVar("Recipe", bound=Base)


def load(kind: type[Recipe], arguments: list[str]) -> Recipe:
    """Resolve `recipe=<name or path>` and its `key=value` overrides into a typed recipe.

    `merge` and `ask` need no recipe: the model is that of the run that trained `adapter`. Nor do commands that work on
    runs: overrides set all their keys.

    Raises:
        UserError: no such recipe, an unknown key, a wrong type, a value out of range, or a missing key.
    """
    pairs = dict(_parse_override(argument, kind.bare) for argument in arguments)
    beside_adapter = kind.source == "adapter" and "recipe" not in pairs and "adapter" in pairs
    alone = kind.source == "none" and "recipe" not in pairs
    file: Path | None = None
    if beside_adapter:
        file = Path(pairs["adapter"]).parent / "recipe.yaml"
    elif not alone:
        file = _find_recipe(pairs.pop("recipe", None))
    if file and not file.is_file():
        raise UserError(f"adapter={pairs['adapter']}: no run there ({file} is missing); give its base by recipe=…")
    where = f"{file}: " if file else ""
    own = lambda key: "" if any(re.match(rf"{re.escape(given)}([.\[]|$)", key) for given in pairs) else where  # noqa: E731
    try:
        if file and beside_adapter:  # the recipe in a trained adapter's run folder names its base model
            check_output(Path(pairs["adapter"]))
            content = OmegaConf.masked_copy(read_yaml(file), "model")
            _check_keys(kind, kind, content, where)
        else:
            content = _with_bases(kind, file) if file else OmegaConf.create()
        for name, hint in typing.get_type_hints(kind).items():
            if _kinds(hint) and name in content:
                content[name] = _typed(hint, content[name])
        merged = OmegaConf.merge(OmegaConf.structured(kind), content)
        for key, value in pairs.items():
            _override(kind, merged, key, value)
        missing = OmegaConf.missing_keys(merged)
        if missing:
            raise UserError(f"{where}{', '.join(sorted(missing))}: not given")
        _check_texts(to_container(merged), own, kind)
        recipe = typing.cast(Recipe, OmegaConf.to_object(merged))
    except (OmegaConfBaseException, RecursionError) as error:
        at = getattr(error, "full_key", None)
        raise UserError(f"{where}{f'{at}: ' if at else ''}{_reason(error)}") from error
    _check_range(recipe, own)
    _resolve_auto(recipe)
    return recipe


def _with_bases(kind: type, file: Path, above: tuple[Path, ...] = ()) -> DictConfig:
    """A recipe's file merged over those that its `base` names; of several bases a later one overrides an earlier one.

    Raises:
        UserError: a base is missing or in a cycle, or a key of one of the files is unknown.
    """
    chain = (*above, file.resolve())
    if file.resolve() in above:
        raise UserError(f"{above[0]}: base: {' → '.join(each.stem for each in chain)} comes back to itself")
    content = read_yaml(file)
    names = content.pop("base", [])
    names = [names] if isinstance(names, str) else names
    if (not OmegaConf.is_list(names) and not isinstance(names, list)) or not all(isinstance(n, str) for n in names):
        raise UserError(f"{file}: base: must be a recipe's name, or a list of names")
    bases = [_with_bases(kind, _find_recipe(name, f"{file}: base: "), chain) for name in names]
    _check_keys(kind, kind, content, f"{above[0]}: base {file}: " if above else f"{file}: ")
    return typing.cast(DictConfig, OmegaConf.merge(*bases, content))


def _kinds(hint: Any) -> dict[str, type] | None:
    """The kinds that sections of a list can have, by name; None for other types of keys."""
    return getattr(typing.get_args(hint)[0], "kinds", None) if typing.get_origin(hint) is list else None


def _typed(hint: Any, value: Any) -> Any:
    """The value of a key; in a list whose sections have kinds, each section as its kind's dataclass."""
    kinds = _kinds(hint)
    if not kinds or not OmegaConf.is_list(value):
        return value
    return [OmegaConf.merge(OmegaConf.structured(kinds[node.kind]), node) for node in value]


def read_yaml(file: Path) -> DictConfig:
    """A recipe's file, interpolations not resolved.

    Raises:
        UserError: it cannot be read, or is not a YAML mapping: a duplicate key, endless aliases or nesting.
    """
    try:
        content = OmegaConf.load(file)
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = getattr(error, "strerror", None) or _reason(error)
        raise UserError(f"{file}: cannot be read ({reason}); is this a recipe, or the folder of a run?") from error
    if not isinstance(content, DictConfig):
        raise UserError(f"{file}: the recipe must be a section of `key: value` lines")
    return content


def _resolve_auto(recipe: Any) -> None:
    """Replace `auto` by its value on this machine, so that the recipe in a run's folder records the value."""
    model: Any = getattr(recipe, "model", None)
    fabric: Any = getattr(recipe, "fabric", None)
    for each in [model] if model else getattr(recipe, "models", []):
        if each.dtype is Dtype.auto:
            from tale.hardware.devices import fast_dtype  # imports torch, which not every command needs

            each.dtype = Dtype(fast_dtype())
    if getattr(fabric, "precision", None) == "auto":
        fabric.precision = "bf16-mixed" if model.dtype is Dtype.bfloat16 else "32-true"


def to_container(recipe: Container) -> Any:
    """A recipe or a section as dicts and lists, interpolations not resolved."""
    return OmegaConf.to_container(recipe, resolve=False)


def to_yaml(recipe: Any) -> str:
    """The resolved recipe with all defaults; it can be loaded as `recipe=<file>`."""
    return OmegaConf.to_yaml(_literal(dataclasses.asdict(recipe)))


def _literal(value: Any) -> Any:
    """The same value with `${` escaped in its texts."""
    if isinstance(value, dict):
        return {key: _literal(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_literal(entry) for entry in value]
    if isinstance(value, Enum):
        return value.name
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(str(file.relative_to(RECIPES).with_suffix("")) for file in RECIPES.rglob("*.yaml"))


def _parse_override(argument: str, bare: str | None) -> tuple[str, str]:
    if bare and not re.match(r"[\w.\[\]]+=", argument):
        return bare, argument
    key, equals, value = argument.partition("=")
    if not (key.strip(".[]") and equals):
        raise UserError(f"{argument!r}: arguments are key=value, such as recipe=sft_llama8b or optimizer.lr=2e-5")
    return key, value


def _find_recipe(name: str | None, whose: str = "recipe=") -> Path:
    if name is None:
        raise UserError(f"recipe=… is missing; shipped recipes: {', '.join(recipe_names())}")
    shipped = RECIPES / f"{name}.yaml"
    file = shipped if shipped.is_file() else Path(name)
    if not file.is_file():
        known = recipe_names()
        advice = nearest(name, known) or f" Shipped: {', '.join(known)}"
        raise UserError(f"{whose}{name}: no such recipe or file.{advice}")
    return file


def _override(kind: type, recipe: Any, key: str, value: str) -> None:
    """Set one key, such as `optimizer.lr` or `methods[0].label`. A text is taken literally, all else parsed as YAML."""
    hint: Any = kind
    for part in re.finditer(r"[^.\[\]]+", key):
        if typing.get_origin(hint) is list and part.group().isdecimal():
            hint = typing.get_args(hint)[0]
            if getattr(hint, "kinds", None):
                hint = OmegaConf.get_type(OmegaConf.select(recipe, key[: part.end() + 1])) or hint
        elif part.group() == "kind" and getattr(hint, "kinds", None):
            raise UserError(f"{key}={value}: each kind has its own keys; give the whole list")
        else:
            hint = _key_type(kind, hint, part.group(), key[: part.start()], "")
    try:
        if hint in (str, str | None):
            OmegaConf.update(recipe, key, None if value in ("", "null") else _literal(value))
        else:
            parsed = OmegaConf.from_dotlist([f"value={value}"])
            _check_keys(kind, hint, parsed._get_node("value"), "", key)
            OmegaConf.update(recipe, key, _typed(hint, parsed["value"]))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{key}={value}: {getattr(error, 'problem', None) or _reason(error)}") from error


def _check_keys(kind: type, hint: Any, node: Any, where: str, path: str = "") -> None:
    """Refuse unknown keys in a section or a list of sections, at any depth."""
    element = typing.get_args(hint)[0] if typing.get_origin(hint) is list else None
    if element and OmegaConf.is_list(node):
        for i in range(len(node)):
            _check_keys(kind, element, node._get_node(i), where, f"{path}[{i}]")
            if not dataclasses.is_dataclass(element) and OmegaConf.is_config(node._get_node(i)):  # OmegaConf accepts it
                raise UserError(f"{where}{path}[{i}] must be one value, not a list or a section")
    if element and OmegaConf.is_dict(node):
        raise UserError(f"{where}{path} must be a list, such as [a, b]")
    if not dataclasses.is_dataclass(hint) or node is None or (hint is not kind and node._is_none()):
        return
    if not OmegaConf.is_dict(node):
        raise UserError(f"{where}{path or 'the recipe'} must be a section of `key: value` lines")
    prefix = f"{path}." if path else ""
    if kinds := getattr(hint, "kinds", None):
        named = to_container(node).get("kind")
        for name in node if named is None else ():
            if not any(name in typing.get_type_hints(each) for each in kinds.values()):
                _key_type(kind, hint, name, prefix, where)
        if now := next((each for each, of in kinds.items() if named and of.renamed_from == named), None):
            raise UserError(f"{where}{prefix}kind: {named} is now {now}")
        if named not in kinds:
            given = "not given" if named is None else f"is {named!r}"
            raise UserError(f"{where}{prefix}kind: {given}; one of {', '.join(kinds)}")
        hint = kinds[named]
    for name in node:
        _check_keys(kind, _key_type(kind, hint, name, prefix, where), node._get_node(name), where, f"{prefix}{name}")


def _key_type(kind: type, section: Any, name: Any, prefix: str, where: str) -> Any:
    """The type of the key `name` of a section.

    Raises:
        UserError: no such key; the error names the keys of that name elsewhere in the recipe, else the nearest one.
    """
    hints = typing.get_type_hints(section) if dataclasses.is_dataclass(section) else {}
    if name in hints:
        return hints[name]
    if name in (now := renamed_keys(section)):
        inner = [f"{old} is {new}" for old, new in renamed_keys(typing.get_type_hints(section)[now[name]]).items()]
        within = f", in which {', '.join(inner)}" if inner else ""
        raise UserError(f"{where}unknown key {prefix}{name}: it is now {prefix}{now[name]}{within}")
    if of := [other for other, each in getattr(section, "kinds", {}).items() if name in typing.get_type_hints(each)]:
        raise UserError(f"{where}unknown key {prefix}{name}: kind {' or '.join(of)} has it, not {section().kind}")
    elsewhere = [key for key, *_ in iter_keys(kind) if key.rpartition(".")[2] == name]
    advice = f" Did you mean {' or '.join(map(repr, elsewhere))}?" if elsewhere else nearest(str(name), hints)
    known = f" Known: {', '.join(hints)}." if hints else ""
    raise UserError(f"{where}unknown key {prefix}{name}.{advice or known}")


def _check_texts(value: Any, where: Callable[[str], str], kind: type[Base], key: str = "") -> None:
    """Refuse texts with secrets if the recipe is saved, unwritable characters, and interpolations from outside it."""
    if isinstance(value, dict):
        for name, entry in value.items():
            _check_texts(entry, where, kind, f"{key}.{name}" if key else str(name))
    if isinstance(value, list):
        for i, entry in enumerate(value):
            _check_texts(entry, where, kind, f"{key}[{i}]")
    if not isinstance(value, str):
        return
    if any(len(found[1]) % 2 == 0 for found in FROM_OUTSIDE.finditer(value)):
        raise UserError(f"{where(key)}{key}: ${{…:…}} is not resolved in a recipe; write the value itself")
    if UNWRITABLE.search(value):
        raise UserError(f"{where(key)}{key}: has a character that files and paths cannot have; remove it")
    if kind.kept and (reason := find_secret(value)):
        raise UserError(f"{where(key)}{key}: {reason}")


def _check_range(section: Any, where: Callable[[str], str], prefix: str = "") -> None:
    for item in dataclasses.fields(section):
        value, key = getattr(section, item.name), prefix + item.name
        if dataclasses.is_dataclass(value):
            _check_range(value, where, f"{key}.")
        for i, entry in enumerate(value if isinstance(value, list) else []):
            if dataclasses.is_dataclass(entry):
                _check_range(entry, where, f"{key}[{i}].")
        rules = item.metadata
        bounds, choices, contains, pattern = map(rules.get, ("bounds", "choices", "contains", "pattern"))
        if pattern and value is not None and not re.fullmatch(pattern[0], value):  # the value itself may be a secret
            raise UserError(f"{where(key)}{key}: must be {pattern[1]}")
        if contains and value is not None and contains not in value:
            raise UserError(f"{where(key)}{key}={value}: must have {contains} in it")
        for each in value if isinstance(value, list) else [value]:
            if choices and each in (now := rules["renamed_values"]):
                raise UserError(f"{where(key)}{key}={each}: it is now {now[each]}")
            if choices and each not in choices:
                raise UserError(f"{where(key)}{key}={each}: one of {', '.join(name or 'null' for name in choices)}")
        numbers = value if isinstance(value, list) else [] if value is None else [value]
        if bounds and not all(number in bounds for number in numbers):
            raise UserError(f"{where(key)}{key}={value}: must be {bounds}")


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', None) or 'not YAML'}"
    return str(error).strip().splitlines()[0]
