"""The documents: links lead somewhere, every document is reached, every command in them loads as its recipe."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from pkgutil import resolve_name

import pytest

import tale
from tale.cli import COMMANDS
from tale.config.keys import iter_keys
from tale.config.recipes import load, recipe_names, to_yaml
from tale.config.training import TrainRecipe
from tests import ROOT

README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WITH_COMMANDS = [*DOCUMENTS, *sorted((ROOT / "recipes").rglob("*.yaml"))]
named = pytest.mark.parametrize("file", WITH_COMMANDS, ids=lambda file: str(file.relative_to(ROOT)))

# --- Files and links ------------------------------------------------------------------------------------------------


def test_the_list_of_files_is_whole() -> None:
    package = Path(tale.__file__).parent
    listed = set(re.findall(r"^\| `([\w/]+\.py)` \|", (ROOT / "docs" / "files.md").read_text(), re.MULTILINE))
    assert listed == {str(f.relative_to(package)) for f in package.rglob("*.py") if f.name != "__init__.py"}


def links(file: Path) -> list[tuple[Path, str]]:
    """Every link to a file of the repository, with its anchor."""
    targets = re.findall(r"\]\(([^)\s]+)\)", file.read_text())
    parts = [target.partition("#") for target in targets if "://" not in target]
    return [((file.parent / path).resolve() if path else file, anchor) for path, _, anchor in parts]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    """To a file, and to a heading in it as its anchor is made: in small letters, with `-` for a space."""
    for target, anchor in links(file):
        assert target.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, anchor


def test_every_document_is_reached_from_the_readme() -> None:
    reached, ahead = set[Path](), [README]
    while ahead:
        file = ahead.pop()
        reached.add(file)
        ahead += [target for target, _ in links(file) if target.suffix == ".md" and target not in reached]
    assert set(DOCUMENTS) - reached == set()


def test_the_readme_fits_two_screens() -> None:
    assert len(README.read_text().splitlines()) <= 160


# --- Commands -------------------------------------------------------------------------------------------------------

WORD = r"""(?:'[^']*'|"[^"]*"|[^\s'"\\;|#])(?:'[^']*'|"[^"]*"|[^\s'"\\;|])*"""
COMMAND = re.compile(rf"(?:scripts/|\btale )(\w+)(?:\.py)?((?:(?:[ ]|\\\n)+{WORD})+)")
PLACEHOLDER = re.compile(r"[\w.\[\]]+=(?:…|\$\w+)")  # for a number, for instance, or a shell's variable


def shell(file: Path) -> Iterator[str]:
    """What a document has in code: fenced blocks, and spans on one line; of a recipe its comments."""
    text = file.read_text()
    if file.suffix == ".yaml":
        yield re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        return
    fence = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    yield from (body for language, body in fence.findall(text) if language in ("bash", "yaml"))
    yield from (re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]*)`", fence.sub("", text)))


def commands(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Every command with its arguments.

    An argument whose whole value is a placeholder, `…` or a variable of the shell, is left out. Within a value they
    stand for a text.
    """
    for code in shell(file):
        for name, arguments in COMMAND.findall(code):
            words = [re.sub(r"\$\{(\w+)\}", r"\1", word) for word in shlex.split(arguments.replace("\\\n", " "))]
            kept = [word for word in words if not PLACEHOLDER.fullmatch(word)]
            if name in COMMANDS and "recipe=…" not in words and words != ["…"]:
                yield name, kept


@named
def test_every_command_of_a_document_loads_as_its_recipe(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, body in re.findall(r"^```yaml\n# ([\w.]+\.yaml)(.*?)^```", file.read_text(), re.MULTILINE | re.DOTALL):
        Path(name).write_text(f"#{body}")  # a recipe that the document shows
    for name, arguments in commands(file):
        for adapter in [Path(word.removeprefix("adapter=")) for word in arguments if word.startswith("adapter=")]:
            adapter.parent.mkdir(parents=True, exist_ok=True)
            adapter.with_name("recipe.yaml").write_text(to_yaml(load(TrainRecipe, ["recipe=tiny/sft"])))
        load(resolve_name(COMMANDS[name].recipe), arguments)


@cache
def keys() -> set[str]:
    return {
        re.sub(r"\[i]", "", key) for command in COMMANDS.values() for key, *_ in iter_keys(resolve_name(command.recipe))
    }


@named
def test_every_key_that_a_document_gives_a_value_is_a_key(file: Path) -> None:
    for code in shell(file):
        for key in re.findall(r"(?<![\w.=-])(\w+(?:\[\d\])?(?:\.\w+)+)=", code):
            assert re.sub(r"\[\d\]", "", key) in keys(), key


def test_every_recipe_is_in_the_list_of_recipes() -> None:
    """By its name, or by its end where the ones before it in the row have the same folder."""
    text = (ROOT / "docs" / "usage.md").read_text()
    listed = set[str]()
    for row in re.findall(r"^\| (`.+?`) \|", text, re.MULTILINE):
        folder = ""
        for name in re.findall(r"`([\w/…]+)`", row):
            folder = name.rpartition("/")[0] if "…" not in name else folder
            listed.add(name.replace("…", folder))
    assert set(recipe_names()) - listed - {name for name in recipe_names() if name.startswith("tiny/")} == set()
