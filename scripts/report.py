"""Runs as one page: python scripts/report.py runs=[runs/search,runs/sft,runs/eval] output=runs/report [key=value …]"""

from tale.cli import run
from tale.results.recipe import ReportRecipe
from tale.results.run import report

if __name__ == "__main__":
    run(ReportRecipe, report, __doc__)
