"""How each method asks its questions: direct, vanilla CoT, CoT under a budget, and TALE-EP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tale import bleu, prompts
from tale.config import MethodConfig, MethodKind
from tale.data.question import Question
from tale.engines import Completion, Engine, Request, Sampling, complete
from tale.engines.base import Finish
from tale.errors import UserError
from tale.estimators import Estimate, Estimator
from tale.estimators.base import Constant, Oracle
from tale.estimators.saved import load_estimator
from tale.estimators.zero_shot import ZeroShot
from tale.folder import check_output
from tale.grading import grade
from tale.reading import Count, Positive, Share, read_lines
from tale.records import Record, each_record, read_records


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
    method: MethodConfig,
    questions: Sequence[Question],
    engine: Engine,
    sampling: Sampling,
    estimates: Sequence[Estimate] | None = None,
    seeds: Sequence[int | None] | None = None,
) -> list[Reply]:
    """Ask every question as `method` does; a reply each, in the order given.

    `estimates`: its own, where known; `seeds`: each question's, where it is not the sampling's.
    """
    label = label_of(method)
    seeds = seeds or [None] * len(questions)
    if method.kind is MethodKind.direct:
        estimates = [Estimate(None)] * len(questions)
        budgets: list[int | None] = [None] * len(questions)
        asked = [prompts.direct(q) for q in questions]
    else:
        if estimates is None:
            estimates = estimator_of(method, engine, sampling, seeds).estimate(questions)
        alpha = method.alpha if method.kind is MethodKind.estimated else 1.0
        budgets = [estimate.budget(alpha) for estimate in estimates]
        asked = [prompts.chain_of_thought(*row, method.budget_line) for row in zip(questions, budgets, strict=True)]
    requests = [Request(prompt, own_seed=seed) for prompt, seed in zip(asked, seeds, strict=True)]
    completions = complete(engine, requests, sampling, label)
    return [reply_of(label, *row) for row in zip(questions, requests, completions, budgets, estimates, strict=True)]


def longest_prompts(method: MethodConfig, question: Question, sampling: Sampling) -> list[str]:
    """What a method may ask, a budget being at most as long as an answer may be."""
    if method.kind is MethodKind.direct:
        return [prompts.direct(question)]
    asked = [prompts.estimate(question)] if method.kind is MethodKind.estimated and not method.estimator else []
    budget = None if method.kind is MethodKind.vanilla else sampling.max_tokens
    return [*asked, prompts.chain_of_thought(question, budget, method.budget_line)]


def estimator_of(
    method: MethodConfig, engine: Engine, sampling: Sampling, seeds: Sequence[int | None] | None = None
) -> Estimator:
    """Where the method's budgets come from; vanilla CoT is a constant None."""
    if method.kind is MethodKind.searched:
        assert method.records is not None
        return Oracle(searched_budgets(each_record(Path(method.records))))
    if method.kind is MethodKind.estimated:
        if method.estimator:
            return load_estimator(Path(method.estimator))[0]
        return ZeroShot(engine, sampling, label_of(method), seeds)
    return Constant(method.budget if method.kind is MethodKind.budget else None)


def label_of(method: MethodConfig) -> str:
    """The method's name in tables."""
    names = {
        MethodKind.direct: "Directly answering",
        MethodKind.vanilla: "Vanilla CoT",
        MethodKind.budget: f"CoT, budget {method.budget}",
        MethodKind.searched: "CoT, searched budget",
        MethodKind.estimated: f"CoT, {Path(method.estimator).name} budget" if method.estimator else "TALE-EP",
    }
    return method.label or (Path(method.adapter).parent.name if method.adapter else names[method.kind])


def searched_budgets(records: Iterable[Record]) -> dict[str, int | None]:
    """β* by question hash, from a search's records."""
    return {record.question.question_hash: record.budget for record in records}


def reply_of(
    label: str, question: Question, request: Request, completion: Completion, budget: int | None, estimate: Estimate
) -> Reply:
    """A completion graded, with how it was asked for."""
    estimator = estimate.completion
    return Reply(
        method=label,
        question=question.id,
        prompt=request.prompt,
        text=completion.text,
        **_graded(question, completion),
        finish=completion.finish,
        tokens=completion.tokens,
        prompt_tokens=completion.prompt_tokens,
        budget=budget,
        estimator_text=estimator and estimator.text,
        estimator_tokens=estimator.tokens if estimator else 0,
        estimator_prompt_tokens=estimator.prompt_tokens if estimator else 0,
        fallback=estimate.fallback,
        seed=request.own_seed,
        error=completion.error,
    )


def _graded(question: Question, completion: Completion) -> dict[str, Any]:
    """What the answer is, and whether it is right or how near it comes to the reference."""
    if question.kind == "text":
        scored = bleu.score(completion.text, question.gold, completion.truncated)
        return {"correct": None, "reference": question.gold, **asdict(scored)}
    via = {"via": "reasoning"} if completion.reasoned_alone else {}
    return asdict(grade(completion.text, question, completion.truncated)) | via


def check_methods(methods: Sequence[MethodConfig], questions: Sequence[Question], sampling: Sampling) -> None:
    """Refuse a list of methods that cannot work, before a model is loaded."""
    if not methods:
        raise UserError("methods: none given; see recipes/eval_llama8b.yaml")
    labels = [label_of(method) for method in methods]
    for i, (method, label) in enumerate(zip(methods, labels, strict=True)):
        if labels.count(label) > 1:
            raise UserError(f"methods[{i}].label: {label!r} stands for two methods; give each a label of its own")
        if method.kind is MethodKind.budget and not (method.budget and method.budget > 0):
            raise UserError(f"methods[{i}].budget: kind budget needs a positive number of tokens")
        if method.budget_line and method.kind in (MethodKind.direct, MethodKind.vanilla):
            raise UserError(f"methods[{i}].budget_line: kind {method.kind.value} asks for no budget")
        _check_estimator(method, f"methods[{i}]")
        if method.kind is MethodKind.searched:
            if not method.records:
                raise UserError(f"methods[{i}].records: kind searched needs the records.jsonl of a search")
            records = read_records(Path(method.records))
            known = searched_budgets(records)
            if not any(known.get(q.question_hash) for q in questions):
                raise UserError(f"methods[{i}].records: {method.records} holds no budget for any of these questions")
            _check_asked_alike(f"methods[{i}].records: {method.records}", records, sampling, method.budget_line)


def _check_estimator(method: MethodConfig, where: str) -> None:
    if (method.estimator or method.estimator_model) and method.kind is not MethodKind.estimated:
        raise UserError(f"{where}: an estimator is for kind estimated, not for {method.kind.value}")
    if method.estimator and method.estimator_model:
        raise UserError(f"{where}: estimator or estimator_model, a trained one or a model that is asked; leave out one")
    if method.estimator:
        learnt = load_estimator(Path(method.estimator))[1].budget_line
        if learnt != method.budget_line:
            raise UserError(
                f"{where}.estimator: {method.estimator} learnt from searches with budget_line={learnt}, this method "
                f"has {method.budget_line}"
            )


def _check_asked_alike(where: str, records: Sequence[Record], sampling: Sampling, line: str | None) -> None:
    """A budget that was searched under another decoding, or asked for in other words, is another budget."""
    for record in records:
        if record.sampling != sampling:
            raise UserError(f"{where} was searched with {record.sampling}, this run decodes with {sampling}")
        if record.budget_line != line:
            raise UserError(f"{where} was searched with budget_line={record.budget_line}, this method has {line}")
