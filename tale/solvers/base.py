"""What every method is made of."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tale.config.fields import opt
from tale.data.question import Question
from tale.estimators import Estimate
from tale.inference import Completion, Request, Sampling
from tale.inference.scheduler import Solver


@dataclass(frozen=True)
class Call:
    """A request with its completion."""

    request: Request
    completion: Completion


@dataclass(frozen=True)
class Solution:
    """A method's answer to a question: the call that it is taken from.

    `budget` is what the answer was asked for in, in tokens, and `estimate` where it comes from.
    """

    answer: Call
    budget: int | None = None
    estimate: Estimate = field(default_factory=lambda: Estimate(None))

    @property
    def tokens(self) -> int:
        """All output tokens, the estimator's included."""
        estimator = self.estimate.completion
        return self.answer.completion.tokens + (estimator.tokens if estimator else 0)

    @property
    def answers(self) -> tuple[tuple[int, str], ...]:
        """What would be answered at each smaller cost: output tokens, rising, and the text from there on."""
        return ((self.tokens, self.answer.completion.text),)


@dataclass
class Method:
    """A way to answer questions, with its options. `kind` is its name in recipes."""

    was = ""  # the kind's earlier name
    # Every method, by its kind; without an annotation, which would make it an option.
    kinds = dict[str, "type[Method]"]()  # noqa: RUF012

    kind: str = opt("direct, vanilla, fixed_budget, optimal_budget or tale_ep", "")
    label: str | None = opt("name in tables; default: the kind", None)
    adapter: str | None = opt("adapter folder to answer with (TALE-PT: kind vanilla with an adapter)", None)

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if not abstract:
            cls.kinds[cls.__module__.rpartition(".")[2]] = cls

    def __post_init__(self) -> None:
        self.kind = type(self).__module__.rpartition(".")[2]

    @property
    def title(self) -> str:
        """Its name where it has no label and no adapter."""
        return ""

    @property
    def name(self) -> str:
        """The method's name in tables."""
        return self.label or (Path(self.adapter).parent.name if self.adapter else self.title)

    @property
    def reads(self) -> list[str]:
        """Paths of what it works with."""
        return [self.adapter] if self.adapter else []

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Refuse what cannot work, before a model is loaded; `where` it stands in the recipe.

        Raises:
            UserError: an option is missing, or does not fit.
        """

    def solve(self, question: Question, sampling: Sampling) -> Solver[Solution]:
        """The solver of one question."""
        raise NotImplementedError

    def longest(self, question: Question, sampling: Sampling) -> list[Request]:
        """The longest requests that it may make."""
        raise NotImplementedError


def call(prompt: str, sampling: Sampling) -> Generator[Sequence[Request], Sequence[Completion], Call]:
    """One user turn, answered."""
    request = Request.user(prompt, sampling)
    (completion,) = yield [request]
    return Call(request, completion)
