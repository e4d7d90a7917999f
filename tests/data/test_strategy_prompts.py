"""The prompts of strategies, in English and Chinese."""

from __future__ import annotations

from tale.data import strategy_prompts
from tale.data.prompts import Message
from tale.data.question import Question

ENGLISH = Question("q/0", "How many pens?", "7")
CHINESE = Question("q/1", "有几支笔？", "A", options=("7", "8"), kind="choice", language="zh")


def test_a_valuation_opens_the_turn_up_to_its_number():
    asked, opening = strategy_prompts.probability(ENGLISH, "3 + 4 = 7\n\n")
    assert asked.content == (
        "Question: How many pens?\n\nReasoning so far:\n3 + 4 = 7\n\nHow probable is it that this reasoning is correct "
        "and leads to the right answer? Give a number between 0 and 1 in the format [[probability]]."
    )
    assert opening == Message("assistant", "Probability: [[")


def test_a_chinese_question_has_chinese_prompts():
    prompts = [
        strategy_prompts.probability(CHINESE, "三加四"),
        strategy_prompts.verdict(CHINESE, "三加四"),
        strategy_prompts.proposals(CHINESE, "三加四", 3),
    ]
    assert [
        asked.content.startswith("问题：有几支笔？\nA. 7\nB. 8\n\n目前的推理：\n三加四\n\n") for asked, _ in prompts
    ] == [True] * 3
    assert [opening.content for _, opening in prompts] == ["概率: [[", "判断：", "1."]
    assert strategy_prompts.debate(CHINESE, ["七"], "再问").content.endswith(
        "```\n七\n```\n\n请参考这些回答，检查其中的推理，再次回答问题。\n\n再问"
    )


def test_without_steps_a_proposal_has_the_question_alone():
    asked, _ = strategy_prompts.proposals(ENGLISH, "", 2)
    assert asked.content == (
        "Question: How many pens?\n\nPropose 2 different possible next steps, one on each line, each a short equation "
        "or sentence."
    )
