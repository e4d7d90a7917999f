"""Budget estimators: python scripts/estimate.py 'train=[runs/search/records.jsonl]' 'grid=[…]' output=runs/budgets"""

from tale.cli import run
from tale.estimators.recipe import EstimateRecipe
from tale.estimators.run import run_estimate

if __name__ == "__main__":
    run(EstimateRecipe, run_estimate, __doc__)
