"""Value tree search: values, parts of the budget and the winning leaf, by hand."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from tale.errors import UserError
from tale.evaluation.replies import Reply, check_methods, graded_reply
from tale.inference import Completion, Request, Sampling
from tale.solvers.tree_search import TreeSearch
from tale.solvers.valuation import read_probability
from tale.solvers.value_tree import Node, probabilities, shares
from tests.fake_engine import questions
from tests.token_engine import Script, TokenEngine

(QUESTION,) = questions(1)
SAMPLING = Sampling(max_tokens=512, temperature=0.7)
OPTIONS = {"candidates": 2, "max_depth": 2, "stop": [";"], "min_step_tokens": 10, "value_tokens": 5}


def grown(script: Script, **options: object) -> tuple[Reply, list[list[tuple[Request, Completion]]]]:
    """The reply of a tree search, and its calls step by step."""
    method = TreeSearch(**(OPTIONS | options))  # type: ignore[arg-type]
    solution, steps = TokenEngine(script).run(method.solve(QUESTION, SAMPLING))
    return graded_reply(method.name, QUESTION, solution), steps


def step(text: str, tokens: int) -> Completion:
    """A step that its stop string ended."""
    return Completion(text, tokens, "stop", 10, stop_string=";")


def valued(value: str) -> Completion:
    """A valuation of 4 tokens."""
    return Completion(value, 4, "stop", 10, stop_string="]]")


def story(request: Request) -> Completion:
    """A tree of two steps and three leaves; the second leaf is cut off by its limit."""
    if request.stop == ("]]",):
        asked = request.messages[0].content
        values = {"good; It is [[7]].": "0.5", "good; unclear": "0.1", "poor; It is [[8]].": "1", "good;": "0.6"}
        return valued(next((value for end, value in values.items() if end in asked), "0.3"))
    turn = request.messages[-1].content
    if request.messages[-1].role == "user":
        return [step("good", 20), step("poor", 15)][request.sample]
    if turn == "good;":
        leaves = [Completion(" It is [[7]].", 10, "stop", 10), Completion(" unclear", 14, "length", 10)]
        return leaves[request.sample]
    return Completion(" It is [[8]].", 8, "stop", 10)


def test_a_three_node_tree_has_its_values_and_shares():
    low, leaf = Node((), reward=Fraction(3, 10)), Node((), reward=Fraction(1, 2))
    high = Node((), reward=Fraction(6, 10), children=[leaf])
    root, discount = Node((), children=[high, low]), Fraction(9, 10)
    # 0.6 + 0.9 · 0.5 = 1.05, and 0.9 · max(1.05, 0.3) = 0.945, the value of the best path
    assert (high.value(discount), root.value(discount)) == (Fraction("1.05"), Fraction("0.945"))
    assert [gained for gained, _ in root.leaves(discount)] == [Fraction("0.945"), Fraction("0.27")]
    # 90 · 1.05 / (1.05 + 0.3) = 70 for what is below `high`, 20 for `low`
    assert shares(root, Fraction(90), discount) == [(leaf, 70), (low, 20)]
    leaf.open = False
    assert shares(root, Fraction(90), discount) == [(low, 90)]
    low.reward, leaf.open, high.children = Fraction(0), True, []
    high.reward = Fraction(0)
    assert shares(root, Fraction(90), discount) == [(high, 45), (low, 45)]


def test_bavt_draws_by_the_value_to_the_power_of_one_by_r():
    assert probabilities([0.8, 0.4], 1.0) == pytest.approx([2 / 3, 1 / 3])
    assert probabilities([0.8, 0.4], 0.5) == pytest.approx([0.8, 0.2])
    assert probabilities([0.8, 0.4], 0.25) == pytest.approx([16 / 17, 1 / 17])
    assert probabilities([0.8, 0.4], 0.001) == pytest.approx([1, 0])
    assert probabilities([0.0, 0.0], 0.5) == [0.5, 0.5]


def test_a_tree_keeps_its_limits_and_the_best_path_wins():
    reply, steps = grown(story, total_budget=120, answer_reserve=20)
    limits = [[request.sampling.max_tokens for request, _ in requests] for requests in steps]
    # 100 for two steps of 50 - 5; after 43 tokens 57 are left, 38 and 19 by 0.6 : 0.3: for two and for one leaf.
    assert limits == [[45, 45], [5, 5], [14, 14, 14], [5, 5, 5]]
    assert [requests[0][0].stop for requests in steps] == [(";",), ("]]",), (), ("]]",)]
    assert [(call.role, call.parent) for call in reply.calls[4:8]] == [
        ("step", 0),
        ("step", 0),
        ("step", 1),
        ("value", 4),
    ]
    assert [call.value for call in reply.calls] == [None, None, None, None, "7", None, "8", None, None, None]
    # V of a step: 0.6 + 0.9 · 0.5 and 0.3 + 0.9 · 1; of a path: 0.9 · 0.6 + 0.81 · 0.5 < 0.9 · 0.3 + 0.81 · 1
    assert [call.score for call in reply.calls if call.role == "step"] == [1.05, 1.2, 0.5, 0.1, 1.0]
    assert (reply.value, reply.tokens, [answer.tokens for answer in reply.answers]) == ("8", 87, [87])


def test_a_majority_of_leaves_counts_and_the_first_wins_a_tie():
    reply, _ = grown(story, total_budget=120, answer_reserve=20, answer_by="majority")
    assert reply.value == "7"


def test_bavt_expands_one_node_at_a_time():
    reply, steps = grown(story, total_budget=120, answer_reserve=20, allocation="bavt")
    limits = [[request.sampling.max_tokens for request, _ in requests] for requests in steps]
    # Expanding the first step takes 24 + 8 of the 57 left, and leaves 45 with the reserve; the second 16 + 4 of them.
    assert limits[:2] == [[45, 45], [5, 5]]
    assert limits[2:4] in ([[23, 23], [5, 5]], [[23, 23], [5]])
    assert reply.value == "8"


def test_agreement_of_siblings_is_free():
    def script(request: Request) -> Completion:
        texts = ["3 + 4 = 7", "so 7", "it is 8"]
        if request.messages[-1].role == "user":
            return step(texts[request.sample], 10)
        return Completion(" [[7]]" if request.messages[-1].content == "3 + 4 = 7;" else " [[8]]", 4, "stop", 10)

    reply, steps = grown(script, total_budget=120, value="agreement", candidates=3, discount=0.0)
    limits = [[request.sampling.max_tokens for request, _ in requests] for requests in steps]
    # 104 for three steps; 74 are left, by 2/3 : 2/3 : 1/3 of the value.
    assert limits == [[34, 34, 34], [14, 14, 14, 14, 14]]
    assert [call.score for call in reply.calls[:3]] == [2 / 3, 2 / 3, 1 / 3]


def test_without_an_answered_leaf_one_is_forced_after_the_best():
    def script(request: Request) -> Completion:
        if request.stop == ("]]",) and "poor" in request.messages[0].content:
            return valued("0.9")
        if request.stop == ("]]",) and request.messages[-1].content.endswith("Probability: [["):
            return valued("no idea")
        if request.messages[-1].role == "user":
            return [step("good", 20), step("poor", 15)][request.sample]
        if request.messages[-1].content == "\n\nAnswer: [[":
            return valued("7")
        return Completion(" and so on", request.sampling.max_tokens, "length", 10)

    reply, steps = grown(script, total_budget=100, min_step_tokens=30)
    # After 43 tokens an unreadable value is 0, so the 41 beyond the reserve of 16 are all for the other step.
    limits = [[request.sampling.max_tokens for request, _ in requests] for requests in steps]
    assert limits == [[37, 37], [5, 5], [36], [5], [17]]
    assert (reply.calls[-1].role, reply.calls[-1].parent, reply.value) == ("forced answer", 4, "7")


def test_where_no_part_pays_the_best_paths_chain_is_finished():
    def script(request: Request) -> Completion:
        asked, turn = request.messages[0].content, request.messages[-1].content
        if request.stop == ("]]",):
            return valued("0.9" if "good; so" in asked else "0.6" if "good;" in asked else "0.5")
        if request.messages[-1].role == "user":
            return step(["good", "poor"][request.sample], 5)
        return step(f" so {request.sample}", 5) if request.stop else Completion(f"{turn} [[7]]", 5, "stop", 10)

    reply, steps = grown(script, total_budget=94, max_depth=4)
    # 78 for two steps of 39 - 5; of the 60 left 32 pay for two steps after the first and 27 for one after the second.
    # Then of 33 the last has the greatest part, 13, and less than a step's 15; the first one's path has the value.
    limits = [[request.sampling.max_tokens for request, _ in requests] for requests in steps[:5]]
    assert limits == [[34, 34], [5, 5], [11, 11, 22], [5, 5, 5], [28]]
    rest, _ = steps[4][0]
    assert ([part.content for part in rest.messages[1:]], rest.stop) == (["good;", " so 0;"], ())
    assert reply.answers[0].correct


@pytest.mark.parametrize("allocation", ["shares", "bavt"])
def test_a_budget_below_a_step_is_for_one_chain(allocation: str):
    """B = 24 leaves 14 before the reserve, less than 10 and 5: a chain of 9, its valuation, then a forced answer."""
    given: dict[str, object] = {"total_budget": 24, "answer_reserve": 10, "allocation": allocation}
    _, steps = grown(lambda request: Completion("x", min(3, request.sampling.max_tokens), "length", 10), **given)
    assert [[request.sampling.max_tokens for request, _ in each] for each in steps][:2] == [[9], [5]]


def test_a_step_that_repeats_a_sibling_is_not_expanded():
    def script(request: Request) -> Completion:
        if request.stop == ("]]",):
            return valued("0.5")
        return step("same", 20) if request.messages[-1].role == "user" else Completion(" [[7]]", 5, "stop", 10)

    _, steps = grown(script, total_budget=120, candidates=2)
    assert [len(requests) for requests in steps[:3]] == [2, 1, 2]
    assert len({request.messages for request, _ in steps[2]}) == 1


def test_a_value_outside_zero_to_one_counts_as_zero():
    readings = {"[[0.8]]": "0.8", "[[80%]]": "0", "[[1]]": "1", "[[1.2]]": "0", "[[-0.5]]": "0", "high": "0"}
    assert {text: read_probability(text) for text in readings} == {t: Fraction(v) for t, v in readings.items()}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"total_budget": 22}, "methods[0]: B = 22 has no room for one step, its value and the answer kept in reserve"),
        ({"total_budget": 99, "stop": [""]}, "methods[0].stop=['']: give one or more strings that end a step"),
    ],
)
def test_a_tree_that_cannot_grow_is_refused(options: dict[str, object], error: str):
    with pytest.raises(UserError, match=re.escape(error)):
        check_methods([TreeSearch(**options)], [QUESTION], SAMPLING)  # type: ignore[arg-type]
