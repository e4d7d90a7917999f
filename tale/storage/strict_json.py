"""The strict reader of every JSON file: typed by a dataclass, errors with file and line.

Nothing is converted: `1.0`, `true` and `"1"` are not integers (an integer is a float). Unknown and duplicate keys are
errors, and missing ones unless the dataclass has a default (for files written before the key existed). NaN, infinities
and lone surrogates are not JSON.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from msgspec import UNSET, Meta, MsgspecError, UnsetType, ValidationError, convert, defstruct, field, to_builtins
from msgspec.json import Decoder

from tale.errors import UserError

T = TypeVar("T")
Exact = Callable[[str], Any] | None

# A number of tokens, calls, questions or bytes; JSON itself has no limit.
Count = Annotated[int, Meta(ge=0, le=2**53)]
# The same, at least 1.
PositiveInt = Annotated[int, Meta(ge=1, le=2**53)]
Seconds = Annotated[float, Meta(ge=0)]
UnitInterval = Annotated[float, Meta(ge=0, le=1)]


def read_jsonl(
    path: Path, kind: type[T], what: str, remedy: str, *, exact: Exact = None, growing: bool = False
) -> Iterator[tuple[str, T]]:
    """Yield each object of a UTF-8 JSON Lines file with its "file:line", counted from 1; blank lines are skipped.

    Error messages say `what` a line should be ("a search record") and the `remedy`. `exact=Decimal` keeps every digit
    of untyped numbers with a point or an exponent. In a `growing` file an incomplete last line is skipped too: it is
    being written, or its writer was killed.

    Raises:
        UserError: no such file, or a line that is not JSON of this type; file and line are named.
    """
    for where, line in iter_lines(path, remedy, growing=growing):
        yield where, parse(line, kind, where, what, remedy, exact=exact)


def iter_lines(path: Path, remedy: str, *, growing: bool = False) -> Iterator[tuple[str, bytes]]:
    """The lines of `read_jsonl`, not yet parsed."""
    try:
        # Bytes split at "\n" only: str.splitlines would also split at U+2028, which text may contain.
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not (growing and not line.endswith(b"\n")):
                    yield f"{path}:{number}", line
    except OSError as error:
        raise _unreadable(path, error, remedy) from error


def read_json(path: Path, kind: type[T], what: str, remedy: str) -> T:
    """The JSON value of a file; it raises as `read_jsonl` does."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error, remedy) from error
    return parse(content, kind, str(path), what, remedy)


def parse(content: bytes, kind: type[T], where: str, what: str, remedy: str, *, exact: Exact = None) -> T:
    """One JSON value in UTF-8, strictly of this type.

    Raises:
        UserError: it is not; the message begins with `where`.
    """
    try:
        content = content.removeprefix(codecs.BOM_UTF8)
        value = _decoder(kind, exact).decode(content)  # type: ignore[arg-type]  # a class is hashable
        json.loads(content, object_pairs_hook=_check_unique)  # msgspec silently keeps the last of duplicate keys
        return _from_strict(value, kind)
    except ValidationError as error:
        raise UserError(f"{where}: not {what} ({error}); {remedy}") from error
    except (MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"{where}: not a whole JSON object ({error}): cut off, or of another format; {remedy}"
        ) from error


def convert_value(value: Any, kind: type[T], where: str, what: str, remedy: str) -> T:
    """A value from a JSON file, strictly of this type; it raises as `parse` does."""
    try:
        return _from_strict(convert(value, _strict_type(kind)), kind)
    except ValidationError as error:
        raise UserError(f"{where}: not {what} ({error}); {remedy}") from error


def _unreadable(path: Path, error: OSError, remedy: str) -> UserError:
    return UserError(f"{path}: cannot be read ({error.strerror or error}); {remedy}")


def _check_unique(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValidationError(f"Object contains field `{twice}` twice")


@cache
def _decoder(kind: Any, exact: Exact) -> Decoder:
    return Decoder(_strict_type(kind), float_hook=exact)


def _strict_type(kind: Any) -> Any:
    """`kind` with structs in place of its classes: only for structs can msgspec refuse unknown keys."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        keys = [(f.name, _strict_type(hints[f.name]), *_default(f)) for f in fields(kind)]
        return defstruct(kind.__name__, keys, forbid_unknown_fields=True, kw_only=True)
    if is_typeddict(kind):  # all keys are optional
        keys = [
            (name, _strict_type(hint) | UnsetType, UNSET)
            for name, hint in get_type_hints(kind, include_extras=True).items()
        ]
        return defstruct(kind.__name__, keys, forbid_unknown_fields=True)
    origin = get_origin(kind)
    if origin in (None, Literal):
        return kind
    if origin is Annotated:
        return Annotated[(_strict_type(kind.__origin__), *kind.__metadata__)]
    inner = tuple(map(_strict_type, get_args(kind)))
    return Union[inner] if origin is UnionType else origin[inner]  # noqa: UP007


def _from_strict(value: Any, kind: type[T]) -> T:
    """Convert a value of `_strict_type(kind)` to `kind`."""
    return convert(to_builtins(value) if is_typeddict(kind) else value, kind, from_attributes=True)


def _default(key: Field) -> tuple[Any, ...]:
    if key.default_factory is not MISSING:
        return (field(default_factory=key.default_factory),)
    return () if key.default is MISSING else (key.default,)
