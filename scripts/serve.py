"""`tale serve`, from a checkout."""

from tale.cli import run

if __name__ == "__main__":
    run("serve", "python scripts/serve.py")
