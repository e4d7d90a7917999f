"""Vanilla and trained answer, one under the other: python scripts/ask.py adapter=runs/sft_qwen/adapter "Q…" """

import re
import sys

from tale.cli import run
from tale.evaluation.ask import AskRecipe, ask

if __name__ == "__main__":
    keyed = re.compile(r"-h$|--help$|[\w.]+=")
    sys.argv[1:] = [word if keyed.match(word) else f"question={word}" for word in sys.argv[1:]]
    run(AskRecipe, ask, __doc__)
