"""Budget-aware value tree search: V(n) = R(n) + γ max V(child), and B is divided among children by their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random

from tale.config.fields import opt
from tale.data import strategy_prompts
from tale.data.prompts import Message
from tale.data.question import Question
from tale.errors import UserError
from tale.grading import equal, read
from tale.inference import Request, Sampling
from tale.inference.scheduler import Solver
from tale.solvers.base import Call
from tale.solvers.forcing import answer_reserve_option, forced, forced_answer
from tale.solvers.spending import Ask, Spending
from tale.solvers.strategy import Strategy
from tale.solvers.valuation import estimated_values, value_tokens_option
from tale.solvers.value_tree import Node, probabilities, shares
from tale.solvers.voting import Votes


@dataclass
class TreeSearch(Strategy):
    """Grow a tree of reasoning steps; the answered leaf of the path with the greatest value Σ γ^d R wins.

    In every round all open nodes are expanded at the same time, each within its part of what is left (`shares`, which
    are limits of its calls), or one drawn node within all of it (BAVT). A part that is too small for all candidates
    pays for fewer; if none pays for one, all that is left is for the rest of the best open path's chain, in one call.
    The step at the last depth is such a rest, too. If no leaf has an answer, one is forced after the best leaf.
    """

    label_of = "Tree search"
    samples = True

    discount: float = opt("γ of V(n) = R(n) + γ max V(child)", 0.9, ge=0, le=1)
    candidates: int = opt("most children of a node", 3, ge=1)
    max_depth: int = opt("most steps of a chain; the last one has no stop string", 5, ge=1)
    value: str = opt(
        "R(n): model, its own estimate in [0, 1] in a short call that is part of B (unreadable: 0), or agreement, the "
        "share of siblings with the same result (ours, free)",
        "model",
        choices=("model", "agreement"),
    )
    allocation: str = opt(
        "shares: every open node gets its part B · V/ΣV, or bavt: one node, drawn with probability ∝ V^(1/r), r "
        "the share of B left (arXiv:2603.12634), gets all that is left",
        "shares",
        choices=("shares", "bavt"),
    )
    answer_by: str = opt(
        "value: the answered leaf of the best path; majority: the most frequent answer of leaves",
        "value",
        choices=("value", "majority"),
    )
    stop: list[str] = opt("strings that end a step", ["\n\n"])
    min_step_tokens: int = opt("tokens that a node must have for each of its children", 32, ge=1)
    value_tokens: int = value_tokens_option()
    answer_reserve: int = answer_reserve_option()

    @property
    def described(self) -> str:
        """The strategy, with the options that differ from the defaults."""
        ways = {self.value: "model", {"bavt": "BAVT"}.get(self.allocation, ""): "", self.answer_by: "value"}
        return ", ".join([self.label_of, *(way for way, default in ways.items() if way != default)])

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse empty stop strings, and a B without room for a step, its value and an answer."""
        super().check(where, questions, sampling)
        if not self.stop or not all(self.stop):
            raise UserError(f"{where}.stop={self.stop}: give one or more strings that end a step, none of them empty")
        least = self.answer_reserve + self._value_cost + 1
        if self.total_budget and self.total_budget < least:
            raise UserError(
                f"{where}: B = {self.total_budget} has no room for one step, its value and the answer kept in reserve; "
                f"it must be at least {least}, or lower answer_reserve or value_tokens"
            )

    def reason(self, spending: Spending, prompt: tuple[Message, ...]) -> Solver[None]:
        """Expand round by round, then force an answer if there is none."""
        root, rounds = Node(prompt), 0
        while (yield from self._expand(spending, self._parts(spending, root, rounds))):
            rounds += 1
            if answered := self._answered(spending.question, root):
                spending.answer(answered)
        ends = [(gained, leaf.call) for gained, leaf in root.leaves(self._discount) if leaf.call]
        if ends and not spending.answers:
            _, best = max(ends, key=lambda end: end[0])
            if answer := (yield from forced_answer(spending, best)):
                spending.answer(answer)
        self._record(spending, root)

    def longest_after(self, question: Question, chain: Request) -> list[Request]:
        """A chain, its continuation, and the valuation of one, each after earlier steps."""
        asked = [chain.messages, forced(chain.messages, question)]
        if self.value == "model":
            asked.append(strategy_prompts.probability(question, "…"))
        return [self.with_room(chain, messages) for messages in asked]

    @property
    def _discount(self) -> Fraction:
        return Fraction(str(self.discount))

    @property
    def _value_cost(self) -> int:
        return self.value_tokens if self.value == "model" else 0

    def _parts(self, spending: Spending, root: Node, rounds: int) -> list[tuple[Node, int, int]]:
        """The nodes to expand, each with its tokens and for how many steps they pay; 0: for the rest of its chain."""
        left = spending.left - (0 if spending.answers else self.answer_reserve)
        parts = [(node, int(part)) for node, part in shares(root, Fraction(left), self._discount)] if left > 0 else []
        least = self.min_step_tokens + self._value_cost
        if parts and self.allocation == "bavt":
            weights = probabilities([float(node.reward) for node, _ in parts], spending.left / spending.budget)
            random = Random(Request(root.messages, spending.sampling, rounds).draw_seed)
            parts = [(random.choices(parts, weights)[0][0], left)]
        if parts and all(tokens < least for _, tokens in parts):
            ends = [end for end in root.leaves(self._discount) if end[1].open]
            return [(max(ends, key=lambda end: end[0])[1], left, 0)]
        return [(node, tokens, min(self.candidates, tokens // least)) for node, tokens in parts if tokens >= least]

    def _expand(self, spending: Spending, parts: Sequence[tuple[Node, int, int]]) -> Solver[bool]:
        """Generate and value the children of these nodes; whether there are any."""
        asks: list[Ask] = []
        parents: list[Node] = []
        for node, tokens, steps in parts:
            count = max(1, steps)
            limit, number = tokens // count - self._value_cost, node.call.number if node.call else None
            stop = tuple(self.stop) if steps and node.depth + 1 < self.max_depth else ()
            if limit > 0:
                asks += [Ask(node.messages, "step", limit, i, number, stop, continued=True) for i in range(count)]
                parents += [node] * count
        made = yield from spending.several(asks)
        for parent, call in zip(parents, made, strict=bool(made)):
            parent.children.append(self._child(spending, parent, call))
        expanded = list(dict.fromkeys(parents)) if made else []
        if self.value == "model":
            yield from self._estimate_rewards(spending, [child for node in expanded for child in node.children])
        else:
            for node in expanded:
                _agree(spending.question, node.children)
        return bool(made)

    def _child(self, spending: Spending, parent: Node, call: Call) -> Node:
        """A step's node. One that repeats an earlier sibling would have the same children, so it gets none."""
        answer, depth = spending.value(call), parent.depth + 1
        twin = any(sibling.text == call.text for sibling in parent.children)
        goes_on = call.open and answer is None and depth < self.max_depth
        return Node(call.continued, call, depth, answer, goes_on and not twin)

    def _estimate_rewards(self, spending: Spending, nodes: Sequence[Node]) -> Solver[None]:
        """R(n) by the model at temperature 0, asked for once for nodes with the same text."""
        texts: dict[str, int | None] = {}
        for node in nodes:
            texts.setdefault(node.text, node.call.number if node.call else None)
        rewards = yield from estimated_values(spending, texts, self.value_tokens)
        for node in nodes:
            node.reward = rewards.get(node.text, Fraction(0))

    def _answered(self, question: Question, root: Node) -> Call | None:
        """The call of the winning leaf; the first of several."""
        ends = [(gained, leaf) for gained, leaf in root.leaves(self._discount) if leaf.answer is not None]
        if self.answer_by == "value":
            return max(ends, key=lambda end: end[0])[1].call if ends else None
        votes = Votes(question)
        for _, leaf in ends:
            if leaf.call:
                votes.add(leaf.call, leaf.answer)
        return votes.leader.first if votes.leader else None

    def _record(self, spending: Spending, node: Node) -> None:
        """Record V of every node."""
        if node.call:
            spending.score(node.call.number, float(node.value(self._discount)))
        for child in node.children:
            self._record(spending, child)


def _agree(question: Question, siblings: Sequence[Node]) -> None:
    """R(n) of siblings: the share of them with the same result, which is the last number of their step."""
    results = [node.answer or _result(question, node) for node in siblings]
    for node, result in zip(siblings, results, strict=True):
        same = [other is not None and result is not None and equal(result, other, question.kind) for other in results]
        node.reward = Fraction(sum(same), len(siblings))


def _result(question: Question, node: Node) -> str | None:
    return read(node.call.completion.text, question.kind, question.language).value if node.call else None
