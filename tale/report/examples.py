"""Vanilla and trained answer side by side, what was right and turned wrong first."""

from __future__ import annotations

from collections.abc import Sequence

from tale.evaluation.methods import Reply
from tale.evaluation.run import reference
from tale.report.blocks import Block, Example, Side, Text
from tale.report.runs import EvaluationRun

TURNS = {
    (True, False): "right turned wrong",
    (False, True): "wrong turned right",
    (False, False): "wrong both times",
    (True, True): "right both times",
}


def examples(run: EvaluationRun, how_many: int) -> list[Block]:
    """`how_many` questions for each trained method; where none is trained, for each that estimates budgets."""
    replies, baseline = run.replies or {}, reference(run.recipe.methods)
    trained = [label for label, method in run.methods.items() if method.adapter]
    compared = trained or [label for label, method in run.methods.items() if method.kind.value == "estimated"]
    if not baseline or not compared:
        return [Text("Nothing to compare: it takes vanilla CoT and a trained method, or TALE-EP.")]
    blocks: list[Block] = []
    for label in compared:
        pairs = sorted(zip(replies[baseline], replies[label], strict=True), key=_order)
        turns = [(ours.correct, theirs.correct) for ours, theirs in pairs]
        counts = ", ".join(f"{turns.count(turn)} {name}" for turn, name in TURNS.items())
        shown = min(how_many, len(pairs))
        blocks.append(Text(f"{baseline} and {label}: {counts}. {shown} of {len(pairs)} questions are shown."))
        blocks += [_example(pair, i == 0) for i, pair in enumerate(_spread(pairs, how_many))]
    return blocks


def _order(pair: tuple[Reply, Reply]) -> tuple[int, int]:
    """By how the verdict turned, then by the tokens saved, most first."""
    vanilla, trained = pair
    turn = list(TURNS).index((vanilla.correct, trained.correct))
    return turn, trained.output_tokens - vanilla.output_tokens


def _spread(pairs: Sequence[tuple[Reply, Reply]], how_many: int) -> list[tuple[Reply, Reply]]:
    """Half of them what turned wrong, the rest shared by the other turns; more of one where another has few."""
    left = {turn: [p for p in pairs if (p[0].correct, p[1].correct) == turn] for turn in TURNS}
    taken: list[tuple[Reply, Reply]] = []
    wrong = left[True, False]
    taken, left[True, False] = wrong[: (how_many + 1) // 2], wrong[(how_many + 1) // 2 :]
    while len(taken) < min(how_many, len(pairs)):
        for turn in reversed(TURNS):
            if left[turn] and len(taken) < how_many:
                taken.append(left[turn].pop(0))
    return sorted(taken, key=_order)


def _example(pair: tuple[Reply, Reply], opened: bool) -> Example:
    vanilla, trained = pair
    turn = TURNS[vanilla.correct, trained.correct]
    title = f"{turn}, {vanilla.output_tokens:,} → {trained.output_tokens:,} tokens: {vanilla.question}"
    return Example(title, vanilla.prompt, [_side(reply) for reply in pair], opened)


def _side(reply: Reply) -> Side:
    notes = [f"budget {reply.budget}"] if reply.budget is not None else []
    notes += [reply.fallback] if reply.fallback else []
    notes += [f"read as {reply.value}" if reply.value is not None else "no answer read"]
    notes += {"length": ["cut off"], "content_filter": ["filtered"]}.get(reply.finish, [])
    return Side(reply.method, reply.correct, reply.output_tokens, ", ".join(notes), reply.text)
