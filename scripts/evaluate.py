"""`tale evaluate`, from a checkout."""

from tale.cli import run

if __name__ == "__main__":
    run("evaluate", "python scripts/evaluate.py")
