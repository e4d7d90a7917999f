"""MBPP (Austin et al. 2021, arXiv:2108.07732): short Python functions to be written; Table 7's code generation.

https://huggingface.co/datasets/google-research-datasets/mbpp (config full, 500 rows to test); CC BY 4.0.

    {"text": "Write a python function to remove first and last occurrence of a given character from the string.",
     "code": "def remove_Occ(s,ch): \\r\\n    for i in range(len(s)): \\r\\n        if (s[i] == ch): \\r\\n …",
     "test_list": ["assert remove_Occ(\\"hello\\",\\"l\\") == \\"heo\\"", …], "task_id": 11, …}

The tests are shown, as in MBPP's own prompt: they name the function. The reference is the code.
"""

from __future__ import annotations

from typing import Any

from tale.data.question import Question
from tale.tasks.jsonl import text, texts

HUB = {"path": "google-research-datasets/mbpp", "name": "full"}
SPLITS = ("train", "validation", "test")


def question(row: dict[str, Any], id: str) -> Question:
    """Convert a row; UserError if its format differs."""
    tests = "\n".join(texts(row, "test_list"))
    asked = f"{text(row, 'text')} Your code should pass these tests:\n{tests}"
    return Question(id, asked, text(row, "code"), "text")
