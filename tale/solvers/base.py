"""The base class of all methods, calls and solutions."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tale.config.fields import opt
from tale.data.prompts import turns
from tale.data.question import Question
from tale.estimators import Estimate
from tale.inference import Completion, Message, Request, Sampling
from tale.inference.scheduler import Solver


@dataclass(frozen=True)
class Call:
    """A request with its completion.

    In a strategy with several calls `role` says what it is for, `number` is its position among them, `parent` that of
    the call that it continues or judges, and `score` the value of its node in a tree.
    """

    request: Request
    completion: Completion
    role: str = "answer"
    number: int = 0
    parent: int | None = None
    score: float | None = None

    @property
    def text(self) -> str:
        """The whole assistant turn: what the request left open, then the completion with its stop string."""
        opened = turns(self.request.messages)[-1]["content"] if self.request.continues else ""
        return f"{opened}{self.completion.text}{self.completion.stop_string or ''}"

    @property
    def open(self) -> bool:
        """Whether the turn is cut off, or has stopped at a stop string: then it has no answer but a marked one."""
        return self.completion.truncated or self.completion.stop_string is not None

    @property
    def continued(self) -> tuple[Message, ...]:
        """The conversation with this completion as a part of the assistant's open turn, to be continued."""
        text, ids = self.completion.text + (self.completion.stop_string or ""), self.completion.ids
        ended = self.completion.finish == "stop" and not self.completion.stop_string
        part = Message("assistant", text, ids[:-1] if ids and ended else ids)
        return (*self.request.messages, part)


@dataclass(frozen=True)
class Solution:
    """A method's answer to a question: the call with the answer, its budget in tokens, and the budget's estimate.

    `budget` is what the prompt states. `calls` are all calls of a strategy, `answers` the call with its answer from so
    many output tokens on, and `total_budget` the most tokens that the calls could generate.
    """

    answer: Call
    budget: int | None = None
    estimate: Estimate = field(default_factory=lambda: Estimate(None))
    calls: tuple[Call, ...] = ()
    answers: tuple[tuple[int, Call], ...] = ()
    total_budget: int | None = None

    @property
    def tokens(self) -> int:
        """Output tokens of all calls but the estimator's."""
        return sum(call.completion.tokens for call in self.calls or (self.answer,))

    @property
    def prompt_tokens(self) -> int:
        """Input tokens of all calls but the estimator's."""
        return sum(call.completion.prompt_tokens for call in self.calls or (self.answer,))


@dataclass
class Method:
    """A method to answer questions, with its options. `kind` is its name in recipes."""

    renamed_from = ""  # the kind's old name
    # All methods by kind; not annotated, as an annotation would make it an option.
    kinds = dict[str, "type[Method]"]()  # noqa: RUF012

    kind: str = opt("kind of method", "")
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
