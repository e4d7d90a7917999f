"""Budget estimators: python scripts/estimate.py 'train=[runs/search/records.jsonl]' 'grid=[…]' output=runs/budgets"""

from tale.analysis.estimators.recipe import EstimateRecipe
from tale.analysis.estimators.run import run_estimate
from tale.cli import run

if __name__ == "__main__":
    run(EstimateRecipe, run_estimate, __doc__)
