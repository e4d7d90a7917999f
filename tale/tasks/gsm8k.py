"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): grade school word problems, 7,473 to train on and 1,319 to test.

https://huggingface.co/datasets/openai/gsm8k (config main), https://github.com/openai/grade-school-math; MIT licence.

    {"question": "A robe takes 2 bolts of blue fiber and half that much white fiber.  How many bolts in total does it
     take?", "answer": "It takes 2/2=<<2/2=1>>1 bolt of white fiber\\nSo the total amount of fabric is
     2+1=<<2+1=3>>3 bolts of fabric\\n#### 3"}

The gold answer is all that follows `####`. 14 of the test answers have a comma ("2,125").
"""

from __future__ import annotations

from typing import Any

from tale.data.question import Question
from tale.errors import UserError
from tale.tasks.jsonl import numeric, text

HUB = {"path": "openai/gsm8k", "name": "main"}
SPLITS = ("train", "test")


def question(row: dict[str, Any], id: str) -> Question:
    """Convert a row; UserError if its format differs."""
    _, mark, gold = text(row, "answer").rpartition("####")
    if not mark:
        raise UserError("'answer' does not end with '#### <number>': not a GSM8K row")
    return Question(id, text(row, "question"), numeric(gold.strip()))
