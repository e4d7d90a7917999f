"""A training step of this code against TRL's trainers, in one run.

    pip install -c constraints.txt -e '.[peers]'
    python benchmarks/training_speed.py 'data.records=[runs/gsm8k_zero/search/records.jsonl]'
    python benchmarks/training_speed.py … rounds=3 steps=4 cases=sft,dpo,dpo_reference sizes=1,4,16
    python benchmarks/training_speed.py … model.dtype=bfloat16 fabric.precision=bf16-mixed      # both sides in bfloat16
    python benchmarks/training_speed.py … profile=true           # no comparison: where a step of this code spends time

Fair, because both sides train the same model in the same type with LoRA on the same modules from the same initial
adapter, on the same token ids in the same order, `train.global_batch_size` (16) examples a step, with torch's AdamW at
a constant rate, the same gradient clipping. TRL computes what it must and no more: gradient checkpointing off, no
evaluation, no saving. Each measurement is a separate process, so that its peak memory is its own too, and its first
step does not count. This code's process keeps freed memory, as its scripts do (tale/hardware/malloc.py); TRL's runs as
a script of its user does.

First each side runs once at each of `sizes` as its micro-batch; TRL's SFTTrainer also with `padding_free=True`, where a
micro-batch is one row and attention masked. (Its `packing` also chooses which examples make a step, so the steps would
not be the same; a row of several examples is as fast.) TRL takes its fastest; this code takes its fastest of those with
no more memory than TRL's then has. The two alternate for `rounds` rounds, whose medians count. A size for which the
machine has not the memory is left out. For memory both are also set side by side at micro-batches of 16.

`sft` is the token mean on both sides. `dpo` is the paper's loss here and DPOTrainer's own there, which needs a
reference; `dpo_reference` is that standard loss on both sides, the reference being the model without its adapter.

Prints seconds a step, examples a second, peak memory, the ratios, how far apart the losses are, and the share of the
machine's measured peak that this code reached, in operations that the gradient needs (tale/training/throughput.py);
writes them to runs/benchmarks, with the losses of both sides as a picture.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from loss_curves import draw_losses
from report import publish
from step_profile import shares
from tqdm import tqdm
from training_steps import CASES, NO_MEMORY, apart, child, measure, ours, prepared
from trl_steps import theirs
from words import named, options

from tale.cli import guarded
from tale.config.recipes import load
from tale.config.training import TrainRecipe

SIDES = ("tale", "trl")
UNPADDED = " without padding"  # follows a size
EQUAL = "16"  # the micro-batch at which both sides' memory is compared: all examples of a step at once
Run = dict[str, Any]


def main() -> None:
    own, words = options({"rounds": "3", "steps": "4", "cases": ",".join(CASES), "sizes": "1,4,16", "profile": "false"})
    cases = named(own["cases"], CASES, "cases")
    if own["profile"] == "true":
        print(publish("training_profile", {case: child(__file__, "profile", case, "1", *words) for case in cases}))
        return
    report: dict[str, Any] = {"steps": int(own["steps"]), "rounds": int(own["rounds"])}
    for case in cases:
        report[case] = compare(case, own["sizes"].split(","), int(own["rounds"]), own["steps"], words)
    draw_losses({case: report[case]["losses"] for case in cases}, Path("runs/benchmarks/training_speed.png"))
    print(publish("training_speed", report))


def compare(case: str, sizes: list[str], rounds: int, steps: str, words: list[str]) -> dict[str, Any]:
    """Both sides at each micro-batch, then at the one chosen for each, in alternating rounds."""

    def measured(side: str, size: str) -> Run | None:
        number = size.removesuffix(UNPADDED)
        setting = side + size.removeprefix(number)
        return child(__file__, setting, case, steps, *words, f"train.micro_batch_size={number}")

    unpadded = [size + UNPADDED for size in sizes if size != "1"] if case == "sft" else []
    to_try = {"tale": sizes, "trl": sizes + unpadded}
    tried = {
        side: {size: measured(side, size) for size in tqdm(to_try[side], desc=f"{case}: {side}")} for side in SIDES
    }
    chosen = choose(tried)
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    for _ in tqdm(range(rounds), desc=f"{case}: rounds"):
        for side in SIDES:
            runs[side].append(measured(side, chosen[side]))
    batch = load(TrainRecipe, [*CASES[case], *words]).train.global_batch_size
    found = figures(runs, batch, same_loss=case != "dpo")
    return {"micro-batch": chosen} | found | {"micro-batches": overview(tried), **equal(tried)}


def choose(tried: dict[str, dict[str, Run | None]]) -> dict[str, str]:
    """TRL's fastest micro-batch; ours that takes no more memory than that one, or, if none does, the least."""
    fitting = {side: {size: run for size, run in of.items() if run} for side, of in tried.items()}
    if not all(fitting.values()):
        raise SystemExit("sizes: at none of them both sides have the memory; give smaller ones")
    theirs, mine = fitting["trl"], fitting["tale"]
    fastest = min(theirs, key=lambda size: seconds(theirs[size]))
    small = [size for size, run in mine.items() if run["peak_gb"] <= theirs[fastest]["peak_gb"]]
    least = min(mine, key=lambda size: mine[size]["peak_gb"])
    return {"tale": min(small or [least], key=lambda size: seconds(mine[size])), "trl": fastest}


def seconds(run: Run) -> float:
    """The median of its steps."""
    return median(run["seconds"])


def figures(runs: dict[str, list[Run]], batch: int, same_loss: bool) -> dict[str, Any]:
    """What came of the rounds; losses are compared where both sides have the same one."""
    step = {side: median(s for run in of for s in run["seconds"]) for side, of in runs.items()}
    memory = {side: max(run["peak_gb"] for run in of) for side, of in runs.items()}
    losses = {side: of[0]["loss"] for side, of in runs.items()}
    return {
        "seconds a step": {side: round(taken, 4) for side, taken in step.items()},
        "examples a second": {side: round(batch / taken, 3) for side, taken in step.items()},
        "times faster": round(step["trl"] / step["tale"], 2),
        "peak GB": memory,
        "times the memory": round(memory["tale"] / memory["trl"], 2),
        "share of the measured peak": round(median(s for run in runs["tale"] for s in run["share_of_peak"]), 3),
        "losses": losses,
        **({"largest difference of losses": apart(*losses.values())} if same_loss else {}),
    }


def overview(tried: dict[str, dict[str, Run | None]]) -> dict[str, dict[str, Any]]:
    """Seconds a step and peak GB of each micro-batch."""
    return {
        f"{side}: seconds a step, peak GB": {
            size: [round(seconds(run), 2), run["peak_gb"]] if run else NO_MEMORY for size, run in of.items()
        }
        for side, of in tried.items()
    }


def equal(tried: dict[str, dict[str, Run | None]]) -> dict[str, Any]:
    """Both sides' memory at one micro-batch, where it was tried."""
    if EQUAL not in tried["tale"]:
        return {}
    peaks = {side: of[EQUAL]["peak_gb"] if of[EQUAL] else NO_MEMORY for side, of in tried.items()}
    if all(of[EQUAL] for of in tried.values()):
        peaks["times the memory"] = round(peaks["tale"] / peaks["trl"], 2)
    return {f"peak GB, both at micro-batches of {EQUAL}": peaks}


SETTINGS = {"tale": ours, "profile": ours, "trl": theirs, "trl" + UNPADDED: partial(theirs, padding_free=True)}


def one_side(side: str, case: str, steps: str, *words: str) -> None:
    """Train a few steps and print their figures."""
    recipe, module, data = prepared(case, list(words))
    train, count = SETTINGS[side], int(steps) + 1
    if side != "profile":
        print(json.dumps(measure(lambda: train(recipe, module, data, count))))
        return
    made = train(recipe, module, data, count)
    next(made)  # the first step takes longer
    print(json.dumps({kind: round(share, 3) for kind, share in shares(lambda: next(made)).items()}))


if __name__ == "__main__":
    is_side = sys.argv[1:2] == ["--side"]
    if is_side and sys.argv[2].startswith("trl"):  # as a script of TRL's user runs it: with the allocator as it is
        one_side(*sys.argv[2:])
    else:
        guarded(lambda: one_side(*sys.argv[2:]) if is_side else main(), __doc__)
