"""Tree of Thoughts (arXiv:2305.10601), breadth first: propose next steps, value each by a call, keep the best."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tale.config.fields import opt
from tale.data import strategy_prompts
from tale.data.prompts import Message, turns
from tale.data.question import Language, Question
from tale.errors import UserError
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.base import Call
from tale.solvers.forcing import answer_reserve_option, forced, forced_answer
from tale.solvers.spending import Ask, Spending
from tale.solvers.strategy import Strategy

BULLET = re.compile(r"^\s*(?:\d+、|(?:\d+[.):]|[-*•])\s)\s*")  # before a proposed step


@dataclass
class Thought:
    """A step after those before it. `messages`: the conversation up to its end; `call`: what generated it, if any.

    `done`: it ends the turn or has the answer, so that nothing follows it.
    """

    messages: tuple[Message, ...]
    call: Call | None = None
    done: bool = False
    score: float = 0.0

    @property
    def text(self) -> str:
        """The steps up to its end."""
        *_, last = turns(self.messages)
        return last["content"] if last["role"] == "assistant" else ""

    @property
    def number(self) -> int | None:
        """The number of its call."""
        return self.call.number if self.call else None


@dataclass
class TreeOfThoughts(Strategy):
    """Propose steps after each kept state, keep the best by a verdict, level by level; then answer from the best.

    Every level and the answer get equal shares of what is left for it and what follows. Of equal verdicts the first
    step is kept. A verdict that is none of the words is worth nothing.
    """

    label_of = "Tree of Thoughts"
    samples = True

    method_generate: str = opt(
        "propose: one call lists the next steps, a line each; sample: each next step is a sample of the chain",
        "propose",
        choices=("propose", "sample"),
    )
    candidates: int = opt("next steps of a state", 3, ge=1)
    breadth: int = opt("states that a level keeps", 2, ge=1)
    max_depth: int = opt("levels before the answer", 2, ge=1)
    stop: list[str] = opt("strings that end a sampled step", ["\n\n"])
    value_tokens: int = opt("most tokens of a verdict", 4, ge=1)
    answer_reserve: int = answer_reserve_option()

    @property
    def described(self) -> str:
        """The strategy, with the way in which steps are generated if it is not the default."""
        return self.label_of + ", sampled steps" * (self.method_generate == "sample")

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse empty stop strings, and a B without room for a proposal, its verdict and an answer."""
        super().check(where, questions, sampling)
        if not self.stop or not all(self.stop):
            raise UserError(f"{where}.stop={self.stop}: give one or more strings that end a step, none of them empty")
        least = (self.max_depth + 1) * (self._cost(1) + 1)
        if self.total_budget and self.total_budget < least:
            raise UserError(
                f"{where}: B = {self.total_budget} has no room for the proposals and verdicts of {self.max_depth} "
                f"levels and an answer; it must be at least {least}, or lower max_depth, candidates or value_tokens"
            )

    def reason(self, spending: Spending, prompt: tuple[Message, ...]) -> Solver[None]:
        """The levels, then the answer after the best state."""
        states = [Thought(prompt)]
        for level in range(self.max_depth):
            tokens = spending.left // (self.max_depth + 1 - level)
            thoughts = yield from self._thoughts(spending, [state for state in states if not state.done], tokens)
            if not thoughts:
                break
            yield from self._verdicts(spending, thoughts)
            states = best([*(state for state in states if state.done), *thoughts], self.breadth)
        if states[0].done and states[0].call:
            spending.answer(states[0].call)
        else:
            yield from self._answer(spending, states[0])

    def longest_after(self, question: Question, chain: Request) -> list[Request]:
        """The answer after some steps, their proposal and their verdict."""
        asked = [forced(chain.messages, question), strategy_prompts.verdict(question, "…")]
        if self.method_generate == "propose":
            asked.append(strategy_prompts.proposals(question, "…", self.candidates))
        return [self.with_room(chain, messages) for messages in asked]

    def _cost(self, states: int) -> int:
        """Most tokens of the verdicts after so many states."""
        return states * self.candidates * self.value_tokens

    def _thoughts(self, spending: Spending, states: Sequence[Thought], tokens: int) -> Solver[list[Thought]]:
        """The next steps after each state, without repeated ones; `tokens` are for them and their verdicts."""
        limit = (tokens - self._cost(len(states))) // max(len(states), 1)
        made = yield from (self._proposed if self.method_generate == "propose" else self._sampled)(
            spending, states, limit
        )
        first: dict[str, Thought] = {}
        for thought in made:
            first.setdefault(thought.text, thought)
        return list(first.values())

    def _proposed(self, spending: Spending, states: Sequence[Thought], limit: int) -> Solver[list[Thought]]:
        """The lines of one call after each state."""
        prompts = [strategy_prompts.proposals(spending.question, s.text, self.candidates) for s in states]
        asks = [Ask(p, "proposals", limit, parent=s.number) for p, s in zip(prompts, states, strict=True)]
        made = yield from spending.several(asks)
        return [
            Thought((*state.messages, Message("assistant", f"{step}\n")), call)
            for state, call in zip(states, made, strict=bool(made))
            for step in steps(call)[: self.candidates]
        ]

    def _sampled(self, spending: Spending, states: Sequence[Thought], limit: int) -> Solver[list[Thought]]:
        """Samples of the chain's next step after each state."""
        share, stop = limit // self.candidates, tuple(self.stop)
        asks = [
            Ask(state.messages, "step", share, sample, state.number, stop, continued=True)
            for state in states
            for sample in range(self.candidates)
        ]
        made = yield from spending.several(asks)
        return [Thought(call.continued, call, not call.open or spending.value(call) is not None) for call in made]

    def _verdicts(self, spending: Spending, thoughts: Sequence[Thought]) -> Solver[None]:
        """Score each thought by a call at temperature 0."""
        prompts = [strategy_prompts.verdict(spending.question, thought.text) for thought in thoughts]
        asks = [
            Ask(prompt, "value", self.value_tokens, parent=thought.number, stop=("\n",), greedy=True)
            for prompt, thought in zip(prompts, thoughts, strict=True)
        ]
        made = yield from spending.several(asks)
        for thought, call in zip(thoughts, made, strict=bool(made)):
            thought.score = read_verdict(call.completion.text, spending.question.language)
            spending.score(call.number, thought.score)

    def _answer(self, spending: Spending, state: Thought) -> Solver[None]:
        """Continue the state to the answer, and force one if none comes."""
        limit = max(1, spending.left - self.answer_reserve)
        answer = yield from spending.call(state.messages, "answer", limit=limit, parent=state.number, continued=True)
        if answer and spending.value(answer) is None:
            answer = (yield from forced_answer(spending, answer)) or answer
        if answer:
            spending.answer(answer)


def best(thoughts: Sequence[Thought], breadth: int) -> list[Thought]:
    """The thoughts with the greatest scores, greatest first; of equal ones the first."""
    return sorted(thoughts, key=lambda thought: -thought.score)[:breadth]


def steps(call: Call) -> list[str]:
    """The proposed steps, a line each, without numbers; a last one that is cut off is left out unless it is alone."""
    found = [BULLET.sub("", line, count=1).strip() for line in call.completion.text.splitlines()]
    found = [line for line in found if line]
    return found[:-1] if call.completion.truncated and len(found) > 1 else found


def read_verdict(text: str, language: Language) -> float:
    """The score of the verdict's first word; 0 if it is none of `VERDICTS`."""
    scores = strategy_prompts.VERDICTS[language]
    found = re.match(rf"\W*({'|'.join(scores)})", text.lower())
    return scores[found[1]] if found else 0.0
