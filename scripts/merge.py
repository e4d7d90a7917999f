"""Fold an adapter into its base: python scripts/merge.py adapter=runs/sft_qwen/adapter output=my_model"""

from tale.cli import run
from tale.training.merge import MergeRecipe, merge

if __name__ == "__main__":
    run(MergeRecipe, merge, __doc__)
