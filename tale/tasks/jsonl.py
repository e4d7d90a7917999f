"""Any JSON Lines file: `question`, `answer`, and for single choice `options`; other keys are ignored.

An open-ended question has a `reference` text in place of the answer, and is scored by BLEU.

    {"question": "Calculate -7 + -16 + 31 - (-40 + 3 + -5 + 3).", "answer": "47"}
    {"question": "具有7个结点的所有非同构的树有____个。", "options": ["7", "11", "12", "14"], "answer": "B"}
    {"question": "Say in one sentence what the moon is.", "reference": "The moon is the Earth's only satellite."}

The answer is a text or a JSON number; with options it is the letter of one. Only for local files, `task.path`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tale.data.question import Language, Question
from tale.errors import UserError
from tale.grading import number

LETTERS = "ABCDEFGH"


def question(row: dict[str, Any], id: str) -> Question:
    """A number question, a single choice if the row has options, or an open-ended one if it has a reference.

    Raises:
        UserError: a key is missing or of the wrong type; the caller adds file and line.
    """
    if row.get("options"):
        return choice(row, id)
    if "reference" in row:
        return Question(id, text(row, "question"), text(row, "reference"), "text")
    answer = row.get("answer")
    gold = text(row, "answer") if isinstance(answer, str) else digits(row)
    if "####" in gold:
        raise UserError("'answer' is a solution with ####: this is a GSM8K file, set task.name=gsm8k")
    return Question(id, text(row, "question"), gold)


def choice(row: dict[str, Any], id: str, language: Language = "en") -> Question:
    """A single choice question of two to eight options."""
    options = row.get("options")
    if not (isinstance(options, list) and 2 <= len(options) <= 8 and all(isinstance(o, str) for o in options)):
        raise _wrong(row, "options", "a list of two to eight texts")
    gold = text(row, "answer").upper()
    letters = LETTERS[: len(options)]
    if len(gold) != 1 or gold not in letters:
        raise UserError(f"'answer' is {gold!r}, not a letter from A to {letters[-1]}")
    return Question(id, text(row, "question"), gold, "choice", language, tuple(options))


def text(row: dict[str, Any], key: str) -> str:
    """A text of the row, stripped; it must exist and not be empty."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _wrong(row, key, "a text")
    return value.strip()


def texts(row: dict[str, Any], key: str) -> list[str]:
    """A list of one or more texts of the row, unchanged."""
    value = row.get(key)
    if not (isinstance(value, list) and value and all(isinstance(part, str) for part in value)):
        raise _wrong(row, key, "a list of texts")
    return value


def numeric(gold: str) -> str:
    """The gold, after checking that grading reads it as a number."""
    if number(gold) is None:
        raise UserError(f"'answer' is {gold!r}, not a number: is this the right file for this benchmark?")
    return gold


def digits(row: dict[str, Any]) -> str:
    """A JSON number as plain digits, without rounding: 1.0 is "1", 12.50 is "12.5", 1e3 is "1000"."""
    value = row.get("answer")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not Decimal(str(value)).is_finite():
        raise _wrong(row, "answer", "a number")
    plain = format(Decimal(str(value)), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _wrong(row: dict[str, Any], key: str, expected: str) -> UserError:
    if key not in row:
        return UserError(f"key {key!r} is missing; the row has {', '.join(row) or 'no keys'}")
    return UserError(f"key {key!r} must be {expected}, not {str(row[key])[:40]!r}")
