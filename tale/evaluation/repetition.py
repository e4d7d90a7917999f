"""How much an answer repeats itself: seq-rep-4 of Welleck et al. (2020, arXiv:1908.04319), over words."""

from __future__ import annotations

import re

# A word, a Chinese character or a sign, so that a text's 4-grams do not depend on the model's tokenizer.
WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+|[^\w\s]")


def repetition(text: str, n: int = 4) -> float:
    """1 − distinct n-grams / all n-grams of the text; 0 if it has fewer than n words."""
    words = WORD.findall(text)
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
