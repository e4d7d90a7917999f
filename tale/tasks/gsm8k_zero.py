"""GSM8K-Zero (Chiang and Lee 2024, arXiv:2401.11467): 2,978 questions whose answer stands in the question.

https://huggingface.co/datasets/dcml0714/GSM8K-Zero (one split, test); no licence is stated. The stories are those of
GSM8K's training set, and the authors estimate that 85 % of the question-answer pairs are valid.

    {"question": "Nadine's dog rolls around in the mud. She spends 10 minutes hosing him off outside, then shampoos him
     three times, which takes 15 minutes per shampoo. How many minutes does she spend hosing him off outside?",
     "answer": 10.0}

The answer is a JSON number, converted without rounding: 10.0 becomes "10", 12.5 stays "12.5".
"""

from __future__ import annotations

from typing import Any

from tale.data.question import Question
from tale.tasks.jsonl import digits, text

HUB = {"path": "dcml0714/GSM8K-Zero"}
SPLITS = ("test",)


def question(row: dict[str, Any], id: str) -> Question:
    """Convert a row; UserError if its format differs."""
    return Question(id, text(row, "question"), digits(row))
