"""Running a search: questions, model, journal, records, summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from lightning import Fabric
from lightning.fabric.strategies import DDPStrategy

from tale.data import prompts
from tale.data.chat import Chat
from tale.data.question import Question
from tale.data.records import Attempt, Confirmation, Record, iter_records, write_records
from tale.errors import UserError
from tale.inference import Request, Sampling
from tale.inference.build import check_model, engines, find_chat, find_model
from tale.inference.context_length import check_context_length
from tale.inference.costs import dollars
from tale.inference.journal import JournaledEngine
from tale.output.progress import progress
from tale.runs.devices import launch, make_fabric
from tale.runs.run import finish_run, lock_output, start_run
from tale.search.confirm import confirm_targets, summarise_confirmations
from tale.search.recipe import SearchRecipe
from tale.search.shards import OUTPUTS, join_shards, parse_shard
from tale.search.solver import search
from tale.search.strategies import STRATEGIES, BudgetSearch, max_calls
from tale.tasks.selection import metric_of, select_questions
from tale.text import log_info


def run_search(recipe: SearchRecipe) -> Path | None:
    """Run a search recipe; the file of records, or None for a dry run.

    Raises:
        UserError: bad input, before any weights are loaded.
    """
    _check(recipe)
    output = Path(recipe.output)
    if recipe.shard == "join":
        questions, dropped = _questions(recipe)
        with lock_output(recipe):
            join_shards(recipe, questions, dropped)
        return _finished(output)
    shard = parse_shard(recipe.shard)
    if recipe.dry_run:
        log_info(max_cost(recipe, shard.take(_questions(recipe)[0]), *_tokenizer(recipe)))
        return None
    model = find_model(recipe.model, recipe.engine)
    questions, dropped = _questions(recipe)
    fabric = _launched(recipe)
    if fabric:
        shard = shard.subshard(fabric.global_rank + 1, fabric.world_size)
        recipe.engine.device = str(fabric.device)
    folder, mine = shard.folder(output), shard.take(questions)
    sampling = Sampling(**vars(recipe.sampling))
    longest = {
        q.id: [Request.user(prompts.budgeted(q, sampling.max_tokens, recipe.budget_line), sampling)] for q in mine
    }
    check_context_length(longest, model.chat(), model.max_model_len)
    counted = {"all": len(questions), "searched": len(mine), "duplicates": dropped}
    joins = fabric is not None and not recipe.shard and fabric.is_global_zero
    with lock_output(recipe) if joins else nullcontext():  # the joined output folder, locked from the start
        with lock_output(recipe, folder):
            (engine,) = engines(recipe.engine, model, folder)
            with closing(engine):
                _meet(fabric)  # no process has failed a check: only now is anything written
                start_run(recipe, folder, OUTPUTS, base=model.identity, questions=counted)
                _searched(recipe, mine, engine, folder)
            finish_run(folder)
        _meet(fabric)
        if joins:
            join_shards(recipe, questions, dropped)
    if fabric and not joins:
        return folder / "records.jsonl"
    return _finished(output if joins else folder)


def _meet(fabric: Fabric | None) -> None:
    """Wait for the other processes, if there are any.

    Raises:
        UserError: one of them has failed.
    """
    try:
        if fabric:
            fabric.barrier()
    except RuntimeError as error:
        raise UserError(
            "another process of this search has failed, see its error above; the same command resumes the search"
        ) from error


def _searched(recipe: SearchRecipe, questions: Sequence[Question], engine: JournaledEngine, folder: Path) -> None:
    """Search these questions and write their records."""
    with progress("search", total=len(questions), unit="question", miniters=0, smoothing=0) as bar:

        def answered(done: int) -> None:
            bar.set_postfix_str(engine.cost.shown(recipe.prices), refresh=False)
            bar.update(done - bar.n)  # also by 0, which redraws the bar

        records = search(
            questions,
            engine,
            Sampling(**vars(recipe.sampling)),
            recipe.max_in_flight,
            answered,
            samples=recipe.samples,
            strategy=_strategy(recipe),
            acceptance=recipe.acceptance,
            search_wrong=recipe.search_wrong,
            budget_line=recipe.budget_line,
            tokenizer_hash=engine.settings.get("tokenizer_hash"),
            full_answers=recipe.full_answers,
        )
        with closing(records):
            write_records(folder / "records.jsonl", _confirmed(recipe, records, engine))
    log_info(f"{engine.cost.shown(recipe.prices)}, {engine.cost.seconds:,.0f} s of the engine")


def _confirmed(recipe: SearchRecipe, records: Iterable[Record], engine: JournaledEngine) -> Iterable[Record]:
    """The records, with confirmed targets if the recipe has `confirm_samples`."""
    if not recipe.confirm_samples:
        return records
    sampling = replace(Sampling(**vars(recipe.sampling)), temperature=recipe.confirm_temperature)
    return confirm_targets(records, engine, sampling, recipe.confirm_samples, first=recipe.samples)


def _finished(folder: Path) -> Path:
    file = folder / "records.jsonl"
    log_info(*summary(iter_records(file)).split("\n"), f"records: {file}")
    return file


def _check(recipe: SearchRecipe) -> None:
    if recipe.samples > 1 and recipe.sampling.temperature == 0:
        raise UserError(f"samples={recipe.samples}: greedy decoding draws the same answer; set sampling.temperature")
    if recipe.strategy == "grid" and not recipe.budget_fractions:
        raise UserError("budget_fractions: none given; Table 8's are [0.03125, 0.0625, 0.25, 1.0]")


def _questions(recipe: SearchRecipe) -> tuple[list[Question], int]:
    """The questions to be searched, and how many duplicates were dropped."""
    questions, dropped = select_questions(recipe.task)
    if metric_of(questions) != "accuracy":
        raise UserError(
            f"task.name={recipe.task.name}: has reference texts, and a search needs answers that are right "
            "or wrong; only scripts/evaluate.py takes it"
        )
    return questions, dropped


def _launched(recipe: SearchRecipe) -> Fabric | None:
    """Launch the processes of a search on several devices, each with a part of the questions; None for one process."""
    if recipe.fabric.devices == "1" and recipe.fabric.num_nodes == 1:
        return None
    if recipe.engine.kind != "transformers":
        raise UserError(
            f"fabric.devices={recipe.fabric.devices}: engine.kind={recipe.engine.kind} distributes its work itself, "
            "see engine.vllm.tensor_parallel_size and data_parallel_size; or run shard=1/2, shard=2/2"
        )
    # The processes synchronise only at the end, so the first one may wait for as long as the whole search takes.
    strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(days=30))
    fabric = make_fabric(recipe.fabric, recipe.engine.device, strategy=strategy)
    launch(fabric)
    return fabric


def _strategy(recipe: SearchRecipe) -> Callable[[Attempt], BudgetSearch]:
    strategy = STRATEGIES[recipe.strategy]
    return partial(strategy, fractions=recipe.budget_fractions) if recipe.strategy == "grid" else strategy


def _tokenizer(recipe: SearchRecipe) -> tuple[Chat | None, str]:
    """The tokenizer that counts prompts; None with the reason if an endpoint counts them, or it cannot be read."""
    check_model(recipe.model, recipe.engine)
    try:
        return find_chat(recipe.model, recipe.engine), "set engine.endpoint.tokenizer to count them"
    except UserError as error:
        return None, str(error)


def max_cost(recipe: SearchRecipe, questions: Sequence[Question], chat: Chat | None, unknown: str = "") -> str:
    """The most calls, tokens and dollars that the search can take: all answers right, and vanilla ones of full length.

    Without a tokenizer the prompts' tokens are unknown; `unknown` says why there is none.
    """
    limit, each = recipe.sampling.max_tokens, recipe.samples
    budgets = max_calls(_strategy(recipe), limit)
    calls = len(questions) * (each * (1 + budgets) + recipe.confirm_samples)
    again = f" + {recipe.confirm_samples} again" if recipe.confirm_samples else ""
    text = (
        f"at most {len(questions)} questions × {each} samples × (vanilla + {budgets} budgets){again} = {calls:,} "
        f"calls, {calls * limit:,} output tokens"
    )
    if chat is None:
        paid = dollars(recipe.prices, 0, calls * limit)
        return f"{text}{f', ${paid:,.2f} for these' if paid else ''}; the prompts' tokens are unknown: {unknown}"
    vanilla = sum(len(chat.prompt_ids(prompts.vanilla(q))) for q in questions)
    budgeted = sum(len(chat.prompt_ids(prompts.budgeted(q, limit, recipe.budget_line))) for q in questions)
    prompt_tokens = each * vanilla + (each * budgets + recipe.confirm_samples) * budgeted
    paid = dollars(recipe.prices, prompt_tokens, calls * limit)
    return f"{text}, {prompt_tokens:,} prompt tokens" + (f", ${paid:,.2f}" if paid else "")


def summary(records: Iterable[Record]) -> str:
    """How many questions have a target, mean tokens before and after, the share saved, and reasons without a target.

    Targets of questions that vanilla CoT answers wrong are also listed separately, and lucky targets are counted among
    the confirmed ones. The first error is included.
    """
    tokens: list[tuple[int, int]] = []  # of vanilla answer and target
    wrong: list[tuple[int, int]] = []  # the same, where the vanilla answer is wrong
    again: list[tuple[bool, Confirmation]] = []
    reasons: Counter[str] = Counter()
    error = ""
    for record in records:
        if record.target:
            tokens.append((record.vanilla.best.tokens, record.target.tokens))
            wrong += tokens[-1:] if record.vanilla_wrong else []
            again += [(record.vanilla_wrong, record.again)] if record.again else []
        else:
            reasons[str(record.reason)] += 1
            error = error or (f"{record.question.id}: {record.error}" if record.error else "")
    lines = [f"{len(tokens) + reasons.total()} questions, {len(tokens)} with a target"]
    if tokens:
        lines.append(f"their mean tokens: {_saved(tokens)}")
    if wrong:
        lines.append(f"of these where vanilla CoT is wrong: {len(wrong)}, mean tokens: {_saved(wrong)}")
    lines += [
        f"asked again, {row.kind}: {row.lucky} of {row.targets} targets lucky" for row in summarise_confirmations(again)
    ]
    lines += [f"{count} without: {reason}" for reason, count in sorted(reasons.items())]
    return "\n".join([*lines, *([f"the first not answered, {error}"] if error else [])])


def _saved(tokens: Sequence[tuple[int, int]]) -> str:
    before, after = (sum(side) / len(tokens) for side in zip(*tokens, strict=True))
    return f"vanilla {before:.1f}, target {after:.1f}, {1 - after / before:.1%} saved"
