"""Train LoRA adapters by SFT or pairwise DPO: python scripts/train.py recipe=sft_llama8b [key=value …]"""

from tale.cli import run
from tale.training.recipe import TrainRecipe
from tale.training.run import train

if __name__ == "__main__":
    run(TrainRecipe, train, __doc__)
