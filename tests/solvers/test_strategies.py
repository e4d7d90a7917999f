"""Strategies within one budget: their rules, by hand, on answers that a test writes."""

from __future__ import annotations

import itertools

import pytest
from scipy import integrate

from tale.config.recipes import load
from tale.data import prompts
from tale.data.prompts import Message
from tale.evaluation.budgets import with_budgets
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import Reply, answer_all
from tale.inference import Completion, Request, Sampling
from tale.solvers.adaptive_consistency import probability_to_stay
from tale.solvers.registry import METHODS
from tale.solvers.spending import Ask, Spending
from tale.solvers.strategy import Strategy
from tests.fake_engine import FakeEngine, questions, right, wrong
from tests.token_engine import Script, TokenEngine

QUESTIONS = questions(1)
STRATEGIES = sorted(kind for kind, of in METHODS.items() if issubclass(of, Strategy))
SAMPLED = Sampling(max_tokens=512, temperature=0.7)


def answered(kind: str, engine: TokenEngine | FakeEngine, **options: object) -> Reply:
    """The reply of a strategy with these options."""
    (reply,) = answer_all(METHODS[kind](**options), QUESTIONS, engine, SAMPLED)
    return reply


def samples(*values: str) -> Script:
    """Samples of 5 tokens with these answers in turn, over and over; "-": none."""
    texts = ["no answer in here" if value == "-" else f"it must be [[{value}]]" for value in values]
    return lambda asked: texts[asked.sample % len(texts)]


def chain(text: str, *answers: str) -> Script:
    """A chain, with an answer for each number of steps after which it is forced; other text parts give the last."""
    return lambda asked: text if asked.messages[-1].role == "user" else answers[min(steps(asked), len(answers)) - 1]


def steps(asked: Request) -> int:
    """The parts of the open turn that were generated."""
    return sum(message.ids is not None for message in asked.messages)


def words(number: int) -> str:
    """So many tokens without an answer."""
    return " ".join(["and"] * number)


# --- Voting ---------------------------------------------------------------------------------------------------------


def test_self_consistency_stops_before_it_would_exceed_b():
    given = [wrong(30), right(50), right(40), wrong(40), wrong(1)]
    reply = answered("self_consistency", FakeEngine(QUESTIONS, lambda asked: given[asked.sample]), total_budget=160)
    # After 3 samples the mean is 40, which fits into the 40 left; after the 4th nothing is left.
    assert [(call.limit, call.tokens) for call in reply.calls] == [(160, 30), (130, 50), (80, 40), (40, 40)]
    # 8, then a tie in which the 8 was first, then 7 with two votes, then a tie again, in which 7 had two first.
    assert [(answer.tokens, answer.correct) for answer in reply.answers] == [(30, False), (120, True)]
    assert (reply.tokens, reply.value, reply.correct) == (160, "7", True)
    reply = answered("self_consistency", FakeEngine(QUESTIONS, lambda asked: given[asked.sample]), total_budget=159)
    assert [call.tokens for call in reply.calls] == [30, 50, 40]


@pytest.mark.parametrize(("a", "b"), itertools.combinations_with_replacement(range(9, -1, -2), 2))
def test_the_majority_stays_by_the_integral_of_its_definition(a: int, b: int):
    """Adaptive-Consistency: ∫ x^a (1−x)^b dx from 0.5 to 1, over the same from 0 to 1."""

    def weight(x: float) -> float:
        return x**a * (1 - x) ** b

    whole, _ = integrate.quad(weight, 0, 1)
    assert probability_to_stay(a, b) == pytest.approx(integrate.quad(weight, 0.5, 1)[0] / whole, rel=1e-9)


@pytest.mark.parametrize(
    ("values", "count"),
    # P(stay) at votes 3:0 and 4:0 is 15/16 and 31/32; at 5:1 and 6:1 it is 120/128 and 247/256. No answer is no vote.
    [("7", 4), ("87777777", 7), ("-7777777", 5), ("78", 40)],
)
def test_adaptive_consistency_stops_where_the_majority_is_safe(values: str, count: int):
    stays = [probability_to_stay(*votes) for votes in ((3, 0), (4, 0), (5, 1), (6, 1))]
    assert stays == pytest.approx([15 / 16, 31 / 32, 120 / 128, 247 / 256])
    reply = answered("adaptive_consistency", TokenEngine(samples(*values)), total_budget=1000)
    assert (len(reply.calls), reply.value) == (count, "7")


@pytest.mark.parametrize(
    ("values", "count"),
    # Agreement across windows, as of samples 2 to 6, is none; nor is a window with a chain without an answer.
    [("7", 5), ("8777777777", 10), ("877777-77777777", 15), ("78", 40)],
)
def test_early_stopping_stops_at_the_first_window_that_agrees(values: str, count: int):
    reply = answered("early_stopping", TokenEngine(samples(*values)), total_budget=1000)
    assert (len(reply.calls), reply.value) == (count, "7")


@pytest.mark.parametrize("kind", ["adaptive_consistency", "early_stopping"])
def test_a_stop_is_no_reason_to_exceed_b(kind: str):
    """Samples of 5 tokens, with the end 4 words and it: 3 of them in 17."""
    reply = answered(kind, TokenEngine(samples("8", "7")), total_budget=17)
    assert ([call.tokens for call in reply.calls], reply.value) == ([5, 5, 5], "8")


@pytest.mark.parametrize(
    ("scores", "best"),
    [("0.4]] 0.9]] 0.9]]", "7"), ("0.9]] 0.4]] 0.9]]", "8"), ("so 7 2]]", "8"), ("no 0.1]] 1.5]]", "7")],
)
def test_best_of_n_answers_with_the_best_score(scores: str, best: str):
    """Of equal scores the first; one that cannot be read, or is above 1, is 0. A chain without an answer has none."""
    values = dict(zip("879", scores.split(), strict=True))

    def script(asked: Request) -> str:
        if asked.messages[-1].role == "user":
            return samples(*"8-79")(asked)
        (scored,) = (value for value in values if f"[[{value}]]" in asked.messages[0].content)
        return f"{values[scored]} for sure"

    reply = answered("best_of_n", TokenEngine(script), total_budget=99, max_samples=4, value_tokens=2)
    assert reply.value == best
    assert [call.role for call in reply.calls] == ["chain", "value", "chain", "chain", "value", "chain", "value"]
    assert [call.parent for call in reply.calls] == [None, 0, None, None, 3, None, 5]
    assert {call.limit for call in reply.calls if call.role == "value"} == {2}
    assert {call.tokens for call in reply.calls if call.role == "chain"} == {5}


def test_a_chain_of_best_of_n_has_to_fit_with_its_score():
    """A chain of 5 tokens with its score of 1, so a second one needs 6 of what is left."""
    engine = TokenEngine(lambda asked: "it must be [[7]]" if asked.messages[-1].role == "user" else "0.5]]")
    for budget, calls in ((11, 2), (12, 4), (5, 1)):
        assert len(answered("best_of_n", engine, total_budget=budget).calls) == calls


def test_best_of_n_by_majority_is_self_consistency():
    replies = [
        answered(kind, TokenEngine(samples(*"87797")), total_budget=26, label="same", **options)
        for kind, options in (("best_of_n", {"scorer": "majority"}), ("self_consistency", {}))
    ]
    assert replies[0] == replies[1]
    assert replies[0].value == "7"


# --- One chain ------------------------------------------------------------------------------------------------------


def test_a_chain_is_cut_at_b_and_has_no_answer_then():
    reply = answered("single", TokenEngine(chain(f"{words(9)} 7")), total_budget=10)
    assert (reply.tokens, reply.finish, reply.value) == (10, "length", None)
    assert answered("single", TokenEngine(chain(f"{words(9)} 7")), total_budget=11).value == "7"


def test_budget_forcing_gives_what_is_kept_to_an_answer():
    engine = TokenEngine(chain(words(20), "just 7]] as I said"))
    reply = answered("single", engine, total_budget=12, force_answer=True, answer_reserve=4)
    assert [(call.role, call.limit, call.tokens) for call in reply.calls] == [("chain", 8, 8), ("forced answer", 4, 2)]
    assert (reply.tokens, reply.value, reply.text) == (10, "just 7", f"{words(8)}\n\nAnswer: [[just 7]]")


def test_wait_continues_an_ended_chain_without_its_end_token():
    engine = TokenEngine(chain("so it is [[5]]", " no, it is [[7]]"))
    reply = answered("single", engine, total_budget=20, wait=2)
    first, second = engine.requests[1:]
    assert [part.content for part in first.messages[1:]] == ["so it is [[5]]", "\nWait"]
    assert first.messages[1].ids == engine.completions[0].ids[:-1]
    assert [part.content for part in second.messages[3:]] == [" no, it is [[7]]", "\nWait"]
    assert [(call.limit, call.tokens) for call in reply.calls] == [(20, 5), (15, 5), (10, 5)]
    assert (reply.value, reply.text) == ("7", "so it is [[5]]" + "\nWait no, it is [[7]]" * 2)


# --- Anytime --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "epsilon", "checkpoints"),
    [
        ("77", 0.01, 2),  # Q is 1 twice
        # Q is 1, 1/2, 2/3, 3/4, 4/5: the fall is no stop, and the gains are 1/3, 1/8 and 1/15 of Q.
        ("577777", 0.1, 5),
        ("577777", 0.13, 4),
        ("77", None, 6),
        ("-777", 0.01, 3),  # without an answer there is no Q to compare with
        ("7-77", 0.01, 3),  # nor is one without an answer the leading one
        ("7", 0.0, 6),  # no gain is below 0
    ],
)
def test_anytime_stops_where_the_latest_answer_leads_for_sure(answers: str, epsilon: float | None, checkpoints: int):
    """6 checkpoints of 3 + 1 tokens in B; an answer of "-" is cut at its limit, and costs 2."""
    forced = ["and so forth" if answer == "-" else f"{answer}]]" for answer in answers]
    engine = TokenEngine(chain(words(99), *forced))
    more = answers[:checkpoints].count("-")
    options = {"step": 3, "answer_reserve": 2, "epsilon": epsilon, "total_budget": 25 + more}
    reply = answered("anytime", engine, **options)
    assert [call.role for call in reply.calls] == ["chain", "forced answer"] * checkpoints
    assert (reply.tokens, reply.value) == (4 * checkpoints + more, "7")


def test_anytime_answers_with_the_latest_or_the_ended_chain():
    engine = TokenEngine(chain(f"{words(5)} is [[9]]", "5]]", "6]]", "7]]"))
    reply = answered("anytime", engine, step=3, answer_reserve=2, total_budget=99, epsilon=None)
    assert [(answer.tokens, reply.calls[answer.call].value) for answer in reply.answers] == [
        (4, "5"),
        (8, "6"),
        (10, "9"),
    ]
    assert [call.parent for call in reply.calls] == [None, 0, 0, 2, 2]
    ended = TokenEngine(chain("no idea", "7]]"))
    reply = answered("anytime", ended, step=3, answer_reserve=2, total_budget=99, epsilon=None)
    assert [(call.role, call.finish) for call in reply.calls] == [("chain", "stop"), ("forced answer", "stop")]
    assert reply.value == "7"


def test_the_last_step_of_anytime_leaves_the_reserve():
    engine = TokenEngine(chain(words(99), "7]]"))
    reply = answered("anytime", engine, step=5, answer_reserve=3, total_budget=12, epsilon=None)
    assert [(call.limit, call.tokens) for call in reply.calls] == [(5, 5), (3, 1), (3, 3), (3, 1)]


# --- All of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STRATEGIES)
def test_every_strategy_states_its_budget_in_its_chains(kind: str):
    engine = TokenEngine(samples("7"))
    answered(kind, engine, total_budget=50, prompt_budget="total", budget_line="At most {budget} tokens:")
    prompt = prompts.budgeted(QUESTIONS[0], 50, "At most {budget} tokens:")
    assert Message("user", prompt) in [request.messages[0] for request in engine.requests]


@pytest.mark.parametrize("kind", STRATEGIES)
def test_every_strategy_is_a_method_of_an_adapter(kind: str):
    method = METHODS[kind](total_budget=50, adapter="runs/sft/adapter")
    assert (method.adapter, method.reads) == ("runs/sft/adapter", ["runs/sft/adapter"])
    assert method.name == f"sft, {METHODS[kind](total_budget=50).title}"


def test_every_strategy_without_b_runs_at_each_of_the_budgets():
    recipe = load(
        EvaluateRecipe,
        [
            "recipe=tiny/eval",
            "budgets=[64, 32]",
            "methods=[{kind: vanilla}, {kind: single}, {kind: single, total_budget: 8}]",
        ],
    )
    names = [method.name for method in with_budgets(recipe)]
    assert names == ["Vanilla CoT", "Single chain, B = 64", "Single chain, B = 32", "Single chain, B = 8"]


def test_calls_at_the_same_time_keep_unequal_limits():
    asked = (Message("user", "?"),)
    asks = [Ask(asked, limit=70), Ask(asked, limit=20), Ask(asked, limit=10)]
    for budget, limits in ((100, [70, 20, 10]), (90, [30, 20, 10]), (2, None)):
        calls = Spending(QUESTIONS[0], SAMPLED, budget).several(asks)
        if limits is None:
            assert not list(calls)
        else:
            assert [request.sampling.max_tokens for request in next(calls)] == limits


def test_the_last_call_of_an_estimate_is_no_answer():
    engine = TokenEngine(lambda request: Completion("Budget: [[7]]", 3, "stop", 10))
    reply = answered("single", engine, total_budget=3, prompt_budget="estimate")
    assert (reply.tokens, reply.value, reply.correct) == (3, None, False)


def test_an_unreadable_estimate_is_the_replys_fallback():
    """Without one the chain has the vanilla prompt; B is `max_tokens` where the estimate would have set it."""
    engine = TokenEngine(lambda request: "it depends" if "budget" in request.prompt.lower() else "it must be [[7]]")
    for options in ({"total_budget": 50, "prompt_budget": "estimate"}, {"budget_multiplier": 2.0}):
        reply = answered("single", engine, **options)
        assert (reply.fallback, reply.budget, reply.value) == ("unreadable estimate", None, "7")
        assert reply.prompt == prompts.vanilla(QUESTIONS[0])
    assert (reply.total_budget, reply.output_tokens) == (512, 3 + 5)
