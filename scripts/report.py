"""Runs as one page: python scripts/report.py runs=[runs/search,runs/sft,runs/eval] output=runs/report [key=value …]"""

from tale.cli import run
from tale.report.recipe import ReportRecipe
from tale.report.run import report

if __name__ == "__main__":
    run(ReportRecipe, report, __doc__)
