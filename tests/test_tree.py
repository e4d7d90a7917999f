"""The packages: no import cycle, between files or between packages, and few modules beside them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tale
from tale.cli import COMMANDS
from tests import ROOT

PACKAGE = Path(tale.__file__).parent
TESTS = ROOT / "tests"
FILES = {
    ".".join(("tale", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}


def imported(file: Path) -> Iterator[str]:
    """The modules of this package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


GRAPH = {module: {other for other in imported(file) if other in FILES} - {module} for module, file in FILES.items()}


def package(module: str) -> str:
    """`tale.data` of `tale.data.splits`."""
    return ".".join(module.split(".")[:2])


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other() -> None:
    assert cycle(GRAPH) == []


def test_no_packages_import_each_other() -> None:
    packages: dict[str, set[str]] = {}
    for module, others in GRAPH.items():
        packages.setdefault(package(module), set()).update({package(o) for o in others} - {package(module), "tale"})
    assert cycle(packages) == []


def test_a_cycle_is_found() -> None:
    """The test of the test: a file of `tale.data` that imports one of `tale.models`, which imports data."""
    assert cycle({**GRAPH, "tale.data.splits": {"tale.models.adapters"}}) != []


def test_every_file_is_reached() -> None:
    """But for packages' own files: from another one, or from a script."""
    scripts = (ROOT / "scripts").glob("*.py")
    reached = set().union(*GRAPH.values(), *(set(imported(file)) for file in scripts))
    reached |= {place.partition(":")[0] for command in COMMANDS.values() for place in (command.recipe, command.main)}
    methods = {module for module in FILES if module.startswith("tale.solvers.")}  # found by their names
    tasks = {module for module in FILES if module.startswith("tale.tasks.")}
    packages = {module for module, file in FILES.items() if file.name == "__init__.py"}
    assert FILES.keys() - reached - packages - methods - tasks == set()


def test_few_modules_are_beside_the_packages() -> None:
    assert len([file for file in PACKAGE.glob("*.py") if file.name != "__init__.py"]) <= 5


def test_tests_mirror_the_packages() -> None:
    """But for tests of whole commands, and of what is in benchmarks/."""
    folders = {file.parent for file in TESTS.rglob("test_*.py")} - {TESTS}
    packages = {file.parent.relative_to(PACKAGE) for file in FILES.values()}
    assert {folder.relative_to(TESTS) for folder in folders} - packages == {Path("benchmarks"), Path("commands")}


def test_names_of_tests_are_under_60_characters() -> None:
    """What does not fit is the first line of the docstring."""
    found = [name for file in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())]
    assert [name for name in found if len(name) >= 60] == []


@pytest.mark.parametrize("module", sorted(FILES))
def test_every_file_says_what_it_is_for(module: str) -> None:
    content = FILES[module].read_text()
    assert not content.strip() or ast.get_docstring(ast.parse(content))
