"""Accuracy or BLEU, and output tokens, of methods: python scripts/evaluate.py recipe=eval_llama8b [key=value …]"""

from tale.cli import run
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.run import evaluate

if __name__ == "__main__":
    run(EvaluateRecipe, evaluate, __doc__)
