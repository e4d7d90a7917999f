"""Ways to ask for a budget, over models and tasks: python scripts/wordings.py recipe=wordings_qwen [key=value …]"""

from tale.cli import run
from tale.wordings.recipe import WordingsRecipe
from tale.wordings.run import run_wordings

if __name__ == "__main__":
    run(WordingsRecipe, run_wordings, __doc__)
