"""Strategies at equal budgets: their curves and indices, and for a question the calls of each as they ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure as Canvas

from tale.evaluation.anytime import AnytimeRow, anytime_table
from tale.evaluation.curves import AXES, costs_of, draw, draw_anytime
from tale.evaluation.replies import CallRecord, Reply
from tale.evaluation.strategies import StrategyRow, strategies_table
from tale.evaluation.summary import RESULTS, metric_name
from tale.output.figures import legend
from tale.output.formats import number, two_digits
from tale.results.blocks import Block, Choice, Figure, Node, Picker, Section, Text, Tree
from tale.results.figures import figure
from tale.results.runs import EvaluationRun

# Characters of replies' texts on the page, for each run, and of one call.
MOST_TEXT, MOST_OF_CALL = 2_000_000, 20_000
DEEPEST = 8  # levels of calls that are indented
NOTE = (
    "B is the most output tokens of all calls for a question. Expense and tokens count every call, an estimator's too, "
    "as if the method were asked alone; calls and tokens reused are those that the journal answered from another "
    "call's samples, and generation is the engine's time for the others. Differences are paired by question: to "
    "single, the plain single chain at the same B; to no adapter, the same strategy and B without it."
)
SOURCES = (
    "A mean gain of 1 is one point of accuracy more for each 100 tokens, averaged over the budgets, with an accuracy "
    "of 0 at 0 tokens. The area is 100 % where the best accuracy is reached at the first budget; it does not say how "
    "good the best is."
)
TITLE = "Strategies at equal budgets"
RIGHT = {True: "right", False: "wrong", None: "not graded"}


def strategies_section(run: EvaluationRun, how_many: int) -> list[Section]:
    """The parts of an evaluation's section about its strategies; none if there are none."""
    if len(run.without_b) == len(run.methods):
        return []
    rows, indices, name = run.rows(StrategyRow), run.rows(AnytimeRow), f"strategies-{run.slug}"
    if not rows:
        text = "No comparison: strategies.json is missing or of an earlier start; the run's command writes it."
        return [Section(name, TITLE, [Text(text, warning=True)])]
    blocks: list[Block] = [strategies_table(rows, f"{run.model} on {run.recipe.task.name}", name), Text(NOTE)]
    if indices:
        blocks += [anytime_table(indices, f"anytime-{run.slug}"), Text(SOURCES)]
    blocks += [_curves(run, rows, cost) for cost in costs_of(rows)]
    if indices:
        blocks.append(_anytime(run))
    return [Section(name, TITLE, blocks), Section(f"{name}-calls", "As they ran", _as_they_ran(run, how_many))]


def _curves(run: EvaluationRun, rows: Sequence[StrategyRow], cost: str) -> Figure:
    metric, shown = rows[0].metric, RESULTS[rows[0].metric].show
    caption = f"{metric_name(metric)} against {AXES[cost].removeprefix('mean ')}: a curve a strategy over its budgets, "
    caption += "beside the single chain's. Bands and bars are 95 % intervals, gray points methods without a budget B."
    said = "; ".join(f"{row.method} {shown(row.score)} at {number(getattr(row, cost))}" for row in rows)

    def drawn(canvas: Canvas) -> None:
        draw(canvas, rows, cost)
        legend(canvas, 1)

    size = _size(len({row.curve for row in rows if row.curve}))
    return figure(f"{metric}-{cost.replace('_', '-')}-{run.slug}", caption, f"{caption} {said}.", drawn, size)


def _anytime(run: EvaluationRun) -> Figure:
    methods, replies = list(run.methods.values()), run.replies or {}

    def drawn(canvas: Canvas) -> None:
        draw_anytime(canvas, methods, replies)
        legend(canvas, 1)

    caption = "Accuracy of the answer so far as one run's tokens are generated: each strategy at its largest B."
    size = _size(len({row.strategy for row in run.rows(AnytimeRow)}))
    return figure(f"anytime-curves-{run.slug}", caption, caption, drawn, size)


def _size(panels: int) -> tuple[float, float]:
    """Two panels side by side."""
    return 4.6, 1.8 + 1.7 * -(-panels // 2)


def _as_they_ran(run: EvaluationRun, how_many: int) -> list[Block]:
    """`how_many` questions to pick from, those first on which most methods differ; fewer if their texts are long."""
    replies = {name: of for name, of in (run.replies or {}).items() if of[0].calls is not None}
    first = next(iter(replies.values()))
    asked = [i for i, reply in enumerate(first) if reply.seed == first[0].seed]
    shares = {i: sum(of[i].correct is True for of in replies.values()) / len(replies) for i in asked}
    room, choices = MOST_TEXT, list[Choice]()
    for i in sorted(asked, key=lambda i: abs(shares[i] - 0.5))[:how_many]:
        room -= sum(len(call.text) for of in replies.values() for call in of[i].calls or ())
        if room < 0:
            break
        choices.append(_choice(run, [of[i] for of in replies.values()], i))
    if not choices:
        return []
    seed = "" if first[0].seed is None else f", under seed {first[0].seed}"
    text = (
        f"{len(choices)} of {len(asked)} questions are on the page{seed}, those first on which the strategies differ "
    )
    text += f"most: at most {how_many}, and {MOST_TEXT:,} characters."
    return [Text(text), Picker("Question", choices)]


def _choice(run: EvaluationRun, replies: Sequence[Reply], i: int) -> Choice:
    right = sum(reply.correct is True for reply in replies)
    alone = [of[i].prompt for name, of in (run.replies or {}).items() if name in run.without_b]
    label = f"{replies[0].question}: {right} of {len(replies)} right"
    return Choice(label, (alone or [replies[0].prompt])[-1], [tree_of(reply) for reply in replies])


def tree_of(reply: Reply) -> Tree:
    """A strategy's calls for a question, each after its parent."""
    calls = reply.calls or []
    title = f"{reply.method}: {RIGHT[reply.correct]}, {_count(len(calls), 'call')}, {reply.tokens:,} of "
    title += f"{reply.total_budget:,} tokens" + (
        f", read as {reply.value}" if reply.value is not None else ", no answer"
    )
    trail = [f"from {a.tokens:,} tokens on that of call {a.call}, {RIGHT[a.correct]}" for a in reply.answers or ()]
    note = f"The answer: {'; '.join(trail)}." if trail else "It ended without an answer."
    return Tree(title, note, list(_nodes(calls)), reply.correct)


def _nodes(calls: Sequence[CallRecord]) -> Iterator[Node]:
    """The calls, each after its parent and indented; but not a step's only next step."""
    children: dict[int | None, list[int]] = {}
    for i, call in enumerate(calls):
        children.setdefault(call.parent, []).append(i)
    waiting = [(i, 0) for i in reversed(children.get(None, []))]
    while waiting:
        i, depth = waiting.pop()
        yield _node(i, calls[i], depth)
        below = children.get(i, [])
        alone = [calls[child].role for child in below].count(calls[i].role) == 1
        for child in reversed(below):
            continues = alone and calls[child].role == calls[i].role
            waiting.append((child, depth if continues else min(depth + 1, DEEPEST)))


def _node(i: int, call: CallRecord, depth: int) -> Node:
    parts = [f"{i}: {call.role}", *([f"after {call.parent}"] if call.parent is not None else [])]
    parts.append(f"{call.tokens:,} of {call.limit:,} tokens" + (", cut off" if call.finish == "length" else ""))
    parts += [f"value {two_digits(call.score)}"] if call.score is not None else []
    parts += [f"answer {call.value}"] if call.value is not None else []
    text = call.text if len(call.text) <= MOST_OF_CALL else f"{call.text[:MOST_OF_CALL]} …"
    return Node(" · ".join(parts), depth, text)


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
