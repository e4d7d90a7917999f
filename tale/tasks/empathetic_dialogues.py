"""EmpatheticDialogues (Rashkin et al. 2019, arXiv:1811.00207): what to say to somebody who tells how they feel.

https://github.com/facebookresearch/EmpatheticDialogues; CC BY-NC 4.0. Its copy on the Hugging Face hub is a script,
which `datasets` does not run: by default the authors' own archive is downloaded once, into the hub's cache.

    conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags
    hit:0_conv:1,2,sentimental,I remember going to the fireworks …,0,Was this a friend you were in love with_comma_
     or just a best friend?,5|5|5_2|2|5,

A row here, and of a local file, is a conversation's opening and the first answer to it. This choice is ours: the paper
does not say which turns it uses.

    {"utterance": "I remember going to see the fireworks with my best friend. It was the first time …",
     "response": "Was this a friend you were in love with, or just a best friend?"}
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tale.data.question import Question
from tale.tasks.jsonl import text

ARCHIVE = "https://dl.fbaipublicfiles.com/parlai/empatheticdialogues/empatheticdialogues.tar.gz"
SPLITS = ("train", "valid", "test")


def question(row: dict[str, Any], id: str) -> Question:
    """Convert a row; UserError if its format differs. The story comes first: a context is a question's opening."""
    asked = f"{text(row, 'utterance')}\nRespond with empathy to the person who says this."
    return Question(id, asked, text(row, "response"), "text")


def published(split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a split from the authors' archive; the caller handles network errors."""
    from datasets import DownloadManager

    folder = Path(DownloadManager().download_and_extract(ARCHIVE))
    file = next(folder.rglob(f"{split}.csv"), None)
    if file is None:
        raise FileNotFoundError(f"no {split}.csv in {ARCHIVE}")
    with file.open(encoding="utf-8", newline="") as lines:
        turns = csv.DictReader(lines, quoting=csv.QUOTE_NONE)  # commas are written _comma_, quotes mean themselves
        for first, second in pairwise(turns):
            if first["utterance_idx"] == "1" and second["conv_id"] == first["conv_id"]:
                said = [turn["utterance"].replace("_comma_", ",") for turn in (first, second)]
                yield f"{file}:{turns.line_num}", dict(zip(("utterance", "response"), said, strict=True))
