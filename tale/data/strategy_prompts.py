"""The prompts of strategies that value steps, propose them or debate; ours, after the sources that each one names.

A valuation opens the assistant's turn up to its one word or number, so that it costs few tokens and can be read.
"""

from __future__ import annotations

from collections.abc import Sequence

from tale.data.prompts import Message, body
from tale.data.question import Question

# What a tree-of-thoughts verdict is worth (princeton-nlp/tree-of-thought-llm, the game of 24); any other text: nothing.
VERDICTS = {
    "en": {"sure": 20.0, "likely": 1.0, "impossible": 0.001},
    "zh": {"确定": 20.0, "可能": 1.0, "不可能": 0.001},
}


def probability(question: Question, steps: str) -> tuple[Message, ...]:
    """How probable it is, as a number in [0, 1] that `]]` ends, that these steps lead to the right answer."""
    if question.language == "zh":
        asked = "这一推理正确并且能得出正确答案的概率是多少？请给出 0 到 1 之间的数，格式为 [[概率]]。"
        return _asked(f"{_steps(question, steps)}\n\n{asked}", "概率: [[")
    asked = (
        "How probable is it that this reasoning is correct and leads to the right answer? Give a number between 0 and "
        "1 in the format [[probability]]."
    )
    return _asked(f"{_steps(question, steps)}\n\n{asked}", "Probability: [[")


def verdict(question: Question, steps: str) -> tuple[Message, ...]:
    """Whether these steps can lead to the right answer, in one word of `VERDICTS` (Tree of Thoughts' value prompt)."""
    if question.language == "zh":
        asked = "这些步骤能否得出正确答案？请用一个词判断：确定、可能或不可能。"
        return _asked(f"{_steps(question, steps)}\n\n{asked}", "判断：")
    asked = "Can these steps lead to the right answer? Judge with one word: sure, likely or impossible."
    return _asked(f"{_steps(question, steps)}\n\n{asked}", "Judgement:")


def proposals(question: Question, steps: str, count: int) -> tuple[Message, ...]:
    """Several possible next steps, one on each line (Tree of Thoughts' propose prompt)."""
    if question.language == "zh":
        asked = f"请提出 {count} 个不同的可能的下一步，每行一个，每个只写一个简短的算式或一句话。"
    else:
        asked = f"Propose {count} different possible next steps, one on each line, each a short equation or sentence."
    return _asked(f"{_steps(question, steps)}\n\n{asked}", "1.")


def debate(question: Question, others: Sequence[str], prompt: str) -> Message:
    """The next round's user turn: the other agents' answers, then the question again (llm_multiagent_debate)."""
    if question.language == "zh":
        lead, name, ask = "以下是其他智能体对同一问题的回答：", "回答", "请参考这些回答，检查其中的推理，再次回答问题。"
    else:
        lead, name = "These are other agents' answers to the question:", "Answer of agent"
        ask = "Check their reasoning, use it as additional information, and answer the question again."
    answers = "\n\n".join(f"{name} {number}:\n```\n{text.strip()}\n```" for number, text in enumerate(others, 1))
    return Message("user", f"{lead}\n\n{answers}\n\n{ask}\n\n{prompt}")


def _steps(question: Question, steps: str) -> str:
    """The question with the reasoning so far, if there is any."""
    asked, done = ("问题：", "目前的推理：") if question.language == "zh" else ("Question: ", "Reasoning so far:")
    return f"{asked}{body(question)}" + (f"\n\n{done}\n{steps.strip()}" if steps.strip() else "")


def _asked(prompt: str, opening: str) -> tuple[Message, ...]:
    return Message("user", prompt), Message("assistant", opening)
