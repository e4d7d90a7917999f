"""All methods by kind, which is the name of the method's file."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tale import solvers
from tale.solvers.base import Method

for module in pkgutil.iter_modules(solvers.__path__, f"{solvers.__name__}."):
    if module.name != __name__:
        import_module(module.name)
METHODS: dict[str, type[Method]] = Method.kinds
