"""All prompts of the paper, as the text of the user turn; `tale.data.chat` applies the chat template.

Sources: Table 1 (the step-by-step lines), Fig 5 (the estimator), Fig 8 (the choice format) of arXiv:2412.18547, and
the paper's official code for methods that the paper names without their text (the direct and the number formats).
Training and evaluation of a post-trained model both use `vanilla`, without a budget (§5.3, "input x").
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tale.data.question import Kind, Language, Question


@dataclass(frozen=True)
class Message:
    """One turn of a conversation, or a part of an assistant's turn.

    `ids` of a part that the model generated are used as they are: its text, tokenised again, may have others.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    ids: tuple[int, ...] | None = None


def turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Role and content of each turn, for a chat template or a server; the parts of an assistant's turn are joined."""
    made: list[dict[str, str]] = []
    for message in messages:
        if made and message.role == made[-1]["role"] == "assistant":
            made[-1]["content"] += message.content
        else:
            made.append({"role": message.role, "content": message.content})
    return made


NUMBER_FORMAT = "Please Give the response by strictly following this format: [[answer]], for example: Answer: [[50]]."
# Ours, for open-ended questions, whose prompts the paper does not print: the same without the example of a number.
TEXT_FORMAT = "Please Give the response by strictly following this format: [[answer]]."
CHOICE_FORMAT = "Please strictly follow the format: [[choice]], for example: Choice: [[A]]."
CHOICE_FORMAT_ZH = "请严格按照如下格式回答：[[选项]]，例如：选项: [[A]]。"
BUDGET_LINES = {
    "en": "Let's think step by step and use less than {budget} tokens:",
    "zh": "让我们一步一步思考并使用少于 {budget} tokens：",
}
# Language and kind of the questions that these lines are for; None: all other kinds.
VANILLA_LINES: dict[str, tuple[Language, Kind | None]] = {
    "Let's think step by step:": ("en", None),
    "让我们一步一步思考：": ("zh", "choice"),
    "让我们一步一步思考来回答这个问题：": ("zh", None),
}
FORMATS: dict[str, tuple[Language, Kind]] = {
    NUMBER_FORMAT: ("en", "number"),
    TEXT_FORMAT: ("en", "text"),
    CHOICE_FORMAT: ("en", "choice"),
    CHOICE_FORMAT_ZH: ("zh", "choice"),
}


# A prompt is a template with its placeholders filled; one without `{question}` is the last line of this one (Table 1).
LAYOUT = "{{question}}\n{{format}}\n{line}\n"
PLACES = re.compile(r"\{(question|format|budget)\}")
HAN, LETTERS = re.compile("[\u4e00-\u9fff]"), re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Turn:
    """A user's turn without its last line: what is asked, and the line of the answer format, empty if there is none."""

    asked: str
    format: str
    kind: Kind
    language: Language

    @classmethod
    def of(cls, question: Question) -> Turn:
        """The turn that asks a question."""
        return cls(_asked(question), _format(question), question.kind, question.language)

    @classmethod
    def read(cls, text: str) -> Turn:
        """The turn in a text: of a `vanilla` prompt its own, of any other text the whole, without a format."""
        asked = text.removesuffix("\n")
        before, _, last = asked.rpartition("\n")
        language, kind = _language(asked), None
        if before and last in VANILLA_LINES:
            asked, (language, kind) = before, VANILLA_LINES[last]
        before, _, last = asked.rpartition("\n")
        if before and last in FORMATS:
            language, kind = FORMATS[last]
            return cls(before, last, kind, language)
        return cls(asked, "", kind or "text", language)

    @property
    def question(self) -> Question:
        """The question that an estimator sees, without format and gold."""
        if self.kind != "choice":
            return Question("", self.asked.removeprefix("Q: "), "", self.kind, self.language)
        lines, options = self.asked.split("\n"), []
        for i in range(1, len(lines)):
            labels = [f"{chr(ord('A') + j)}. " for j in range(len(lines) - i)]
            if all(line.startswith(label) for line, label in zip(lines[i:], labels, strict=True)):
                options = [line[3:] for line in lines[i:]]
                break
        text = "\n".join(lines[: len(lines) - len(options)])
        return Question("", text, "", "choice", self.language, tuple(options))


def _language(text: str) -> Language:
    """Chinese if most letters are."""
    return "zh" if 2 * len(HAN.findall(text)) > len(LETTERS.findall(text)) else "en"


def direct(question: Question) -> str:
    """The answer without any reasoning (Table 3's "directly answering")."""
    if question.language == "zh":
        lead = "请直接回答下面的问题并直接给出答案。"
    else:
        directly = " directly" if question.kind == "choice" else ""
        lead = (
            f"Please answer the following question{directly} and give the answer directly without any reasoning "
            "process. "
        )
    return f"{lead}{_format(question)}\n{_asked(question)}"


def vanilla(question: Question) -> str:
    """Chain of thought without a budget (Table 1)."""
    kinds = VANILLA_LINES.items()
    line = next(line for line, of in kinds if of in ((question.language, question.kind), (question.language, None)))
    return _filled(Turn.of(question), LAYOUT.format(line=line))


def budgeted(asked: Question | Turn, budget: int, line: str | None = None) -> str:
    """Chain of thought under a token budget: by the paper's line (Table 1), or by another with `{budget}` in it.

    A `line` with `{question}` in it is the whole prompt; `{format}` in it, on a separate line, is the answer format. So
    the budget can precede the question, and the format can follow the budget or be left out.
    """
    turn = Turn.of(asked) if isinstance(asked, Question) else asked
    line = line or BUDGET_LINES[turn.language]
    return _filled(turn, line if "{question}" in line else LAYOUT.format(line=line), budget)


def stated_budget(text: str, line: str | None = None) -> int | None:
    """The budget that the first or the last line of a turn states, in the words of `line` or of the paper's."""
    lines = text.strip().split("\n")
    for layout in filter(None, (line, *BUDGET_LINES.values())):
        words = next(each for each in layout.split("\n") if "{budget}" in each)
        before, after = map(re.escape, words.strip().split("{budget}", 1))
        for each in (lines[-1], lines[0]):
            if found := re.fullmatch(rf"{before}(\d{{1,9}}){after}", each.strip()):
                return int(found[1])
    return None


def chain_of_thought(question: Question, budget: int | None, line: str | None = None) -> str:
    """The prompt under a budget, or the vanilla prompt if it is None."""
    return vanilla(question) if budget is None else budgeted(question, budget, line)


def answer_opening(question: Question) -> str:
    """What the assistant's turn is continued by for an immediate answer, which `]]` ends; ours."""
    if question.language == "zh":
        return "\n\n选项: [[" if question.kind == "choice" else "\n\n答案: [["
    return "\n\nChoice: [[" if question.kind == "choice" else "\n\nAnswer: [["


def estimate(question: Question) -> str:
    """TALE-EP's zero-shot budget estimator (Fig 5). It has only the question: no format and no step-by-step line."""
    return (
        "Task: Analyze the given question and estimate the minimum number of tokens required to generate a complete "
        "and accurate response. Please Give the response by strictly following this format: [[budget]], for example, "
        f'Budget: [[12]].\n\nBelow is the question:\n\nQuestion: "{body(question)}"'
    )


def _filled(turn: Turn, layout: str, budget: int | None = None) -> str:
    """The template with its placeholders filled; without a format (Chinese numbers) its line is left out."""
    filled = {"question": turn.asked, "format": turn.format, "budget": str(budget)}
    if not filled["format"]:
        layout = layout.replace("{format}\n", "")
    return PLACES.sub(lambda place: filled[place[1]], layout)


def _format(question: Question) -> str:
    if question.kind == "choice":
        return CHOICE_FORMAT_ZH if question.language == "zh" else CHOICE_FORMAT
    if question.language == "zh":
        return ""
    return NUMBER_FORMAT if question.kind == "number" else TEXT_FORMAT


def _asked(question: Question) -> str:
    return body(question) if question.kind == "choice" else f"Q: {body(question)}"


def body(question: Question) -> str:
    """The question's text, with its options."""
    options = (f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(question.options))
    return "\n".join((question.text, *options))
