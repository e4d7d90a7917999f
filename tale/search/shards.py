"""Sharding a search: each shard has its own questions, folder and journal, and one command joins them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from tale.config.recipes import read_yaml, to_container, to_yaml
from tale.data.question import Question
from tale.data.records import Record, iter_records, write_records
from tale.errors import UserError
from tale.runs.run import finish_run, start_run
from tale.search.recipe import SearchRecipe
from tale.storage.folder import RECIPE, is_finished, locked, read_run

# Keys that may differ between the shards of a search: paths and hardware. The identity of model and questions is
# compared separately.
MAY_DIFFER = (
    *("output", "shard", "dry_run", "prices.", "model.name_or_path", "model.merge_adapter", "task.path"),
    *("fabric.", "engine.device", "engine.batch_size", "engine.prefix_cache_gb", "engine.vllm."),
    *("engine.endpoint.max_concurrency", "max_in_flight"),
)
OUTPUTS = ("records.jsonl",)


@dataclass(frozen=True)
class Shard:
    """Shard `number` (from 1) of `count`: every `count`-th question, so that all shards are similar."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def subshard(self, number: int, count: int) -> Shard:
        """Shard `number` (from 1) of `count` of this shard."""
        return Shard(self.number + (number - 1) * self.count, self.count * count)

    def take(self, questions: Sequence[Question]) -> Sequence[Question]:
        """The shard's questions."""
        return questions[self.number - 1 :: self.count]

    def folder(self, output: Path) -> Path:
        """The shard's folder: the output itself if there is only one shard."""
        return output if self.count == 1 else output / f"shard-{self.number}-of-{self.count}"


def parse_shard(text: str | None) -> Shard:
    """The shard that a recipe names; None is the whole search.

    Raises:
        UserError: it is not of the form 2/8.
    """
    if text is None:
        return Shard()
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"shard={text}: the second of eight parts is 2/8; join merges all parts")
    return Shard(int(match[1]), int(match[2]))


def join_shards(recipe: SearchRecipe, questions: Sequence[Question], duplicates: int) -> None:
    """Write the records of all shards, in the order of `questions`, as an unsharded search does.

    The output folder is locked by the caller, those of the shards here.

    Raises:
        UserError: a shard is missing, not finished or being written, has other settings or another model, or has other
            questions.
    """
    output = Path(recipe.output)
    shards = _found(output)
    with ExitStack() as stack:
        for shard in shards:
            stack.enter_context(locked(shard.folder(output)))
        _check_whole(output, shards)
        base = _check_settings(recipe, [shard.folder(output) for shard in shards])
        for _ in _interleaved(shards, output, questions):
            pass  # all checks come before anything is written
        counted = {"all": len(questions), "searched": len(questions), "duplicates": duplicates}
        start_run(recipe, output, OUTPUTS, base=base, questions=counted)
        write_records(output / "records.jsonl", _interleaved(shards, output, questions))
        finish_run(output)


def _found(output: Path) -> list[Shard]:
    """All shards in the output folder, which must have the same count."""
    names = [re.fullmatch(r"shard-(\d+)-of-(\d+)", folder.name) for folder in output.glob("shard-*")]
    found = sorted((Shard(int(m[1]), int(m[2])) for m in names if m), key=lambda shard: (shard.count, shard.number))
    if not found:
        raise UserError(f"{output}: no part of a search here; create them with shard=1/2, shard=2/2")
    if len({shard.count for shard in found}) > 1:
        raise UserError(f"{output}: parts overlap: {', '.join(map(str, found))}; remove those of one division")
    return found


def _check_whole(output: Path, found: Sequence[Shard]) -> None:
    missing = {*range(1, found[0].count + 1)} - {shard.number for shard in found}
    missing |= {s.number for s in found if not _finished(s.folder(output))}
    if missing:
        wanted = ", ".join(f"shard={number}/{found[0].count}" for number in sorted(missing))
        raise UserError(f"{output}: parts missing or not finished: {wanted}; run the search with each of them")


def _finished(folder: Path) -> bool:
    there = all((folder / name).is_file() for name in ("recipe.yaml", "run.json", "records.jsonl"))
    return there and is_finished(folder / "records.jsonl")


def _check_settings(recipe: SearchRecipe, folders: Sequence[Path]) -> Any:
    """The model of the shards, after checking that their settings are the recipe's."""
    wanted = _settings(OmegaConf.create(to_yaml(recipe)), folders[0])
    for folder in folders:
        made = _settings(read_yaml(folder / RECIPE), folder)
        for key in sorted({*wanted, *made}):
            if wanted.get(key) != made.get(key):
                raise UserError(
                    f"{folder}: made with {key}={made.get(key)}, but {wanted.get(key)} is wanted; run this part again "
                    "(answers in its journal are reused)"
                )
    return wanted["run.base"]


def _settings(recipe: DictConfig | ListConfig, folder: Path) -> dict[str, Any]:
    """A recipe's settings by their dotted keys, and the model and code of the run in `folder`."""
    run = read_run(folder)
    return _flat(to_container(recipe)) | {f"run.{name}": run.get(name) for name in ("base", "code")}


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in section.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return {key: value for key, value in flat.items() if not key.startswith(MAY_DIFFER)}


def _interleaved(shards: Sequence[Shard], output: Path, questions: Sequence[Question]) -> Iterator[Record]:
    parts = [iter_records(shard.folder(output) / "records.jsonl") for shard in shards]
    for number, wanted in enumerate([*questions, *[None] * len(shards)]):
        shard = shards[number % len(shards)]
        record = next(parts[number % len(shards)], None)
        found = record.question if record else None
        if wanted != found:
            raise UserError(
                f"{shard.folder(output)}: has {_shown(found)} where {_shown(wanted)} belongs: other questions were "
                "searched, or not all of them; run this part again"
            )
        if record:
            yield record


def _shown(question: Question | None) -> str:
    return f"question {question.id} ({question.text[:40]!r})" if question else "no question"
