"""The commands: `--help`, recipes from the command line, and one-line errors."""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name
from tempfile import NamedTemporaryFile

from tale.config.help import describe, document
from tale.config.recipes import load
from tale.errors import UserError, nearest
from tale.hardware.malloc import keep_freed_memory
from tale.secrets import redact
from tale.text import log_to_terminal, printable, printable_lines


@dataclass(frozen=True)
class Command:
    """A command's description and example, and the import paths of its recipe class and its function."""

    does: str
    example: str
    recipe: str
    main: str

    def usage(self, program: str) -> str:
        """The first line of its help."""
        return f"{self.does}: {program} {self.example}"


COMMANDS = {
    "search": Command(
        "Search each question's shortest right answer",
        "recipe=search_llama8b [key=value …]",
        "tale.search.recipe:SearchRecipe",
        "tale.search.run:run_search",
    ),
    "train": Command(
        "Train LoRA adapters by SFT, pairwise DPO or GRPO",
        "recipe=sft_llama8b [key=value …]",
        "tale.config.training:TrainRecipe",
        "tale.memory.plan:plan_or_train",
    ),
    "evaluate": Command(
        "Accuracy or BLEU, and output tokens, of methods",
        "recipe=eval_llama8b [key=value …]",
        "tale.evaluation.recipe:EvaluateRecipe",
        "tale.evaluation.run:evaluate",
    ),
    "wordings": Command(
        "Ways to ask for a budget, over budgets, models and tasks",
        "recipe=wordings_qwen [key=value …]",
        "tale.wordings.recipe:WordingsRecipe",
        "tale.wordings.run:run_wordings",
    ),
    "analyse": Command(
        "Elasticity, ideal budgets and search paths",
        "'records=[runs/grid/records.jsonl]' output=runs/analysis",
        "tale.analysis.recipe:AnalyseRecipe",
        "tale.analysis.run:analyse",
    ),
    "estimate": Command(
        "Train and score budget estimators",
        "'train_records=[runs/search/records.jsonl]' 'grid_records=[…]' output=runs/budgets",
        "tale.analysis.estimators.recipe:EstimateRecipe",
        "tale.analysis.estimators.run:run_estimate",
    ),
    "serve": Command(
        "Budgets in front of a server",
        "recipe=serve upstream=http://localhost:8000/v1 [key=value …]",
        "tale.serve.recipe:ServeRecipe",
        "tale.serve.run:serve",
    ),
    "report": Command(
        "Runs as one page",
        "'runs=[runs/search,runs/sft,runs/eval]' output=runs/report [key=value …]",
        "tale.results.recipe:ReportRecipe",
        "tale.results.run:report",
    ),
    "merge": Command(
        "Merge an adapter into its base",
        "adapter=runs/sft_qwen/adapter output=my_model",
        "tale.training.merge:MergeRecipe",
        "tale.training.merge:merge",
    ),
    "ask": Command(
        "Answers of the base model and of an adapter",
        'adapter=runs/sft_qwen/adapter "Tom has 3 boxes of 12 pens. How many pens does he have?"',
        "tale.evaluation.ask:AskRecipe",
        "tale.evaluation.ask:ask",
    ),
}


def main() -> None:
    """`tale <command> …`, as `scripts/<command>.py …` in a checkout."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        sys.argv[1:] = rest
        return run(name, f"tale {name}")
    lines = [f"  tale {name:<10} {command.does}" for name, command in COMMANDS.items()]
    lines += [f"  tale {'keys':<10} Every key of every command, in Markdown"]
    usage = "\n".join(["tale <command> [key=value …], and tale <command> --help for its keys", "", *lines])
    if name in ("-h", "--help"):
        return guarded(lambda: print(usage))
    if name == "keys":
        return guarded(lambda: print(keys(), end=""))
    return guarded(lambda: _unknown(name))


def keys() -> str:
    """The document of all keys."""
    return document({name: resolve_name(command.recipe) for name, command in COMMANDS.items()})


def _unknown(name: str) -> None:
    known = f" Known: {', '.join(COMMANDS)}"
    raise UserError(f"tale {name}: no such command.{nearest(name, COMMANDS) or known}")


def run(name: str, program: str) -> None:
    """Load the recipe of a command from `sys.argv` and run it, `guarded`."""
    arguments, command = sys.argv[1:], COMMANDS[name]
    kind = resolve_name(command.recipe)
    if not arguments or _help_wanted():
        guarded(lambda: print(f"{command.usage(program)}\n\n{describe(kind)}"))
        sys.exit(0 if arguments else 2)
    guarded(lambda: resolve_name(command.main)(load(kind, arguments)))


def guarded(main: Callable[[], None], usage: str | None = None) -> None:
    """Call `main`, without transformers' log; if it fails, end the process with one line.

    Exit code 2 is for errors that the user can fix: a `UserError`, a file, too little memory. Any other exception is a
    bug: exit code 1, and its traceback is in a file that the line names. With `usage`, `--help` prints it instead.
    """
    if usage and _help_wanted():
        return guarded(lambda: print(usage.strip()))
    faulthandler.enable(sys.__stderr__ or sys.stderr)  # prints a traceback on a crash in native code
    keep_freed_memory()
    _quiet_transformers()
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    try:
        log_to_terminal(_log_level())
        main()
        sys.stdout.flush()  # writing buffered output may fail too
        return None
    except KeyboardInterrupt:
        line, code = "interrupted; the same command resumes where it stopped (training: with resume=auto)", 130
    except BrokenPipeError:
        line, code = "", 141  # the reader of the output has ended, as `head` does; the shell's exit code for it
    except Exception as error:
        line, code = _explained(error)
    _end_output()
    with suppress(OSError):
        print(line, end="\n" * bool(line), file=sys.stderr, flush=True)
    sys.exit(code)


def _log_level() -> str:
    level = os.environ.get("TALE_LOG_LEVEL", "info").lower()
    if level not in (known := ("debug", "info", "warning", "error")):
        raise UserError(f"TALE_LOG_LEVEL={level}: one of {', '.join(known)}")
    return level


def _quiet_transformers() -> None:
    """Silence transformers, which not every command imports: by its environment, or if it is imported already."""
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()


def _explained(error: Exception) -> tuple[str, int]:
    """One line about the error, and the exit code."""
    if isinstance(error, UserError):
        return f"error: {error}", 2
    reason = printable(redact(str(error) or type(error).__name__), 500)
    if isinstance(error, OSError):
        where = error.filename or "the output, or a file"
        return f"error: {printable(where)}: {error.strerror or reason}; finished results are kept", 2
    out_of_memory = "OutOfMemoryError" in map(
        attrgetter("__name__"), type(error).__mro__
    )  # torch's, without its import
    if isinstance(error, MemoryError) or out_of_memory or "can't allocate memory" in reason:
        return (
            f"error: not enough memory ({reason}); lower engine.batch_size, max_in_flight or train.micro_batch_size",
            2,
        )
    *_, frame = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    with NamedTemporaryFile("w", prefix="tale-", suffix=".traceback", encoding="utf-8", delete=False) as file:
        file.write(printable_lines(redact("".join(traceback.format_exception(error)))))
    said = f"unexpected {type(error).__name__} at {place}: {reason}"
    return f"{said}; this is a bug, its traceback is in {file.name}", 1


def _end_output() -> None:
    """Discard output that cannot be written, or Python would try again, and fail, at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _help_wanted() -> bool:
    return bool({"-h", "--help"} & set(sys.argv[1:]))
