"""A GRPO run killed at random moments, resumed each time: python -m tests.killed_grpo [kills=10].

Each start is a process that SIGKILL ends after a random number of events: an answer that is yielded, a step that is
computed, or a checkpoint that is about to count. The final adapter must be that of an uninterrupted run, byte for byte.
Prints where each kill fell.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.inference.transformers.engine import TransformersEngine
from tale.storage import files
from tale.training import loop
from tale.training.run import train
from tests.tiny_llama import END_ID, byte_tokenizer, tiny_llama

RECIPE = [
    *["recipe=tiny/grpo", "grpo.reward_funcs=[lcpo_exact]", "grpo.budget_range=[2, 6]", "grpo.length_penalty=0.01"],
    *["grpo.max_completion_length=12", "train.max_steps=24", "train.epochs=10", "train.save_steps=3"],
    *["train.eval_steps=4", "lora.lora_dropout=0.3", "resume=auto"],
]


def main() -> None:
    kills = int(dict([word.split("=") for word in sys.argv[1:]]).get("kills", 10))
    with tempfile.TemporaryDirectory() as place:
        write_model(Path(place, "model"))
        given = [*RECIPE, f"model.name_or_path={place}/model"]
        train(load(TrainRecipe, [*given, f"output={place}/whole"]))
        chance, moments = random.Random(0), []
        for kill in range(kills):
            kind = ("answer", "step", "checkpoint")[kill % 3]
            after = {"answer": chance.randint(1, 40), "step": chance.randint(1, 5), "checkpoint": 1}[kind]
            said = killed([*given, f"output={place}/cut"], kind, after)
            moments.append(f"{said} {kind}s, at {at(Path(place, 'cut'))}")
        train(load(TrainRecipe, [*given, f"output={place}/cut"]))
        whole, cut = (Path(place, run, "adapter", "adapter_model.safetensors").read_bytes() for run in ("whole", "cut"))
    print("\n".join(f"killed after {moment}" for moment in moments))
    print("the adapter is the uninterrupted run's, byte for byte" if whole == cut else "the adapters DIFFER")
    sys.exit(whole != cut)


def write_model(folder: Path) -> None:
    """The tests' tiny model, whose answers end at any of 33 ids, so that their lengths differ."""
    model = tiny_llama()
    model.generation_config.eos_token_id = [*range(32), END_ID]
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def at(run: Path) -> str:
    """The latest checkpoint and journal."""
    names = [
        max((f.stem for f in run.glob(pattern)), default="none") for pattern in ("checkpoints/*.ckpt", "rollouts/t*")
    ]
    return ", ".join(names)


def killed(given: Sequence[str], kind: str, after: int) -> int:
    """Start the run in a process that is killed after so many events of this kind; their number."""
    process = multiprocessing.get_context("fork").Process(target=doomed, args=(given, kind, after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"the run ended by itself: {process.exitcode}"
    return after


def doomed(given: Sequence[str], kind: str, after: int) -> None:
    """Train until killed."""
    events = count(1)

    def counted(function: Callable, counts: Callable[..., bool]) -> Callable:
        def wrapped(*arguments):
            result = function(*arguments)
            if counts(result, *arguments) and next(events) == after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    if kind == "answer":
        yields = lambda result, *_: result is not None  # noqa: E731
        TransformersEngine._completion = counted(TransformersEngine._completion, yields)
    elif kind == "step":
        loop.train_step = counted(loop.train_step, lambda *_: True)
    else:
        replace = os.replace

        def replaced(source: Path, target: Path) -> None:
            if Path(target).suffix == ".ckpt" and next(events) == after:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        files.os.replace = replaced
    train(load(TrainRecipe, [*given]))


if __name__ == "__main__":
    main()
