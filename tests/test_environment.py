"""constraints.txt, environment.yml and pyproject.toml name the same packages at the same versions."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tale.models import embedded
from tests import ROOT


def pinned(lines: list[str]) -> dict[str, str]:
    """Version by package, from lines that are all `name==version`, perhaps with extras."""
    versions = {}
    for line in lines:
        match = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?==([\w.]+)", line)
        assert match, f"{line!r} is no exact version"
        name = canonicalize_name(match.group(1))
        assert name not in versions, f"{name} is there twice"
        versions[name] = match.group(2)
    return versions


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return pinned([line for line in lines if line and not line.startswith("#")])


@pytest.fixture(scope="module")
def conda() -> dict[str, str]:
    *_, pip_section = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return pinned(pip_section["pip"])


@pytest.fixture(scope="module")
def direct() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"])
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_every_dependency_has_an_allowed_tested_version(
    direct: dict[str, Requirement], constraints: dict[str, str]
) -> None:
    assert sorted(direct.keys() - constraints.keys()) == []
    assert [name for name, wanted in direct.items() if not wanted.specifier.contains(constraints[name])] == []


def test_the_oldest_versions_are_the_lower_bounds(direct: dict[str, Requirement], constraints: dict[str, str]) -> None:
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    for name, version in pinned([line for line in lines if not line.startswith("#")]).items():
        (bound,) = [each.version for each in direct[name].specifier if each.operator == ">="]
        assert version == f"{bound}.0"
        assert Version(version) < Version(constraints[name])


def test_conda_has_the_dependencies_at_the_tested_versions(
    direct: dict[str, Requirement], conda: dict[str, str], constraints: dict[str, str]
) -> None:
    assert conda == {name: constraints[name] for name in direct}


def test_what_tests_the_openai_engine_brings_what_it_needs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["openai"] == ["openai>=3.54", "anyio>=4.16", "httpx2>=2.16"]
    assert set(extras["openai"]) | set(extras["serve"]) < set(extras["dev"])


def test_conda_has_the_oldest_python_that_pyproject_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert project["requires-python"] == ">=3.11"
    assert "python=3.11" in dependencies


@pytest.mark.parametrize("stolen", ["2.6.2", "2.6.3"])
def test_the_stolen_lightning_releases_are_shut_out(
    stolen: str, direct: dict[str, Requirement], conda: dict[str, str], constraints: dict[str, str]
) -> None:
    assert not direct["lightning"].specifier.contains(stolen)
    for versions in (constraints, conda):
        assert stolen not in (versions["lightning"], versions.get("pytorch-lightning"))


def test_the_packages_of_every_embedded_model_are_pinned(constraints: dict[str, str]) -> None:
    """The Makefile reads from here what it installs."""
    pins = {package: model.version for model in embedded.MODELS for package in model.packages}
    assert pins.items() <= constraints.items()
    assert len(pins) == 6 + 22 + 1


def test_the_docs_name_embedded_models_packages_and_licences() -> None:
    lines = (ROOT / "docs" / "usage.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `embedded:")]
    for model, (source, packages, file, hub) in zip(embedded.MODELS, rows, strict=True):
        assert (source, hub) == (f"`{model.source}`", f"`{model.hub}`")
        assert packages.strip("`") in model.command
        assert file == f"`{model.origin}`, {model.size / 1e6:,.0f} MB, {model.licence}"
