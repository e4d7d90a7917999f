"""One strict reader for every JSON file that is read back: typed by a dataclass, errors with file and line.

Nothing is converted on the way: `1.0`, `true` and `"1"` are no integers (an integer is a float), unknown keys are
errors, and keys that are given twice, and missing ones unless the dataclass has a default (files from before there was
such a key). NaN, infinities and half surrogate pairs are no JSON.
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
# At least one of them.
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


def read_lines(
    path: Path,
    kind: type[T],
    what: str,
    remedy: str,
    *,
    exact: Exact = None,
    growing: bool = False,
) -> Iterator[tuple[str, T]]:
    """Yield each object of a UTF-8 JSON Lines file with its place, "file:line" from 1; blank lines are skipped.

    `what` a line should be ("a search record") and the `remedy` are for errors. `exact=Decimal` keeps every digit of
    untyped numbers with a point or an exponent. In a `growing` file a last line without its end is skipped too: it is
    being written, or its writer was killed.

    Raises:
        UserError: no such file, or a line that is no JSON or none of this kind; file and line are named.
    """
    for where, line in each_line(path, remedy, growing=growing):
        yield where, parse(line, kind, where, what, remedy, exact=exact)


def each_line(path: Path, remedy: str, *, growing: bool = False) -> Iterator[tuple[str, bytes]]:
    """The lines of `read_lines`, not yet parsed."""
    try:
        # Bytes split at "\n" alone: text may hold U+2028, which str.splitlines takes for the end of a line.
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not (growing and not line.endswith(b"\n")):
                    yield f"{path}:{number}", line
    except OSError as error:
        raise _unreadable(path, error, remedy) from error


def read_file(path: Path, kind: type[T], what: str, remedy: str) -> T:
    """The one JSON value of a file; it raises as `read_lines` does."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error, remedy) from error
    return parse(content, kind, str(path), what, remedy)


def parse(content: bytes, kind: type[T], where: str, what: str, remedy: str, *, exact: Exact = None) -> T:
    """One JSON value in UTF-8, strictly of this kind.

    Raises:
        UserError: it is none; `where` it stands is named.
    """
    try:
        content = content.removeprefix(codecs.BOM_UTF8)
        value = _decoder(kind, exact).decode(content)  # type: ignore[arg-type]  # a class is hashable
        json.loads(content, object_pairs_hook=_check_unique)  # msgspec lets the last of a key's values win
        return _opened(value, kind)
    except ValidationError as error:
        raise UserError(f"{where}: not {what} ({error}); {remedy}") from error
    except (MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"{where}: not a whole JSON object ({error}): cut off, or of another format; {remedy}"
        ) from error


def typed(value: Any, kind: type[T], where: str, what: str, remedy: str) -> T:
    """A value out of a JSON file, strictly of this kind; it raises as `parse` does."""
    try:
        return _opened(convert(value, _closed(kind)), kind)
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
    return Decoder(_closed(kind), float_hook=exact)


def _closed(kind: Any) -> Any:
    """`kind` with structs for its classes, since msgspec passes unknown keys over in all others."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        keys = [(f.name, _closed(hints[f.name]), *_default(f)) for f in fields(kind)]
        return defstruct(kind.__name__, keys, forbid_unknown_fields=True, kw_only=True)
    if is_typeddict(kind):  # of which none has to be there
        keys = [
            (name, _closed(hint) | UnsetType, UNSET) for name, hint in get_type_hints(kind, include_extras=True).items()
        ]
        return defstruct(kind.__name__, keys, forbid_unknown_fields=True)
    origin = get_origin(kind)
    if origin in (None, Literal):
        return kind
    if origin is Annotated:
        return Annotated[(_closed(kind.__origin__), *kind.__metadata__)]
    inner = tuple(map(_closed, get_args(kind)))
    return Union[inner] if origin is UnionType else origin[inner]  # noqa: UP007


def _opened(value: Any, kind: type[T]) -> T:
    """A value of `_closed(kind)` as one of `kind`."""
    return convert(to_builtins(value) if is_typeddict(kind) else value, kind, from_attributes=True)


def _default(key: Field) -> tuple[Any, ...]:
    if key.default_factory is not MISSING:
        return (field(default_factory=key.default_factory),)
    return () if key.default is MISSING else (key.default,)
