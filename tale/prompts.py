"""Every prompt of the paper, as the text of the user turn; the chat template goes around it (`tale.chat`).

Sources: Table 1 (the step-by-step lines), Fig 5 (the estimator), Fig 8 (the choice format) of arXiv:2412.18547, and
the paper's official code where the paper gives a method without its text (the direct and the number formats).
Training and evaluation of a post-trained model both use `vanilla`, without a budget (§5.3, "input x").
"""

from __future__ import annotations

from tale.data.question import Question

NUMBER_FORMAT = "Please Give the response by strictly following this format: [[answer]], for example: Answer: [[50]]."
# Ours, for open-ended questions, whose prompts the paper does not print: the same without a number's example.
TEXT_FORMAT = "Please Give the response by strictly following this format: [[answer]]."
CHOICE_FORMAT = "Please strictly follow the format: [[choice]], for example: Choice: [[A]]."
CHOICE_FORMAT_ZH = "请严格按照如下格式回答：[[选项]]，例如：选项: [[A]]。"
BUDGET_LINES = {
    "en": "Let's think step by step and use less than {budget} tokens:",
    "zh": "让我们一步一步思考并使用少于 {budget} tokens：",
}


def direct(question: Question) -> str:
    """The answer without any reasoning (Table 3's "directly answering")."""
    body = _body(question)
    if question.language == "zh":
        lead = "请直接回答下面的问题并直接给出答案。"
        return f"{lead}{CHOICE_FORMAT_ZH}\n{body}" if question.kind == "choice" else f"{lead}\nQ: {body}"
    if question.kind == "choice":
        return (
            "Please answer the following question directly and give the answer directly without any reasoning "
            f"process. {CHOICE_FORMAT}\n{body}"
        )
    return (
        "Please answer the following question and give the answer directly without any reasoning process. "
        f"{_format(question)}\nQ: {body}"
    )


def vanilla(question: Question) -> str:
    """Chain of thought without a budget (Table 1)."""
    if question.language == "zh":
        line = "让我们一步一步思考：" if question.kind == "choice" else "让我们一步一步思考来回答这个问题："
    else:
        line = "Let's think step by step:"
    return _step_by_step(question, line)


def budgeted(question: Question, budget: int, line: str | None = None) -> str:
    """Chain of thought under a token budget: by the paper's line (Table 1), or by another that has `{budget}` in it."""
    line = line or BUDGET_LINES[question.language]
    return _step_by_step(question, line.replace("{budget}", str(budget)))


def chain_of_thought(question: Question, budget: int | None, line: str | None = None) -> str:
    """Under a budget, or vanilla where there is none."""
    return vanilla(question) if budget is None else budgeted(question, budget, line)


def estimate(question: Question) -> str:
    """TALE-EP's zero-shot budget estimator (Fig 5). It sees the question alone, no format and no step-by-step line."""
    return (
        "Task: Analyze the given question and estimate the minimum number of tokens required to generate a complete "
        "and accurate response. Please Give the response by strictly following this format: [[budget]], for example, "
        f'Budget: [[12]].\n\nBelow is the question:\n\nQuestion: "{_body(question)}"'
    )


def _step_by_step(question: Question, line: str) -> str:
    body = _body(question)
    if question.language == "zh":
        return f"{body}\n{CHOICE_FORMAT_ZH}\n{line}\n" if question.kind == "choice" else f"Q: {body}\n{line}\n"
    if question.kind == "choice":
        return f"{body}\n{CHOICE_FORMAT}\n{line}\n"
    return f"Q: {body}\n{_format(question)}\n{line}\n"


def _format(question: Question) -> str:
    return TEXT_FORMAT if question.kind == "text" else NUMBER_FORMAT


def _body(question: Question) -> str:
    options = (f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(question.options))
    return "\n".join((question.text, *options))
