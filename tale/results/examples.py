"""Vanilla and trained answer side by side, what was right and turned wrong, or has a lower score, first."""

from __future__ import annotations

from collections.abc import Sequence

from tale.evaluation.replies import Reply
from tale.evaluation.run import baseline_of
from tale.evaluation.summary import metric_name
from tale.results.blocks import Block, Example, Side, Text
from tale.results.runs import EvaluationRun

TURNS = {
    (True, False): "right turned wrong",
    (False, True): "wrong turned right",
    (False, False): "wrong both times",
    (True, True): "right both times",
}
CHANGES = {-1: "lower", 1: "higher", 0: "the same"}


def examples(run: EvaluationRun, how_many: int) -> list[Block]:
    """`how_many` questions for each trained method; where none is trained, for each that estimates budgets."""
    replies, baseline = run.replies or {}, baseline_of(run.recipe.methods)
    trained = [label for label in run.without_b if run.methods[label].adapter]
    compared = trained or [label for label in run.without_b if run.methods[label].kind == "tale_ep"]
    if not baseline or not compared:
        return [Text("Nothing to compare: it takes vanilla CoT and a trained method, or TALE-EP.")]
    blocks: list[Block] = []
    for label in compared:
        pairs = sorted(zip(replies[baseline], replies[label], strict=True), key=_order)
        turns = [_turn(pair) for pair in pairs]
        counts = ", ".join(f"{turns.count(turn)} {turn}" for turn in _turns(pairs))
        shown, what = min(how_many, len(pairs)), "questions" if pairs[0][0].seed is None else "questions and seeds"
        blocks.append(Text(f"{baseline} and {label}: {counts}. {shown} of {len(pairs)} {what} are shown."))
        blocks += [_example(pair, i == 0) for i, pair in enumerate(_spread(pairs, how_many))]
    return blocks


def _turn(pair: tuple[Reply, Reply]) -> str:
    vanilla, trained = pair
    if vanilla.metric == "accuracy":
        return TURNS[bool(vanilla.correct), bool(trained.correct)]
    return f"{CHANGES[(trained.score > vanilla.score) - (trained.score < vanilla.score)]} {metric_name(vanilla.metric)}"


def _turns(pairs: Sequence[tuple[Reply, Reply]]) -> list[str]:
    """All that there can be, the worst first."""
    metric = pairs[0][0].metric
    if metric == "accuracy":
        return list(TURNS.values())
    return [f"{change} {metric_name(metric)}" for change in CHANGES.values()]


def _order(pair: tuple[Reply, Reply]) -> tuple[int, int]:
    """By how the verdict turned, then by the tokens saved, most first."""
    vanilla, trained = pair
    return _turns([pair]).index(_turn(pair)), trained.output_tokens - vanilla.output_tokens


def _spread(pairs: Sequence[tuple[Reply, Reply]], how_many: int) -> list[tuple[Reply, Reply]]:
    """Half of them what turned worse, the rest shared by the other turns; more of one where another has few."""
    turns = _turns(pairs)
    left = {turn: [p for p in pairs if _turn(p) == turn] for turn in turns}
    half = (how_many + 1) // 2
    taken, left[turns[0]] = left[turns[0]][:half], left[turns[0]][half:]
    while len(taken) < min(how_many, len(pairs)):
        for turn in reversed(turns):
            if left[turn] and len(taken) < how_many:
                taken.append(left[turn].pop(0))
    return sorted(taken, key=_order)


def _example(pair: tuple[Reply, Reply], opened: bool) -> Example:
    vanilla, trained = pair
    title = f"{_turn(pair)}, {vanilla.output_tokens:,} → {trained.output_tokens:,} tokens: {vanilla.question}"
    title += f", seed {vanilla.seed}" if vanilla.seed is not None else ""
    prompt = vanilla.prompt if vanilla.reference is None else f"{vanilla.prompt}\n\nReference:\n{vanilla.reference}"
    return Example(title, prompt, [_side(reply) for reply in pair], opened)


def _side(reply: Reply) -> Side:
    notes = [f"budget {reply.budget}"] if reply.budget is not None else []
    notes += [reply.fallback] if reply.fallback else []
    if reply.metric == "accuracy":
        notes += [f"read as {reply.value}" if reply.value is not None else "no answer read"]
    else:
        notes += [f"{metric_name(reply.metric)} {reply.score:.3f}"]
        notes += [] if reply.via == "brackets" else ["without [[ ]]"]
    notes += {"length": ["cut off"], "content_filter": ["filtered"], "error": ["not answered"]}.get(reply.finish, [])
    return Side(reply.method, reply.correct, reply.output_tokens, ", ".join(notes), reply.text)
