"""`tale estimate`, from a checkout."""

from tale.cli import run

if __name__ == "__main__":
    run("estimate", "python scripts/estimate.py")
