"""Puts the recipes into the wheel, from where `tale` reads them without a checkout; all else is in pyproject.toml."""

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRecipes(build_py):
    """`recipes/` goes to `tale/recipes/`."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copytree("recipes", Path(self.build_lib, "tale", "recipes"), dirs_exist_ok=True)


setup(cmdclass={"build_py": WithRecipes})
