"""What methods answer: a reply for each question, graded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tale.data.question import Question
from tale.data.records import Finish
from tale.errors import UserError
from tale.estimators import Estimate
from tale.grading import bleu, grade
from tale.inference import Completion, Engine, Sampling
from tale.inference.scheduler import Result, Solver, solve
from tale.output.progress import progress
from tale.solvers.base import Method, Solution
from tale.solvers.tale_ep import TaleEP
from tale.storage.folder import check_output
from tale.storage.strict_json import Count, Positive, Share, read_lines


@dataclass(frozen=True)
class Reply:
    """One method's answer to one question. Tokens are in the evaluated model's own tokenizer.

    `fallback` says why a budget was wanted and none was there, so that the question was asked as vanilla CoT. Of an
    open-ended question nothing is `correct` or not; `bleu` compares `value` with `reference`. `seed` is there where the
    question was asked under several. With finish "error" there was no answer, and `error` says why; it counts as wrong.
    """

    method: str
    question: str
    prompt: str
    text: str
    correct: bool | None
    value: str | None
    via: str
    finish: Finish
    tokens: Count
    prompt_tokens: Count
    budget: Positive | None = None
    estimator_text: str | None = None
    estimator_tokens: Count = 0
    estimator_prompt_tokens: Count = 0
    fallback: str | None = None
    bleu: Share | None = None
    reference: str | None = None
    seed: int | None = None
    error: str | None = None

    @property
    def output_tokens(self) -> int:
        """All tokens that the method generated, the estimator's included."""
        return self.tokens + self.estimator_tokens

    @property
    def line(self) -> dict[str, Any]:
        """What a file keeps of it; the seed only where there are several, the error where there is one."""
        optional = ("seed", "error")
        return {name: value for name, value in vars(self).items() if name not in optional or value is not None}


def read_replies(path: Path) -> dict[str, list[Reply]]:
    """The replies of an evaluation by method, in its order: seed by seed where there are several.

    Raises:
        UserError: a line is damaged or no reply (file and line are named), not every method has every question under
            every seed, or they are not of the run beside them.
    """
    check_output(path)
    replies: dict[str, list[Reply]] = {}
    for _, reply in read_lines(path, Reply, "a reply", "scripts/evaluate.py writes it anew"):
        replies.setdefault(reply.method, []).append(reply)
    if not all(_whole(rows, next(iter(replies.values()))) for rows in replies.values()):
        raise UserError(f"{path}: not every method has every question; scripts/evaluate.py writes it anew")
    return replies


def count_seeds(replies: Sequence[Reply]) -> int:
    """Under how many seeds each question was answered."""
    return len({reply.seed for reply in replies})


def _whole(replies: Sequence[Reply], first: Sequence[Reply]) -> bool:
    """Whether these are the questions and seeds of another method's replies, each seed with every question in turn."""
    seeds, questions = list(dict.fromkeys(r.seed for r in first)), [r.question for r in first]
    each = questions[: len(questions) // len(seeds)]
    return [(r.seed, r.question) for r in replies] == [(seed, question) for seed in seeds for question in each]


def answer(
    method: Method,
    questions: Sequence[Question],
    engine: Engine,
    sampling: Sampling,
    estimates: Sequence[Estimate] | None = None,
    seeds: Sequence[int | None] | None = None,
) -> list[Reply]:
    """Ask every question as `method` does; a reply each, in the order given.

    `estimates`: those of another model; `seeds`: each question's, where it is not the sampling's.
    """
    seeds = seeds or [None] * len(questions)
    samplings = each_sampling(sampling, seeds)
    if estimates is None:
        solvers = map(method.solve, questions, samplings)
    else:
        assert isinstance(method, TaleEP)
        solvers = map(method.answer, questions, samplings, estimates)
    solutions = solved(solvers, engine, len(questions), method.name)
    return [reply_of(method.name, *row) for row in zip(questions, solutions, seeds, strict=True)]


def solved(solvers: Iterable[Solver[Result]], engine: Engine, count: int, label: str) -> list[Result]:
    """The results of `count` solvers in the order given, with a progress bar.

    All of them are begun, as all results are held in memory: however large its batch, the engine has enough at hand.
    """
    with (
        progress(label, total=count, unit="answer") as bar,
        closing(solve(solvers, engine, count, lambda done: bar.update(done - bar.n))) as results,
    ):
        return list(results)


def each_sampling(sampling: Sampling, seeds: Sequence[int | None]) -> list[Sampling]:
    """The sampling under each seed; None is its own."""
    return [sampling if seed is None else replace(sampling, seed=seed) for seed in seeds]


def reply_of(label: str, question: Question, solution: Solution, seed: int | None = None) -> Reply:
    """A solution graded, with how it came about."""
    completion, estimator = solution.answer.completion, solution.estimate.completion
    return Reply(
        method=label,
        question=question.id,
        prompt=solution.answer.request.prompt,
        text=completion.text,
        **_graded(question, completion),
        finish=completion.finish,
        tokens=completion.tokens,
        prompt_tokens=completion.prompt_tokens,
        budget=solution.budget,
        estimator_text=estimator.text if estimator else None,
        estimator_tokens=estimator.tokens if estimator else 0,
        estimator_prompt_tokens=estimator.prompt_tokens if estimator else 0,
        fallback=solution.estimate.fallback,
        seed=seed,
        error=completion.error,
    )


def _graded(question: Question, completion: Completion) -> dict[str, Any]:
    """What the answer is, and whether it is right or how near it comes to the reference."""
    if question.kind == "text":
        scored = bleu.score(completion.text, question.gold, completion.truncated)
        return {"correct": None, "reference": question.gold, **asdict(scored)}
    via = {"via": "reasoning"} if completion.reasoned_alone else {}
    return asdict(grade(completion.text, question, completion.truncated)) | via


def check_methods(methods: Sequence[Method], questions: Sequence[Question], sampling: Sampling) -> None:
    """Refuse a list of methods that cannot work, before a model is loaded."""
    if not methods:
        raise UserError("methods: none given; see recipes/eval_llama8b.yaml")
    names = [method.name for method in methods]
    for i, (method, name) in enumerate(zip(methods, names, strict=True)):
        if names.count(name) > 1:
            raise UserError(f"methods[{i}].label: {name!r} stands for two methods; give each a label of its own")
        method.check(f"methods[{i}]", questions, sampling)
