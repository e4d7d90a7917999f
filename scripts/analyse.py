"""Elasticity, ideal budgets and search paths: python scripts/analyse.py 'records=[runs/grid/records.jsonl]' output=…"""

from tale.analysis.recipe import AnalyseRecipe
from tale.analysis.run import analyse
from tale.cli import run

if __name__ == "__main__":
    run(AnalyseRecipe, analyse, __doc__)
