"""`tale merge`, from a checkout."""

from tale.cli import run

if __name__ == "__main__":
    run("merge", "python scripts/merge.py")
