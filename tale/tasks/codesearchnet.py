"""CodeSearchNet (Husain et al. 2019, arXiv:1909.09436), its Python part as cleaned by CodeXGLUE: code to be summarised.

https://huggingface.co/datasets/google/code_x_glue_ct_code_to_text (config python, 14,918 rows to test); C-UDA.

    {"code": "def get_vid_from_url(url):\\n        \\"\\"\\"Extracts video ID from URL.\\n …", "code_tokens": ["def",
     "get_vid_from_url", "(", "url", ")", ":", "return", …], "docstring": "Extracts video ID from URL.",
     "docstring_tokens": ["Extracts", "video", "ID", "from", "URL", "."], …}

Question and reference are the tokens joined by spaces, as in CodeXGLUE: the code's do not hold the reference, as
`code` does, and the docstring's are its first paragraph.
"""

from __future__ import annotations

from typing import Any

from tale.data.question import Question
from tale.tasks.jsonl import texts

HUB = {"path": "google/code_x_glue_ct_code_to_text", "name": "python"}
SPLITS = ("train", "validation", "test")


def question(row: dict[str, Any], id: str) -> Question:
    """Convert a row; UserError if its format differs. The code comes first: a context is a question's opening."""
    asked = f"{' '.join(texts(row, 'code_tokens'))}\nSummarize in one sentence what this Python function does."
    return Question(id, asked, " ".join(texts(row, "docstring_tokens")), "text")
