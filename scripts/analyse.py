"""`tale analyse`, from a checkout."""

from tale.cli import run

if __name__ == "__main__":
    run("analyse", "python scripts/analyse.py")
