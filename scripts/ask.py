"""`tale ask`, from a checkout."""

from tale.cli import run

if __name__ == "__main__":
    run("ask", "python scripts/ask.py")
