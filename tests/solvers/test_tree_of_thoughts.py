"""Tree of Thoughts: proposals, verdicts, selection and the answer, by hand."""

from __future__ import annotations

import re

import pytest

from tale.data.prompts import turns
from tale.errors import UserError
from tale.evaluation.replies import check_methods, graded_reply
from tale.inference import Completion, Request, Sampling
from tale.solvers.base import Call
from tale.solvers.tree_of_thoughts import Thought, TreeOfThoughts, best, read_verdict, steps
from tests.fake_engine import ask, questions, right, said
from tests.token_engine import Script, TokenEngine

(QUESTION,) = questions(1)
SAMPLING = Sampling(max_tokens=512, temperature=0.7)


def thought_out(script: Script, **options: object):
    """The reply of a tree of thoughts with two candidates, and its calls step by step."""
    method = TreeOfThoughts(candidates=2, answer_reserve=10, total_budget=120, **options)  # type: ignore[arg-type]
    solution, calls = TokenEngine(script).run(method.solve(QUESTION, SAMPLING))
    return graded_reply(method.name, QUESTION, solution), calls


def proposing(request: Request) -> Completion:
    """Two proposals after every state; "Add 4." is likely, "Halve it." sure."""
    asked, turn = request.messages[0].content, turns(request.messages)[-1]["content"]
    if turn == "1.":
        return said(" Halve it.\n2. Double it.", 10) if "Add" in asked else said(" Add 3.\n2. Add 4.", 20)
    if turn == "Judgement:":
        return said(" sure" if "Halve" in asked else " likely" if "Add 4." in asked else " hm", 3)
    return right(30)


def test_each_level_has_its_share_and_the_best_is_answered():
    reply, calls = thought_out(proposing, breadth=1)
    limits = [[request.sampling.max_tokens for request, _ in requests] for requests in calls]
    # 120 / 3 - 2 verdicts of 4; then 94 / 2 - 8; then 78 - 10 for the answer
    assert limits == [[32], [4, 4], [39], [4, 4], [68]]
    assert turns(calls[-1][0][0].messages)[-1]["content"] == "Add 4.\nHalve it.\n"
    assert [call.score for call in reply.calls or () if call.role == "value"] == [0, 1, 20, 1]
    assert [call.parent for call in reply.calls or ()] == [None, 0, 0, 0, 3, 3, 3]
    assert (reply.value, reply.tokens) == ("7", 72)


def test_every_state_of_a_level_is_expanded():
    _, calls = thought_out(proposing, breadth=2)
    # Of the first level both are kept; a verdict costs at most 4, so each state has (94 / 2 - 16) / 2.
    assert [request.sampling.max_tokens for request, _ in calls[2]] == [15, 15]


def test_a_repeated_proposal_counts_where_it_came_first():
    def script(request: Request) -> Completion:
        turn = turns(request.messages)[-1]["content"]
        if turn == "1.":
            return said(" Add 3.\n2. Halve it.\n3. Add 3.", 20)
        return said(" likely", 3) if turn == "Judgement:" else right(5)

    solution, calls = TokenEngine(script).run(TreeOfThoughts(total_budget=120, max_depth=1).solve(QUESTION, SAMPLING))
    assert [len(requests) for requests in calls] == [1, 2, 1]
    assert solution.answer.request.messages[-1].content == "Add 3.\n"


def test_sampled_steps_continue_the_chain():
    def script(request: Request) -> Completion:
        turn = turns(request.messages)[-1]["content"]
        if turn == "Judgement:":
            return said(" sure" if "[[7]]" in request.messages[0].content else " likely", 3)
        if request.messages[-1].role == "user":
            return Completion(["a", "b"][request.sample], 5, "stop", 10, stop_string="\n\n")
        return Completion(f"Answer: [[{7 if turn[0] == 'b' else 8}]]", 6, "stop", 10)

    reply, calls = thought_out(script, method_generate="sample")
    assert [len(requests) for requests in calls] == [2, 2, 4, 2]
    assert (reply.value, reply.text) == ("7", "b\n\nAnswer: [[7]]")


def test_the_greatest_scores_are_kept_the_first_of_equals():
    thoughts = [Thought((), score=score) for score in (1.0, 20.0, 0.0, 20.0, 1.0)]
    kept = best(thoughts, 3)
    assert [thoughts.index(thought) for thought in kept] == [1, 1, 0]
    assert kept[0] is thoughts[1]
    assert kept[1] is thoughts[3]


def test_a_verdict_is_its_first_word():
    english = {" sure": 20.0, " Likely.": 1.0, " impossible": 0.001, " unlikely": 0.0, "": 0.0, " not sure": 0.0}
    assert {text: read_verdict(text, "en") for text in english} == english
    assert [read_verdict(text, "zh") for text in ("确定", "可能。", "不可能", "不知道")] == [20.0, 1.0, 0.001, 0.0]


def test_proposed_steps_are_lines_and_a_cut_off_one_is_left_out():
    text = " Add 3.\n\n2. 1.5 * 4 = 6\n- Halve it.\n4) Stop he"
    assert steps(Call(ask(""), said(text, 20))) == ["Add 3.", "1.5 * 4 = 6", "Halve it.", "Stop he"]
    assert steps(Call(ask(""), said(text, 20, "length"))) == ["Add 3.", "1.5 * 4 = 6", "Halve it."]
    assert steps(Call(ask(""), said(" Ad", 20, "length"))) == ["Ad"]


def test_numbers_and_signs_within_a_proposed_step_stay():
    lines = ["13 - 7 - 9 = -3", "Subtract 175 and 166: 175 - 166 = 9", "Take 3. Then add 4.", "先加 3、再加 4"]
    text = f" {lines[0]}\n2. {lines[1]}\n* {lines[2]}\n4、{lines[3]}"
    assert steps(Call(ask(""), said(text, 40))) == lines


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"total_budget": 38}, "methods[0]: B = 38 has no room for the proposals and verdicts of 2 levels"),
        ({"total_budget": 99, "stop": []}, "methods[0].stop=[]: give one or more strings that end a step"),
    ],
)
def test_a_tree_without_room_or_stop_strings_is_refused(options: dict[str, object], error: str):
    with pytest.raises(UserError, match=f"^{re.escape(error)}"):
        check_methods([TreeOfThoughts(**options)], [QUESTION], SAMPLING)  # type: ignore[arg-type]
