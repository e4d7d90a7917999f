"""From replies to the numbers of the paper's tables, as a terminal table, CSV, JSON and a plot."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from tale.config import PriceConfig
from tale.costs import dollars
from tale.evaluation.methods import Reply
from tale.files import write_atomic
from tale.statistics import paired_difference, wilson


@dataclass(frozen=True)
class Row:
    """One method over one set of questions. Shares and differences are fractions, tokens are means over *all* samples.

    `*_low`/`*_high` bound 95 % intervals; differences are to the reference method, paired by question, and None for
    the reference itself. `expense` is in 10⁻⁵ dollars a sample, as in the paper, None where no price is given.
    """

    method: str
    questions: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_difference: float | None
    accuracy_difference_low: float | None
    accuracy_difference_high: float | None
    output_tokens: float
    estimator_tokens: float
    tokens_difference: float | None
    tokens_difference_low: float | None
    tokens_difference_high: float | None
    tokens_ratio: float | None
    truncated: float
    in_format: float
    graded_by_fallback: float
    asked_without_budget: int
    expense: float | None


def summarise(replies: dict[str, list[Reply]], reference: str | None, prices: PriceConfig) -> list[Row]:
    """A row for each method; `replies[method]` are over the same questions in the same order."""
    baseline = replies.get(reference) if reference else None
    return [_row(rows, baseline if method != reference else None, prices) for method, rows in replies.items()]


def _row(replies: list[Reply], baseline: list[Reply] | None, prices: PriceConfig) -> Row:
    right = [float(r.correct) for r in replies]
    tokens = [float(r.output_tokens) for r in replies]
    low, high = wilson(int(sum(right)), len(right))
    accuracy_difference = tokens_difference = (None, None, None)
    ratio = None
    if baseline:
        base_tokens = [float(r.output_tokens) for r in baseline]
        accuracy_difference = paired_difference(right, [float(r.correct) for r in baseline])
        tokens_difference = paired_difference(tokens, base_tokens)
        ratio = fmean(tokens) / fmean(base_tokens)
    return Row(
        replies[0].method, len(replies), fmean(right), low, high, *accuracy_difference,
        fmean(tokens), fmean(r.estimator_tokens for r in replies), *tokens_difference, ratio,
        truncated=fmean(r.finish == "length" for r in replies),
        in_format=fmean(r.via == "brackets" for r in replies),
        graded_by_fallback=fmean(r.via == "fallback" for r in replies),
        asked_without_budget=sum(r.fallback is not None for r in replies),
        expense=fmean(_expense(r, prices) for r in replies) if prices.input or prices.output else None,
    )  # fmt: skip


def _expense(reply: Reply, prices: PriceConfig) -> float:
    """10⁻⁵ dollars for one sample; prices are dollars a million tokens."""
    prompt_tokens = reply.prompt_tokens + reply.estimator_prompt_tokens
    return dollars(prices, prompt_tokens, reply.output_tokens) * 1e5


def print_table(rows: Sequence[Row], title: str) -> None:
    """The table on the terminal."""
    table = Table(title=title, title_justify="left")
    priced = any(row.expense is not None for row in rows)
    headings = ["method", "accuracy % [95 %]", "Δ to vanilla", "output tokens", "of which estimator", "× vanilla",
                "cut off %", "[[ ]] %", "last-number %", "no budget"]  # fmt: skip
    for i, heading in enumerate(headings + ["expense 10⁻⁵ $"] * priced):
        table.add_column(heading, justify="right" if i else "left")
    for r in rows:
        cells = [
            r.method,
            f"{100 * r.accuracy:.1f} [{100 * r.accuracy_low:.1f}, {100 * r.accuracy_high:.1f}]",
            _difference(r),
            f"{r.output_tokens:.1f}",
            f"{r.estimator_tokens:.1f}",
            f"{r.tokens_ratio:.2f}" if r.tokens_ratio is not None else "",
            f"{100 * r.truncated:.1f}",
            f"{100 * r.in_format:.1f}",
            f"{100 * r.graded_by_fallback:.1f}",
            str(r.asked_without_budget),
        ]
        table.add_row(*cells, *([f"{r.expense:.2f}"] if r.expense is not None else []))
    Console(width=None if Console().is_terminal else 150).print(table)


def _difference(r: Row) -> str:
    if r.accuracy_difference is None:
        return ""
    low, high = 100 * (r.accuracy_difference_low or 0), 100 * (r.accuracy_difference_high or 0)
    return f"{100 * r.accuracy_difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def write_summary(rows: Sequence[Row], folder: Path, name: str) -> None:
    """`<name>.csv` and `<name>.json`."""
    dicts = [asdict(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, dicts[0].keys())
    writer.writeheader()
    writer.writerows(dicts)
    write_atomic(folder / f"{name}.csv", text.getvalue())
    write_atomic(folder / f"{name}.json", json.dumps(dicts, indent=1, ensure_ascii=False) + "\n")
