"""`tale train`, from a checkout."""

from tale.cli import run

if __name__ == "__main__":
    run("train", "python scripts/train.py")
