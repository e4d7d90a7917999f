"""The whole method on a small model: search, SFT, DPO, evaluation, report. Run by `make demo`; minutes on 2 CPU cores.

A second run uses what is there: a stage runs again only if its recipe, its inputs or the code changed.
"""

from tale.cli import guarded
from tale.config import EvaluateRecipe, ReportRecipe, SearchRecipe, TrainRecipe
from tale.evaluation.run import evaluate
from tale.report.run import report
from tale.search.run import run_search
from tale.stages import Stage, run_stages
from tale.training.run import train

STAGES = (
    Stage(SearchRecipe, "search_smollm2", run_search),
    Stage(TrainRecipe, "sft_smollm2", train, reads=["search_smollm2"], overrides=["resume=auto"]),
    Stage(TrainRecipe, "dpo_smollm2", train, reads=["search_smollm2"], overrides=["resume=auto"]),
    Stage(EvaluateRecipe, "eval_smollm2", evaluate, reads=["sft_smollm2", "dpo_smollm2"]),
)


def main() -> None:
    """Run the stages, write their report, which takes seconds, and say where to look."""
    run_stages(STAGES)
    print()
    report(ReportRecipe(output="runs/report", runs=[f"runs/{stage.recipe}" for stage in STAGES]))
    print(
        "plot: runs/eval_smollm2/accuracy_tokens.png"
        "\nloss curves: .venv/bin/tensorboard --logdir runs"
        "\ntry it: .venv/bin/python scripts/ask.py adapter=runs/sft_smollm2/adapter"
        ' "Tom has 3 boxes of 12 pens. How many pens are in each box?"'
    )


if __name__ == "__main__":
    guarded(main, __doc__)
