"""`tale report`, from a checkout."""

from tale.cli import run

if __name__ == "__main__":
    run("report", "python scripts/report.py")
