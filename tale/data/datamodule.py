"""From search records to the batches of one training run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from tale.config.training import Objective, TrainRecipe
from tale.data import prompts
from tale.data.chat import Chat
from tale.data.examples import Batch, Example, micro_batches
from tale.data.question import Question
from tale.data.records import Answer, Record, read_records
from tale.data.splits import contexts, deduplicate, preamble, split_by_context, subsample
from tale.errors import UserError

Item = TypeVar("Item")


@dataclass(frozen=True)
class StepSampler:
    """The example indices of each optimizer step, for one rank: a new permutation per epoch, by the seed only.

    A resumed run starts at `first_step`; there is no other state. A last step smaller than the batch is kept, unless
    it has fewer examples than there are ranks.
    """

    examples: int
    batch_size: int
    epochs: int
    seed: int
    first_step: int = 0
    rank: int = 0
    world_size: int = 1

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(self.examples, self.batch_size)
        return full + (rest >= self.world_size)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.epochs - self.first_step

    def __iter__(self) -> Iterator[list[int]]:
        for epoch in range(self.epochs):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(self.examples, generator=generator).tolist()
            for step in range(self.steps_per_epoch):
                if epoch * self.steps_per_epoch + step >= self.first_step:
                    batch = order[step * self.batch_size : (step + 1) * self.batch_size]
                    yield batch[self.rank :: self.world_size]


def rank_share(items: Sequence[Item], rank: int, world_size: int) -> Sequence[Item]:
    """A rank's part of held-out items; all of them, with equal means, if there are fewer than ranks."""
    return items[rank::world_size] if len(items) >= world_size else items


class TaleDataModule(LightningDataModule):
    """Targets (SFT), pairs of target and vanilla answer (DPO) or prompts (GRPO, of `asked`), split by context into
    training and validation.

    After `setup`, `left_out` counts the records that are not used, by reason; `questions` and `contexts` are those of
    the training side, `held_out` the questions of the validation side.

    Raises:
        UserError: from `setup`, if the records are missing or damaged, or have no example to train on.
    """

    def __init__(self, recipe: TrainRecipe, chat: Chat, asked: Sequence[Question] = ()):
        super().__init__()
        self.recipe, self.chat, self.asked = recipe, chat, asked
        self.left_out: Counter[str] = Counter()
        self.train: list[Example] = []
        self.validation: list[Example] = []
        self.questions: list[Question] = []
        self.held_out: list[Question] = []
        self.contexts: set[str] = set()
        self.preamble: str | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read, encode and split. Needs neither weights nor a device."""
        data, grpo = self.recipe.data, self.recipe.objective is Objective.grpo
        pairs = self._prompts() if grpo else self._pairs()
        room = data.max_length - (self.recipe.grpo.max_completion_length if grpo else 0)
        fitting = [(q, e) for q, e in pairs if e.length <= room]
        if dropped := len(pairs) - len(fitting):
            self.left_out[f"longer than data.max_length={data.max_length}"] += dropped
        examples: dict[str, Example] = {}
        for question, example in fitting:
            examples.setdefault(question.question_hash, example)
        questions, duplicates = deduplicate([question for question, _ in fitting])
        if duplicates:
            self.left_out["duplicate question"] += duplicates
        if data.limit is not None:
            if data.limit > len(questions):
                raise UserError(f"data.limit={data.limit}: only {len(questions)} examples are there")
            if dropped := len(questions) - data.limit:
                self.left_out[f"not drawn by data.limit={data.limit}"] += dropped
            questions = subsample(questions, data.limit, data.seed)
        sides = {
            part: split_by_context(questions, part, data.val_fraction, data.seed, "validation")
            for part in ("train", "test")
        }
        self.questions, self.held_out, self.preamble = sides["train"], sides["test"], preamble(questions)
        stories = dict(zip((q.question_hash for q in questions), contexts(questions), strict=True))
        self.contexts = {stories[q.question_hash] for q in self.questions}
        self.train, self.validation = ([examples[q.question_hash] for q in side] for side in sides.values())
        if not self.train:
            reasons = dict(self.left_out)
            if self.validation:
                reasons[f"held out by data.val_fraction={data.val_fraction}"] = len(self.validation)
            source = self.recipe.task.name if grpo else ", ".join(data.records)
            raise UserError(f"{source}: no example to train on; left out: {reasons or 'nothing'}")

    @property
    def retokenised(self) -> int:
        """Answers without generated ids of this tokenizer, template and text: they are tokenised from their text."""
        return sum(example.retokenised for example in (*self.train, *self.validation))

    def train_dataloader(self, first_step: int = 0, rank: int = 0, world_size: int = 1) -> DataLoader:
        """One item per optimizer step: this rank's part of it as a list of micro-batches."""
        sampler = self.sampler(first_step, rank, world_size)
        return DataLoader(self.train, batch_sampler=sampler, collate_fn=self._micro_batches)  # type: ignore[arg-type]

    def sampler(self, first_step: int = 0, rank: int = 0, world_size: int = 1) -> StepSampler:
        """The examples of each step; for GRPO the questions of each rollout, of which there are as many as answers
        divided by a group's."""
        t, grpo = self.recipe.train, self.recipe.objective is Objective.grpo
        size = t.global_batch_size // (self.recipe.grpo.num_generations if grpo else 1)
        return StepSampler(len(self.train), size, t.epochs, t.seed, first_step, rank, world_size)

    def total_steps(self, world_size: int = 1) -> int:
        """The optimizer steps of all epochs."""
        grpo = self.recipe.objective is Objective.grpo
        return len(self.sampler(world_size=world_size)) * (self.recipe.grpo.num_iterations if grpo else 1)

    def validation_batches(self, rank: int = 0, world_size: int = 1, step: int = 0) -> list[Batch]:
        """This rank's part of the held-out examples, the same at every step."""
        return self._micro_batches(rank_share(self.validation, rank, world_size))

    @property
    def unit(self) -> str:
        """What a step has so many of."""
        return "question" if self.recipe.objective is Objective.grpo else "example"

    @property
    def vanilla_wrong(self) -> int:
        """Training questions whose vanilla answer is wrong."""
        return sum(example.vanilla_wrong for example in self.train)

    def summary(self) -> str:
        """One line: how many examples are used, and why others are not."""
        reasons = "".join(f"; {count} left out: {reason}" for reason, count in self.left_out.most_common())
        if count := self.vanilla_wrong:
            reasons += f"; {count} of those to train on were answered wrong by vanilla CoT"
        if count := self.retokenised:
            reasons += f"; {count} answers retokenised: their records have no ids of this tokenizer, template and text"
        story = f"; {self.preamble}" if self.preamble else ""
        return f"{len(self.train)} examples to train on, {len(self.validation)} held out for validation{reasons}{story}"

    def _micro_batches(self, examples: Sequence[Example]) -> list[Batch]:
        return micro_batches(examples, self.recipe.train.micro_batch_size)

    def _prompts(self) -> list[tuple[Question, Example]]:
        """Questions with their longest prompt, by its budget, and no answers yet."""
        grpo = self.recipe.grpo
        most = max(grpo.budget_range, default=None)
        texts = (prompts.chain_of_thought(question, most, grpo.budget_line) for question in self.asked)
        return [(q, Example(q.id, self.chat.prompt_ids(text), ())) for q, text in zip(self.asked, texts, strict=True)]

    def _pairs(self) -> list[tuple[Question, Example]]:
        files = self.recipe.data.records
        if not files:
            raise UserError("data.records: none given; name the records.jsonl of a search")
        records = [record for file in files for record in read_records(Path(file))]
        return [(r.question, self._example(r)) for r in records if self._usable(r)]

    def _usable(self, record: Record) -> bool:
        """Whether the record has a target that is not lucky; the others are counted in `left_out`.

        Raises:
            UserError: the target was not confirmed, but `data.min_confirmed` is set.
        """
        least = self.recipe.data.min_confirmed
        if record.target is None:
            self.left_out[record.reason or "no target"] += 1
        elif least and record.again is None:
            where = f"data.min_confirmed={least}: the target of {record.question.id} was not asked again"
            raise UserError(f"{where}; run its search again with confirm_samples=8: only these calls are new")
        elif least and record.again and record.again.share < least:
            self.left_out[f"lucky: under data.min_confirmed={least} right when asked again"] += 1
        else:
            return True
        return False

    def _example(self, record: Record) -> Example:
        """The prompt has no budget: the trained model is to be brief without one (§5.3), in evaluation too.

        An answer is its generated ids if tokenizer and template are the same and they decode to its text, which may
        have been edited. If a checkpoint has several end tokens, the template's is trained on.
        """
        assert record.target is not None
        sides = [record.target]
        if self.recipe.objective is Objective.dpo:
            sides.append(record.vanilla.best)
        same = record.tokenizer_hash == self.chat.fingerprint
        generated = [self._generated(side) if same else None for side in sides]
        answers = tuple(
            ids or self.chat.target_ids(side.text, ended=side.finish == "stop")
            for side, ids in zip(sides, generated, strict=True)
        )
        prompt = self.chat.prompt_ids(prompts.vanilla(record.question))
        return Example(record.question.id, prompt, answers, generated.count(None), record.vanilla_wrong)

    def _generated(self, answer: Answer) -> list[int] | None:
        """An answer's ids; None if they do not decode to its text."""
        ids, ended = list(answer.ids or ()), answer.finish == "stop"
        if self.chat.decode(ids, ids[-1:] if ended else ()) != answer.text:
            return None
        return [*ids[:-1], self.chat.end_id] if ended and ids else ids
