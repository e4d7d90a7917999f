"""The paper's prompts to the letter: Table 1, Fig 5, Fig 8 and the official code's formats of arXiv:2412.18547."""

from __future__ import annotations

import pytest

from tale.data import prompts
from tale.data.question import Question

NUMBER = Question("n", "Tom has 3 pens and buys 4. How many?", "7")
CHOICE = Question("c", "Which is prime?", "B", "choice", options=("4", "7", "9"))
CLOZE_ZH = Question("z", "三加四等于几？", "7", language="zh")
TEXT = Question("t", "Say hello.", "Hello!", "text")
CHOICE_ZH = Question("y", "哪个是质数？", "B", "choice", "zh", ("4", "7"))

EXPECTED = {
    "direct": {
        "n": "Please answer the following question and give the answer directly without any reasoning process. "
        "Please Give the response by strictly following this format: [[answer]], for example: Answer: [[50]].\n"
        "Q: Tom has 3 pens and buys 4. How many?",
        "c": "Please answer the following question directly and give the answer directly without any reasoning "
        "process. Please strictly follow the format: [[choice]], for example: Choice: [[A]].\n"
        "Which is prime?\nA. 4\nB. 7\nC. 9",
        "z": "请直接回答下面的问题并直接给出答案。\nQ: 三加四等于几？",
        "y": "请直接回答下面的问题并直接给出答案。请严格按照如下格式回答：[[选项]]，例如：选项: [[A]]。\n"
        "哪个是质数？\nA. 4\nB. 7",
    },
    "vanilla": {
        "n": "Q: Tom has 3 pens and buys 4. How many?\n"
        "Please Give the response by strictly following this format: [[answer]], for example: Answer: [[50]].\n"
        "Let's think step by step:\n",
        "c": "Which is prime?\nA. 4\nB. 7\nC. 9\n"
        "Please strictly follow the format: [[choice]], for example: Choice: [[A]].\n"
        "Let's think step by step:\n",
        "z": "Q: 三加四等于几？\n让我们一步一步思考来回答这个问题：\n",
        "y": "哪个是质数？\nA. 4\nB. 7\n请严格按照如下格式回答：[[选项]]，例如：选项: [[A]]。\n让我们一步一步思考：\n",
    },
    "budgeted": {
        "n": "Q: Tom has 3 pens and buys 4. How many?\n"
        "Please Give the response by strictly following this format: [[answer]], for example: Answer: [[50]].\n"
        "Let's think step by step and use less than 86 tokens:\n",
        "c": "Which is prime?\nA. 4\nB. 7\nC. 9\n"
        "Please strictly follow the format: [[choice]], for example: Choice: [[A]].\n"
        "Let's think step by step and use less than 86 tokens:\n",
        "z": "Q: 三加四等于几？\n让我们一步一步思考并使用少于 86 tokens：\n",
        "y": "哪个是质数？\nA. 4\nB. 7\n请严格按照如下格式回答：[[选项]]，例如：选项: [[A]]。\n"
        "让我们一步一步思考并使用少于 86 tokens：\n",
    },
}
BUILD = {
    "direct": prompts.direct,
    "vanilla": prompts.vanilla,
    "budgeted": lambda question: prompts.budgeted(question, 86),
}
QUESTIONS = [NUMBER, CHOICE, CLOZE_ZH, CHOICE_ZH]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: f"{q.kind}-{q.language}")
@pytest.mark.parametrize("name", EXPECTED)
def test_the_prompt_is_the_papers(name: str, question: Question) -> None:
    assert BUILD[name](question) == EXPECTED[name][question.id]


def test_a_budget_line_replaces_the_papers_and_nothing_else() -> None:
    """In every language."""
    for question in QUESTIONS:
        *others, _, end = prompts.vanilla(question).split("\n")
        asked = prompts.chain_of_thought(question, 86, "In {budget} tokens; {budget} and {no} more.")
        assert asked.split("\n") == [*others, "In 86 tokens; 86 and {no} more.", end]
        assert prompts.chain_of_thought(question, None, "In {budget} tokens") == prompts.vanilla(question)


PAPERS = "{question}\n{format}\nLet's think step by step and use less than {budget} tokens:\n"


@pytest.mark.parametrize("question", [NUMBER, CHOICE])
def test_the_papers_line_as_a_layout_is_the_papers_prompt(question: Question) -> None:
    assert prompts.budgeted(question, 86, PAPERS) == prompts.budgeted(question, 86) == EXPECTED["budgeted"][question.id]


def test_a_layout_puts_budget_question_and_format_anywhere() -> None:
    """What it puts in is not read as a layout again."""
    odd = Question("o", "What are {budget}, {format} and {question}?", "7")
    layout = "In {budget} tokens, {no} more.\n{question}\n{format}\nThe {budget}:"
    said = "In 9 tokens, {no} more.\nQ: What are {budget}, {format} and {question}?\n"
    assert prompts.budgeted(odd, 9, layout) == f"{said}{prompts.NUMBER_FORMAT}\nThe 9:"
    assert prompts.budgeted(NUMBER, 9, "{question}\n{budget}\n") == f"Q: {NUMBER.text}\n9\n"
    assert prompts.budgeted(CLOZE_ZH, 9, layout) == f"In 9 tokens, {{no}} more.\nQ: {CLOZE_ZH.text}\nThe 9:"


def test_an_open_ended_question_is_asked_for_no_number() -> None:
    """Ours: the paper's number format, without its example."""
    question = Question("t", "Say what f does.", "It adds one.", "text")
    asked = "Q: Say what f does.\nPlease Give the response by strictly following this format: [[answer]].\n"
    assert prompts.vanilla(question) == f"{asked}Let's think step by step:\n"
    assert prompts.budgeted(question, 86) == f"{asked}Let's think step by step and use less than 86 tokens:\n"
    assert prompts.direct(question) == (
        "Please answer the following question and give the answer directly without any reasoning process. "
        "Please Give the response by strictly following this format: [[answer]].\nQ: Say what f does."
    )


def test_the_estimator_is_asked_as_in_figure_5() -> None:
    assert prompts.estimate(NUMBER) == (
        "Task: Analyze the given question and estimate the minimum number of tokens required to generate a complete "
        "and accurate response. Please Give the response by strictly following this format: [[budget]], for example, "
        "Budget: [[12]].\n\nBelow is the question:\n\n"
        'Question: "Tom has 3 pens and buys 4. How many?"'
    )


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: f"{q.kind}-{q.language}")
def test_the_estimator_sees_no_format_and_no_step_by_step_line(question: Question) -> None:
    seen = prompts.estimate(question).partition('Question: "')[2]
    assert seen == "\n".join([question.text, *(f"{chr(65 + i)}. {o}" for i, o in enumerate(question.options))]) + '"'


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: f"{q.kind}-{q.language}")
def test_a_budget_changes_the_last_line_alone(question: Question) -> None:
    *lead, last = prompts.budgeted(question, 12).splitlines()
    *vanilla_lead, vanilla_last = prompts.vanilla(question).splitlines()
    assert lead == vanilla_lead
    assert last != vanilla_last
    assert "12 tokens" in last


def test_two_budgets_give_two_prompts_of_the_same_question() -> None:
    tricky = Question("t", 'What comes before "Let\'s think step by step:" if you use less than 5 tokens?', "0")
    prompt = prompts.budgeted(tricky, 9)
    assert prompt.count(tricky.text) == 1
    assert prompt.endswith("\nLet's think step by step and use less than 9 tokens:\n")
    assert prompt != prompts.budgeted(tricky, 10)


@pytest.mark.parametrize("question", [NUMBER, CHOICE, CLOZE_ZH, CHOICE_ZH, TEXT], ids=lambda question: question.id)
def test_a_turn_read_from_a_prompt_is_the_questions_own(question: Question) -> None:
    """With its budget line it is the prompt under a budget, and an estimator sees the same question."""
    turn = prompts.Turn.read(prompts.vanilla(question))
    for line in (None, "In {budget} tokens:", "{format}\nIn {budget} tokens:\n{question}"):
        assert prompts.budgeted(turn, 86, line) == prompts.budgeted(question, 86, line)
    assert prompts.estimate(turn.question) == prompts.estimate(question)
    assert (turn.question.text, turn.question.options) == (question.text, question.options)


def test_any_other_text_is_asked_whole() -> None:
    turn = prompts.Turn.read("Why is the sky blue?\nSay it in a line.\n")
    assert prompts.budgeted(turn, 40) == (
        "Why is the sky blue?\nSay it in a line.\nLet's think step by step and use less than 40 tokens:\n"
    )
    assert prompts.budgeted(prompts.Turn.read("天为什么是蓝的？OK"), 40).endswith(
        "\n让我们一步一步思考并使用少于 40 tokens：\n"
    )
    assert turn.question.text == "Why is the sky blue?\nSay it in a line."


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        (prompts.budgeted(NUMBER, 86), 86),
        (prompts.budgeted(CHOICE_ZH, 7), 7),
        ("At most 30 tokens!\nWhy?", 30),
        ("What does 'use less than 50 tokens' mean?", None),
        ("Let's think step by step and use less than -1 tokens:", None),
        ("Explain:\nLet's think step by step and use less than 50 tokens:\nWhat is meant?", None),
    ],
)
def test_a_budget_is_stated_by_a_whole_line_at_an_end(text: str, budget: int | None) -> None:
    assert prompts.stated_budget(text, "At most {budget} tokens!\n{question}") == budget
