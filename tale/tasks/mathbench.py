"""MathBench v1 (Liu et al. 2024, arXiv:2405.12209), application part: five levels, English and Chinese.

https://github.com/open-compass/MathBench; Apache-2.0. The authors put no copy on the Hugging Face hub: by default
their own archive, the one OpenCompass evaluates with, is downloaded once, into the hub's cache.

    arithmetic/cloze_en: {"question": "Add together -35947633 and 0.0337.", "answer": "-35947632.9663", "topic": …}
    college/single_choice_cn: {"question": "具有7个结点的所有非同构的树有____个。", "options": ["7", "11", "12", "14"],
                               "answer": "B", "topic": "College--Discrete Mathematics--Graph Theory"}

Golds of arithmetic are integers, decimals and fractions ("-31/3"). OpenCompass asks a choice question four times, with
its options rotated; TALE and we ask it once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tale.data.question import Language, Question
from tale.errors import UserError
from tale.tasks.jsonl import choice, numeric, text

ARCHIVE = "https://opencompass.oss-cn-shanghai.aliyuncs.com/datasets/data/mathbench_v1.zip"
SPLITS = ("test",)

# Name of the benchmark: its file in the archive.
FILES = {"mathbench_arithmetic": "arithmetic/cloze_en"} | {
    f"mathbench_{level}_{language}": f"{level}/{kind}_{language}"
    for level, kind in [
        ("primary", "cloze"),
        ("middle", "single_choice"),
        ("high", "single_choice"),
        ("college", "single_choice"),
    ]
    for language in ("en", "cn")
}


def converter(name: str) -> Callable[[dict[str, Any], str], Question]:
    """The row-to-question function of one benchmark of `FILES`."""
    language: Language = "zh" if name.endswith("_cn") else "en"
    return partial(choice if "single_choice" in FILES[name] else _cloze, language=language)


def download(name: str) -> Path:
    """The benchmark's file from the authors' archive; the caller handles network errors."""
    from datasets import DownloadManager

    folder = Path(DownloadManager().download_and_extract(ARCHIVE))
    file = next(folder.rglob(f"{FILES[name]}.jsonl"), None)
    if file is None:
        raise FileNotFoundError(f"no {FILES[name]}.jsonl in {ARCHIVE}")
    return file


def _cloze(row: dict[str, Any], id: str, language: Language) -> Question:
    if "options" in row:
        raise UserError("the row has options: it is of a single choice file, unlike this benchmark")
    return Question(id, text(row, "question"), numeric(text(row, "answer")), language=language)
