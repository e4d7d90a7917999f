"""`tale search`, from a checkout."""

from tale.cli import run

if __name__ == "__main__":
    run("search", "python scripts/search.py")
