"""The whole method on a small instruct model: search, SFT, DPO, evaluation, report. Run by `make demo`, on 2 CPU cores.

A second run uses what is there: a stage runs again only if its recipe, its inputs or the code changed. Where the device
has no products of bfloat16 in hardware, the model computes in float32 and half of the questions are asked.
"""

from tale.cli import guarded
from tale.config.training import TrainRecipe
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.run import evaluate
from tale.hardware.devices import fast_dtype
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.runs.stages import Stage, run_stages
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tale.training.run import train


def stages(whole: bool) -> tuple[Stage, ...]:
    """The recipes as they are, or with half of their questions."""
    searched, held_out = ([] if whole else [f"task.limit={count}"] for count in (64, 50))
    return (
        Stage(SearchRecipe, "search_qwen", run_search, overrides=searched),
        Stage(TrainRecipe, "sft_qwen", train, reads=["search_qwen"], overrides=["resume=auto"]),
        Stage(TrainRecipe, "dpo_qwen", train, reads=["search_qwen"], overrides=["resume=auto"]),
        Stage(EvaluateRecipe, "eval_qwen", evaluate, reads=["sft_qwen", "dpo_qwen"], overrides=held_out),
    )


def main() -> None:
    """Run the stages, write their report, which takes seconds, and say where to look."""
    made = stages(whole=fast_dtype() == "bfloat16")
    run_stages(made)
    print()
    report(ReportRecipe(output="runs/report", runs=[f"runs/{stage.recipe}" for stage in made]))
    print(
        "plot: runs/eval_qwen/accuracy_tokens.png"
        "\nloss curves: .venv/bin/tensorboard --logdir runs"
        "\ntry it: .venv/bin/python scripts/ask.py adapter=runs/sft_qwen/adapter"
        ' "Tom has 3 boxes of 12 pens. How many pens are in each box?"'
    )


if __name__ == "__main__":
    guarded(main, __doc__)
