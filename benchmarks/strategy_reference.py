"""Does adaptive consistency stop where the authors' own function stops?

Its `should_stop` (Beta criterion) runs unchanged, beside the strategy of this code, on the same random answers:

    git clone https://github.com/Pranjal2041/AdaptiveConsistency ../AdaptiveConsistency
    python benchmarks/strategy_reference.py checkout=../AdaptiveConsistency [questions=1000] [seed=0]

Of every question some answers are likelier than others, by weights drawn for it. Both take the answers in turn, at most
40, within any B. Their `eval_loop` calls a method that is not there, so `should_stop` is called after each answer here.
Of a tie after the last answer theirs takes the answer that came first, this code the one that first had so many votes.
Prints the figures and writes them to runs/benchmarks.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from report import publish
from words import only

from tale.cli import guarded
from tale.data import prompts
from tale.data.question import Question
from tale.errors import UserError
from tale.evaluation.replies import answer_all
from tale.inference import Completion, Sampling
from tale.inference.requests import RequestSource, iter_requests
from tale.solvers.adaptive_consistency import AdaptiveConsistency, probability_to_stay

MOST = 40


class Scripted:
    """Answers the samples of each prompt in turn, in one token."""

    tokenizer = "scripted"

    def __init__(self, answers: dict[str, list[str]]):
        self.answers = answers

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        """Yield `(number, completion)` in the order of the requests."""
        for number, request in enumerate(iter_requests(more)):
            yield number, Completion(f"[[{self.answers[request.prompt][request.sample]}]]", 1, "stop", 1)


def criterion(checkout: str) -> Any:
    """The Beta criterion of a checkout."""
    if not (Path(checkout) / "adaptive_consistency" / "__init__.py").is_file():
        raise UserError(f"checkout={checkout}: no adaptive_consistency there; give the folder of a clone (see --help)")
    sys.path.insert(0, checkout)
    module = importlib.import_module("adaptive_consistency")
    return module.AC(max_gens=MOST, stop_criteria=module.BetaStoppingCriteria)


def their_stop(theirs: Any, answers: Sequence[str]) -> tuple[int, str, float]:
    """After how many answers it stops, with which majority, and how far its probabilities are from ours at most."""
    difference = 0.0
    for count in range(1, len(answers) + 1):
        found = theirs.should_stop(answers[:count], return_dict=True)
        votes = [votes for _, votes in Counter(answers[:count]).most_common(2)]
        difference = max(difference, abs(found["prob"] - probability_to_stay(*(*votes, 0)[:2])))
        if found["stop"]:
            break
    return count, found["most_common"], difference


def answers_of(number: int, seed: int) -> Iterator[list[str]]:
    """The answers of each question."""
    drawn = random.Random(seed)
    for _ in range(number):
        weights = [drawn.random() ** 2 for _ in range(drawn.randint(2, 6))]
        yield drawn.choices("123456"[: len(weights)], weights, k=MOST)


def main() -> None:
    own = only({"checkout": "", "questions": "1000", "seed": "0"})
    theirs, answers = criterion(own["checkout"]), list(answers_of(int(own["questions"]), int(own["seed"])))
    questions = [Question(str(i), f"How many, {i}?", "1") for i in range(len(answers))]
    engine = Scripted(dict(zip(map(prompts.vanilla, questions), answers, strict=True)))
    method = AdaptiveConsistency(total_budget=1000, max_samples=MOST)
    replies = answer_all(method, questions, engine, Sampling(max_tokens=1, temperature=1.0))
    ours = [len(reply.calls or ()) for reply in replies]
    stops = [their_stop(theirs, of) for of in answers]
    ended = [count < MOST for count in ours]
    same = [reply.value == majority for reply, (_, majority, _) in zip(replies, stops, strict=True)]
    figures = {
        "questions": len(questions),
        "stopped after as many answers": sum(count == stop[0] for count, stop in zip(ours, stops, strict=True)),
        "stopped before the last answer": sum(ended),
        "of them with the same majority": sum(map(all, zip(ended, same, strict=True))),
        "of the others with the same majority": sum(same) - sum(map(all, zip(ended, same, strict=True))),
        "of the others with a tie": sum(tied(of) for of, before in zip(answers, ended, strict=True) if not before),
        "mean answers: ours, theirs": [round(fmean(ours), 3), round(fmean(count for count, *_ in stops), 3)],
        "largest difference of probability": max(difference for *_, difference in stops),
    }
    print(publish("strategy_reference", figures))


def tied(answers: Sequence[str]) -> bool:
    """Whether two answers are the most frequent."""
    (_, first), *others = Counter(answers).most_common(2)
    return any(votes == first for _, votes in others)


if __name__ == "__main__":
    guarded(main, __doc__)
