"""`tale wordings`, from a checkout."""

from tale.cli import run

if __name__ == "__main__":
    run("wordings", "python scripts/wordings.py")
