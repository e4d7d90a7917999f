"""Train LoRA adapters by SFT or pairwise DPO: python scripts/train.py recipe=sft_llama8b [key=value …]"""

from tale.cli import run
from tale.config.training import TrainRecipe
from tale.memory.plan import show
from tale.training.run import train


def main(recipe: TrainRecipe) -> None:
    """Train, or say how much memory that takes."""
    (show if recipe.plan else train)(recipe)


if __name__ == "__main__":
    run(TrainRecipe, main, __doc__)
