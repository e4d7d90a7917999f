"""BLEU of a reply against a reference text (Table 7), by sacrebleu, on the paper's scale of 0 to 1.

As in `tale.grading`, only the completion is read, and the last `[[…]]` is its answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics import BLEU

from tale.grading import Via

# Of a code block's fence, which belongs to no answer.
_FENCE = re.compile(r"\A```\w*\n|\n?```\Z")


@dataclass(frozen=True)
class Scored:
    """A reply's answer, what decided where it is, and its sentence BLEU."""

    value: str | None
    via: Via
    bleu: float


def score(reply: str, reference: str, truncated: bool) -> Scored:
    """Find the answer in a completion and compare it with the reference.

    Without `[[…]]` it is the whole reply; of a truncated one, which did not come to its answer, it is none, and BLEU 0.
    """
    value: str | None = _bracketed(reply)
    via: Via = "brackets"
    if value is None and truncated:
        return Scored(None, "none", 0.0)
    if value is None:
        value, via = reply, "whole-reply"
    value = _FENCE.sub("", value.strip())
    return Scored(value, via, sentence_bleu(value, reference))


def sentence_bleu(value: str, reference: str) -> float:
    """BLEU of one answer, smoothed, and over the n-grams that a text of its length has ("effective order")."""
    score = BLEU(effective_order=True).sentence_score(value, [reference]).score
    return min(score / 100, 1.0)  # sacrebleu rounds above 100


def corpus_bleu(values: Sequence[str | None], references: Sequence[str]) -> float:
    """BLEU over all answers at once, whose n-grams are counted together; no answer is an empty one."""
    return BLEU().corpus_score([value or "" for value in values], [list(references)]).score / 100


def _bracketed(reply: str) -> str | None:
    """What is in the last outermost `[[…]]`; brackets within it, such as those of a list in code, belong to it."""
    depth, start, found = 0, 0, None
    for i, char in enumerate(reply):
        if char == "[":
            start = start if depth else i
            depth += 1
        elif char == "]" and depth:
            depth -= 1
            span = reply[start : i + 1]
            if not depth and span.startswith("[[") and span.endswith("]]"):
                found = span[2:-2]
    return found
