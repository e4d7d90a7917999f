"""The base class of all methods, calls and solutions."""

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
    """A method's answer to a question: the call with the answer, its budget in tokens, and the budget's estimate."""

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
        """The answer at each cost: pairs of output tokens, rising, and the text that is the answer from there on."""
        return ((self.tokens, self.answer.completion.text),)


@dataclass
class Method:
    """A method to answer questions, with its options. `kind` is its name in recipes."""

    renamed_from = ""  # the kind's old name
    # All methods by kind; not annotated, as an annotation would make it an option.
    kinds = dict[str, "type[Method]"]()  # noqa: RUF012

    kind: str = opt("kind of method: direct, vanilla, fixed_budget, optimal_budget or tale_ep", "")
    label: str | None = opt("name of the method in tables; default: by its kind", None)
    adapter: str | None = opt("folder of the adapter that answers (TALE-PT: kind vanilla with an adapter)", None)

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if not abstract:
            cls.kinds[cls.__module__.rpartition(".")[2]] = cls

    def __post_init__(self) -> None:
        self.kind = type(self).__module__.rpartition(".")[2]

    @property
    def title(self) -> str:
        """The default name, without label and adapter."""
        return ""

    @property
    def name(self) -> str:
        """The method's name in tables."""
        return self.label or (Path(self.adapter).parent.name if self.adapter else self.title)

    @property
    def reads(self) -> list[str]:
        """Paths of the method's input files and folders."""
        return [self.adapter] if self.adapter else []

    def check(self, where: str, questions: Sequence[Question], sampling: Sampling) -> None:
        """Check the options before a model is loaded; `where` is the method's key in the recipe.

        Raises:
            UserError: an option is missing or invalid.
        """

    def solve(self, question: Question, sampling: Sampling) -> Solver[Solution]:
        """A solver for one question."""
        raise NotImplementedError

    def longest_requests(self, question: Question, sampling: Sampling) -> list[Request]:
        """The longest requests that the method may make, to check the context length."""
        raise NotImplementedError


def call(prompt: str, sampling: Sampling) -> Generator[Sequence[Request], Sequence[Completion], Call]:
    """A call with one user turn."""
    request = Request.user(prompt, sampling)
    (completion,) = yield [request]
    return Call(request, completion)
