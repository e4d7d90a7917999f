"""The replies of methods: one graded reply per question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tale.data.question import METRICS, Question
from tale.data.records import FinishReason
from tale.errors import UserError
from tale.estimators import Estimate
from tale.grading import bleu, grade
from tale.inference import Engine, Sampling
from tale.inference.scheduler import Result, Solver, solve
from tale.output.progress import progress
from tale.solvers.base import Call, Method, Solution
from tale.solvers.tale_ep import TaleEP
from tale.storage.folder import check_output
from tale.storage.strict_json import Count, PositiveInt, UnitInterval, read_jsonl

# By metric; each compares a completion with the reference text.
SCORERS: dict[str, Callable[[str, str, bool], Any]] = {"bleu": bleu.score}


@dataclass(frozen=True)
class CallRecord:
    """One call of a strategy: what it is for, its limit and tokens, and where it stands in a tree (`Call`).

    `text` is what this call generated, and `value` the answer that its turn has.
    """

    role: str
    limit: PositiveInt
    tokens: Count
    prompt_tokens: Count
    finish: FinishReason
    text: str
    value: str | None = None
    parent: Count | None = None
    score: float | None = None
    cached_tokens: Count = 0


@dataclass(frozen=True)
class AnswerRecord:
    """From `tokens` output tokens on, until the next one, a strategy answers with the turn of call `call`."""

    tokens: Count
    call: Count
    correct: bool | None


@dataclass(frozen=True)
class Reply:
    """One method's answer to one question. Tokens are those of the evaluated model's tokenizer.

    `fallback` says why there was no budget, so that the question was asked as vanilla CoT. For an open-ended question
    `correct` is None, and `bleu` compares `value` with `reference`. `seed` is set if there are several. With finish
    "error" there is no answer, and `error` says why; it counts as wrong. A strategy, with at most `total_budget` output
    tokens, has all its `calls`, and its `answers` over the tokens that it had generated.
    """

    method: str
    question: str
    prompt: str
    text: str
    correct: bool | None
    value: str | None
    via: str
    finish: FinishReason
    tokens: Count
    prompt_tokens: Count
    budget: PositiveInt | None = None
    estimator_text: str | None = None
    estimator_tokens: Count = 0
    estimator_prompt_tokens: Count = 0
    fallback: str | None = None
    bleu: UnitInterval | None = None
    reference: str | None = None
    seed: int | None = None
    error: str | None = None
    total_budget: PositiveInt | None = None
    calls: list[CallRecord] | None = None
    answers: list[AnswerRecord] | None = None

    def __post_init__(self) -> None:
        """Refuse a strategy's calls and answers that contradict each other or the reply.

        Raises:
            ValueError: what is wrong; a reader names the line.
        """
        if len({field is None for field in (self.total_budget, self.calls, self.answers)}) > 1:
            raise ValueError("total_budget, calls and answers are not all given")
        for i, call in enumerate(self.calls or ()):
            if call.parent is not None and call.parent >= i:
                raise ValueError(f"calls[{i}].parent is {call.parent}, not that of an earlier call")
        if self.calls is not None:
            for name in ("tokens", "prompt_tokens"):
                if (total := sum(getattr(call, name) for call in self.calls)) != getattr(self, name):
                    raise ValueError(f"{name} is {getattr(self, name)}, the calls' are {total}")
        if self.answers:
            self._check_answers(self.answers, len(self.calls or ()))

    def _check_answers(self, answers: Sequence[AnswerRecord], calls: int) -> None:
        for i, answer in enumerate(answers):
            if answer.call >= calls:
                raise ValueError(f"answers[{i}].call is {answer.call} of {calls} calls")
        tokens = [answer.tokens for answer in answers]
        if tokens != sorted(tokens) or tokens[-1] > self.output_tokens:
            raise ValueError(f"answers are at {tokens} tokens of {self.output_tokens}")
        if answers[-1].correct != self.correct:
            raise ValueError(f"the last of answers has correct={answers[-1].correct}, the reply {self.correct}")

    @property
    def metric(self) -> str:
        """What it is scored by, one of `METRICS`."""
        return next((name for name in METRICS if getattr(self, name, None) is not None), "accuracy")

    @property
    def score(self) -> float:
        """By its metric, from 0 to 1."""
        return getattr(self, self.metric, float(self.correct is True))

    @property
    def output_tokens(self) -> int:
        """All tokens that the method generated, the estimator's included."""
        return self.tokens + self.estimator_tokens

    @property
    def line(self) -> dict[str, Any]:
        """Its line in replies.jsonl; seed, error and a strategy's fields are left out if they are None."""
        optional = ("seed", "error", "total_budget", "calls", "answers")
        return {name: value for name, value in asdict(self).items() if name not in optional or value is not None}


def read_replies(path: Path) -> dict[str, list[Reply]]:
    """The replies of an evaluation by method, in order: seed by seed if there are several.

    Raises:
        UserError: a line is damaged or not a reply (file and line are named), a method lacks a question or a seed, or
            the file is not of the run in its folder.
    """
    check_output(path)
    replies: dict[str, list[Reply]] = {}
    for _, reply in read_jsonl(path, Reply, "a reply", "scripts/evaluate.py writes it again"):
        replies.setdefault(reply.method, []).append(reply)
    if not all(_whole(rows, next(iter(replies.values()))) for rows in replies.values()):
        raise UserError(f"{path}: not every method has every question; scripts/evaluate.py writes it again")
    return replies


def count_seeds(replies: Sequence[Reply]) -> int:
    """The number of seeds with which each question was answered."""
    return len({reply.seed for reply in replies})


def _whole(replies: Sequence[Reply], first: Sequence[Reply]) -> bool:
    """Whether the replies have the same questions and seeds as those of another method, seed by seed."""
    seeds, questions = list(dict.fromkeys(r.seed for r in first)), [r.question for r in first]
    each = questions[: len(questions) // len(seeds)]
    return [(r.seed, r.question) for r in replies] == [(seed, question) for seed in seeds for question in each]


def answer_all(
    method: Method,
    questions: Sequence[Question],
    engine: Engine,
    sampling: Sampling,
    estimates: Sequence[Estimate] | None = None,
    seeds: Sequence[int | None] | None = None,
) -> list[Reply]:
    """Answer every question with `method`; one reply per question, in the order given.

    `estimates`: those of another model, if any; `seeds`: each question's, if not the sampling's.
    """
    seeds = seeds or [None] * len(questions)
    samplings = samplings_for(sampling, seeds)
    if estimates is None:
        solvers = map(method.solve, questions, samplings)
    else:
        assert isinstance(method, TaleEP)
        solvers = map(method.answer, questions, samplings, estimates)
    solutions = run_solvers(solvers, engine, len(questions), method.name)
    return [graded_reply(method.name, *row) for row in zip(questions, solutions, seeds, strict=True)]


def run_solvers(solvers: Iterable[Solver[Result]], engine: Engine, count: int, label: str) -> list[Result]:
    """The results of `count` solvers in the order given, with a progress bar.

    All of them run at the same time, as all results are held in memory: this fills the largest batch of an engine.
    """
    with (
        progress(label, total=count, unit="answer") as bar,
        closing(solve(solvers, engine, count, lambda done: bar.update(done - bar.n))) as results,
    ):
        return list(results)


def samplings_for(sampling: Sampling, seeds: Sequence[int | None]) -> list[Sampling]:
    """The sampling with each seed; None: unchanged."""
    return [sampling if seed is None else replace(sampling, seed=seed) for seed in seeds]


def graded_reply(label: str, question: Question, solution: Solution, seed: int | None = None) -> Reply:
    """Grade a solution."""
    completion, estimator = solution.answer.completion, solution.estimate.completion
    return Reply(
        method=label,
        question=question.id,
        prompt=solution.answer.request.prompt,
        text=solution.answer.text,
        **_graded(question, solution.answer),
        finish=completion.finish,
        tokens=solution.tokens,
        prompt_tokens=solution.prompt_tokens,
        budget=solution.budget,
        estimator_text=estimator.text if estimator else None,
        estimator_tokens=estimator.tokens if estimator else 0,
        estimator_prompt_tokens=estimator.prompt_tokens if estimator else 0,
        fallback=solution.estimate.fallback,
        seed=seed,
        error=completion.error,
        **(_spent(question, solution) if solution.total_budget else {}),
    )


def _graded(question: Question, answer: Call) -> dict[str, Any]:
    """The answer's value, and whether it is right, or its score against the reference text."""
    completion = answer.completion
    if question.metric != "accuracy":
        scored = SCORERS[question.metric](answer.text, question.gold, completion.truncated)
        return {"correct": None, "reference": question.gold, **asdict(scored)}
    via = {"via": "reasoning"} if completion.reasoning_only else {}
    return asdict(grade(answer.text, question, answer.open)) | via


def _spent(question: Question, solution: Solution) -> dict[str, Any]:
    """A strategy's calls and its answers over tokens. A call with another prompt, as a valuation, answers nothing."""
    asked = solution.answer.request.messages[0]
    calls = [
        CallRecord(
            role=call.role,
            limit=call.request.sampling.max_tokens,
            tokens=call.completion.tokens,
            prompt_tokens=call.completion.prompt_tokens,
            finish=call.completion.finish,
            text=call.completion.text + (call.completion.stop_string or ""),
            value=_graded(question, call)["value"] if call.request.messages[0] == asked else None,
            parent=call.parent,
            score=call.score,
            cached_tokens=call.completion.cached_tokens,
        )
        for call in solution.calls
    ]
    answers = [
        AnswerRecord(tokens, call.number, _graded(question, call)["correct"]) for tokens, call in solution.answers
    ]
    return {"total_budget": solution.total_budget, "calls": calls, "answers": answers}


def check_methods(
    methods: Sequence[Method], questions: Sequence[Question], sampling: Sampling, places: Sequence[int] = ()
) -> None:
    """Check the methods and their options, before a model is loaded. `places`: each one's number in the recipe."""
    if not methods:
        raise UserError("methods: none given; see recipes/eval_llama8b.yaml")
    names = [method.name for method in methods]
    for i, method, name in zip(places or range(len(methods)), methods, names, strict=True):
        if names.count(name) > 1:
            raise UserError(f"methods[{i}].label: {name!r} is the name of two methods; give each a different label")
        method.check(f"methods[{i}]", questions, sampling)
