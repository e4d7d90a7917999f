"""One strict reader: what is not exactly of its type is refused by file and line, whatever damaged it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pytest

from tale.config.recipes import load, read_yaml
from tale.data.records import Record
from tale.errors import UserError
from tale.search.recipe import SearchRecipe
from tale.storage.strict_json import Count, UnitInterval, parse, read_json, read_jsonl
from tests.data.test_records import FOUND
from tests.scripts import benchmark

fuzz_readers = benchmark("fuzz_readers")


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    count: Count
    share: UnitInterval = 0.5
    inner: tuple[Inner, ...] = ()


def read(content: str | bytes) -> Outer:
    return parse(content if isinstance(content, bytes) else content.encode(), Outer, "f:1", "an outer", "mend it")


def test_an_integer_is_a_float_and_a_missing_key_its_default() -> None:
    assert read('\ufeff {"count": 3, "share": 1, "inner": [{"kind": "b"}, {}]}\n') == Outer(
        3, 1.0, (Inner("b"), Inner())
    )
    assert isinstance(read('{"count": 3, "share": 1}').share, float)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"share": 1}', "missing required field `count`"),
        ('{"count": 1.0}', "Expected `int`, got `float`"),
        ('{"count": true}', "Expected `int`, got `bool`"),
        ('{"count": "1"}', "Expected `int`, got `str`"),
        ('{"count": -1}', "Expected `int` >= 0"),
        (f'{{"count": 1{"0" * 400}}}', "Expected `int` <= 9007199254740992"),
        (f'{{"count": 1{"0" * 9999}}}', "Integer value out of range"),
        ('{"count": 1, "share": 1e400}', "Number out of range"),
        ('{"count": 1, "share": NaN}', "not a whole JSON object"),
        ('{"count": 1, "more": 1}', "unknown field `more`"),
        ('{"count": 1, "count": 2}', "field `count` twice"),
        ('{"count": 1, "inner": [{"kind": "c"}]}', r"Invalid enum value 'c' - at `$.inner[0].kind`"),
        ('{"count": 1, "inner": [{"sort": "a"}]}', r"unknown field `sort` - at `$.inner[0]`"),
        ('{"count": 1, "inner": [{"kind": "\\ud800"}]}', "not a whole JSON object"),
        ('{"count": 1, "inner": ' + "[" * 5000, "Expected `object`, got `array`"),
        ("[" * 100_000, "Expected `object`, got `array`"),
        ('{"count": 1', "not a whole JSON object"),
        ('{"count": 1} {}', "not a whole JSON object"),
        (b'{"count": 1, "inner": [{"kind": "\xff"}]}', "can't decode byte 0xff"),
        ("", "not a whole JSON object"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_of_its_type_is_refused(content: str | bytes, complaint: str) -> None:
    with pytest.raises(UserError) as error:
        read(content)
    assert str(error.value).startswith("f:1: ")
    assert complaint in str(error.value)
    assert str(error.value).endswith("; mend it")


def test_a_line_ends_at_a_newline_alone(tmp_path: Path) -> None:
    """And a half one at the end is left out where a file grows."""
    file = tmp_path / "f"
    file.write_bytes('{"a": "\u2028\x85"}\r\n\n{"a": ""}\n{"a'.encode())
    lines = read_jsonl(file, dict[str, str], "one", "mend it", growing=True)
    assert list(lines) == [(f"{file}:1", {"a": "\u2028\x85"}), (f"{file}:3", {"a": ""})]


@pytest.mark.parametrize("change", [{"target": None}, {"reason": "none"}, {"budget": None}, {"budget": 0}])
def test_a_record_that_contradicts_itself_is_none(change: dict, tmp_path: Path) -> None:
    (tmp_path / "r").write_text(json.dumps(asdict(FOUND) | change))
    with pytest.raises(UserError, match="r: not a record"):
        read_json(tmp_path / "r", Record, "a record", "mend it")


NO_RECIPES = {
    "lists without end": "a: " + "[" * 3000,
    "sections without end": "{a: " * 3000,
    "a key twice": "a: 1\na: 2\n",
    "NUL": "a: \0",
    "a number": "42",
    "a list": "[1]",
    "a list as a key": "? [1]\n: 2",
    "5000 digits": f"a: {'9' * 5000}",
}


@pytest.mark.parametrize("content", NO_RECIPES.values(), ids=NO_RECIPES)
def test_a_recipe_that_is_no_yaml_of_keys_and_values_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(UserError, match=r"mine\.yaml: "):
        read_yaml(tmp_path / "mine.yaml")


@pytest.mark.parametrize("value", ["[[0.5]]", "[{a: 0.5}]"])
def test_a_list_of_values_holds_no_lists_and_no_sections(value: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"output: o\nbudget_fractions: {value}\n")
    for given in ([f"recipe={tmp_path / 'mine.yaml'}"], ["recipe=tiny/search", f"budget_fractions={value}"]):
        with pytest.raises(UserError, match=r"budget_fractions\[0\] must be one value, not a list or a section"):
            load(SearchRecipe, given)


def test_damage_ends_in_a_refusal_or_in_a_whole_value(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    kinds = fuzz_readers.files(tmp_path).keys()
    results = fuzz_readers.fuzz(15, seed=1)
    assert results.keys() == kinds
    assert all(found["inputs"] == found.get("refused", 0) + found.get("read", 0) for found in results.values())
