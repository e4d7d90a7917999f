"""What the thin scripts share: `--help`, recipes from the command line, and errors a person can act on."""

from __future__ import annotations

import faulthandler
import sys
import warnings
from collections.abc import Callable
from typing import Any

from transformers.utils import logging as transformers_logging

from tale.errors import UserError
from tale.hardware import keep_freed_memory
from tale.recipes import describe, load


def run(kind: type, main: Callable[[Any], None], usage: str) -> None:
    """Load a recipe of `kind` from `sys.argv` and call `main` with it. Bad input: one message, exit code 2."""
    arguments = sys.argv[1:]
    if not arguments or _help_wanted():
        print(f"{usage}\n\n{describe(kind)}")
        sys.exit(0 if arguments else 2)
    guarded(lambda: main(load(kind, arguments)))


def guarded(main: Callable[[], None], usage: str | None = None) -> None:
    """Call `main`, with a quiet transformers; a `UserError` is printed alone, with exit code 2.

    Where `usage` is given, `--help` prints it instead.
    """
    if usage and _help_wanted():
        print(usage.strip())
        return
    faulthandler.enable(sys.__stderr__)  # a crash in native code says where it was
    keep_freed_memory()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped (training: with resume=auto)", file=sys.stderr)
        sys.exit(130)


def _help_wanted() -> bool:
    return bool({"-h", "--help"} & set(sys.argv[1:]))
