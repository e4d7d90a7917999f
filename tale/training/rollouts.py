"""Rollouts: each step's batches are answers that the policy samples when the loop asks for them.

A policy's version is the run's identity and its optimizer step. Each rollout has a journal of its own, so a resumed run
trains on the same answers. An incomplete one is sampled again as a whole: how its arithmetic rounds depends on which
answers share a batch.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from lightning import Fabric

from tale.config.training import TrainRecipe
from tale.data.datamodule import TaleDataModule, rank_share
from tale.data.examples import Batch, Example, micro_batches, pack
from tale.data.question import Question
from tale.errors import UserError
from tale.inference import Completion, Request, Sampling
from tale.inference.journal import JournaledEngine, request_key
from tale.inference.scheduler import Solver, solve
from tale.storage.files import remove
from tale.text import printable_lines
from tale.training import checkpoint
from tale.training.groups import Group, answer_sums, drawn_budget, outcome, prompt_of, scored_group
from tale.training.policy import Policy

SHOWN = 2  # answers of a sample in TensorBoard


@dataclass
class Rollouts:
    """Batches of sampled answers, as `TaleDataModule` has them of searched targets: it is pulled by the loop.

    `identity` is the run's (`checkpoint.fingerprint`).
    """

    fabric: Fabric
    recipe: TrainRecipe
    data: TaleDataModule
    policy: Policy
    identity: dict[str, str]

    @property
    def folder(self) -> Path:
        """The folder of journals."""
        return Path(self.recipe.output) / "rollouts"

    def total_steps(self, world_size: int = 1) -> int:
        """The optimizer steps of all epochs."""
        return self.data.total_steps(world_size)

    def train_dataloader(self, first_step: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[list[Batch]]:
        """One item per optimizer step, sampled when it is asked for; `num_iterations` steps share one."""
        each, train = self.recipe.grpo.num_iterations, self.recipe.train
        assert first_step % each == 0  # as checkpoints are
        sampler = self.data.sampler(first_step // each, rank, world_size)
        for step, chosen in zip(range(first_step, self.total_steps(world_size), each), sampler, strict=False):
            groups, seconds = self._sampled(step, [self.data.questions[i] for i in chosen])
            if step % self.recipe.grpo.log_completions_steps == 0:
                self._show(step, groups[0])
            examples = [group.example for group in groups if group.example.answers]
            if not examples:
                raise UserError(f"step {step}: no answer has a token to train on: {_failure(groups)}")
            spent = _spent(groups, seconds / world_size, each)
            left_out = [group.example for group in groups if not group.example.answers]
            examples[0] = _counting(examples[0], left_out, spent)
            batches = micro_batches(examples, train.micro_batch_size)
            for _ in range(each):
                yield batches

    def validation_batches(self, rank: int = 0, world_size: int = 1, step: int = 0) -> list[Batch]:
        """The held-out questions, answered greedily by the policy of this step; only their sums are used."""
        config = self.recipe.grpo
        sampling = Sampling(config.max_completion_length)
        asked = [
            (q, drawn_budget(config, q, self.recipe.train.seed))
            for q in rank_share(self.data.held_out, rank, world_size)
        ]
        requests = [[Request.user(prompt_of(config, q, budget), sampling)] for q, budget in asked]
        examples = []
        for (question, budget), (completion,) in zip(asked, self._answers("val", step, requests)[0], strict=True):
            found = outcome(completion, question, budget)
            length = config.eval_length or budget or config.max_completion_length
            sums = answer_sums([found]) | {"accuracy_at_length": found.correct and found.tokens <= length}
            examples.append(Example(question.id, [0], ([0],), sums=sums))  # no forward pass reads its ids
        return [pack(examples)] if examples else []

    def _sampled(self, step: int, questions: Sequence[Question]) -> tuple[list[Group], float]:
        """The questions' groups under the policy of this step, and the engine's seconds."""
        config, seed = self.recipe.grpo, self.recipe.train.seed
        digest = hashlib.sha256(repr((seed, step)).encode()).digest()
        sampling = Sampling(config.max_completion_length, config.temperature, int.from_bytes(digest[:4], "big"))
        budgets = [drawn_budget(config, question, seed, step) for question in questions]
        texts = [prompt_of(config, question, budget) for question, budget in zip(questions, budgets, strict=True)]
        requests = [
            [
                replace(Request.user(text, sampling, sample), logprobs=True, processed_logprobs=True)
                for sample in range(config.num_generations)
            ]
            for text in texts
        ]
        answers, seconds = self._answers("train", step, requests)
        of = zip(questions, budgets, map(self.data.chat.prompt_ids, texts), answers, strict=True)
        return [scored_group(config, *each) for each in of], seconds

    def _answers(
        self, kind: str, step: int, requests: Sequence[Sequence[Request]]
    ) -> tuple[list[Sequence[Completion]], float]:
        """Each question's completions, from the journal if it has all of them; and the engine's seconds."""
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        file = self.folder / f"{kind}-{step:06d}-rank-{rank}-of-{ranks}.jsonl"
        identity = hashlib.sha256(repr(sorted(self.identity.items())).encode()).hexdigest()[:16]
        settings = {"policy": identity, "step": step}
        self._forget(step)
        with ExitStack() as stack:
            engine = self.policy.engine(stack, step)
            journal = JournaledEngine(engine, file, settings, self.data.chat)
            if not all(request_key(request) in journal.offsets for of in requests for request in of):
                journal.close()
                remove(file)
                journal = JournaledEngine(engine, file, settings, self.data.chat)
            with closing(journal), closing(solve(map(_solver, requests), journal, len(requests))) as answers:
                found = list(answers)
                return found, journal.cost.seconds

    def _forget(self, step: int) -> None:
        """Remove the journals before the oldest checkpoint: no run resumes there."""
        oldest = checkpoint.step_of(checkpoint.oldest(Path(self.recipe.output) / "checkpoints"))
        for file in self.folder.glob(f"*-rank-{self.fabric.global_rank}-of-*.jsonl"):
            if int(file.name.split("-")[1]) < oldest:
                remove(file)

    def _show(self, step: int, group: Group) -> None:
        """Log some of a group's answers as text."""
        lines = [f"**{group.question.text}**", f"gold {group.question.gold}, budget {group.budget or 'none'}"]
        answers = zip(group.completions, group.outcomes, group.rewards, strict=True)
        for completion, graded, reward in islice(answers, SHOWN):
            kind = "right" if graded.correct else "cut off" if graded.truncated else "wrong"
            lines.append(f"reward {reward:.3f}, {graded.tokens} tokens, {kind}:\n\n{completion.text}")
        for logger in self.fabric.loggers:
            logger.experiment.add_text("rollouts", printable_lines("\n\n".join(lines)), step)  # type: ignore[attr-defined]


def _counting(example: Example, left_out: Sequence[Example], sums: Mapping[str, float]) -> Example:
    """The example, with the answers and sums of groups that have nothing to train on, and with further sums."""
    total = Counter(example.sums)
    for each in [*(other.sums for other in left_out), sums]:
        total.update(each)
    return replace(example, size=example.size + sum(other.size for other in left_out), sums=total)


def _spent(groups: Sequence[Group], seconds: float, steps: int) -> dict[str, float]:
    """The speed of a rollout, and its tokens as the share of each of the `steps` that are trained on it."""
    completions = [completion for group in groups for completion in group.completions]
    sampled = sum(completion.tokens for completion in completions)
    return {
        "rollout_tokens_per_second": sampled,
        "rollout_seconds": seconds,
        "rollout_prompt_tokens": sum(completion.prompt_tokens for completion in completions) / steps,
        "rollout_completion_tokens": sampled / steps,
    }


def _failure(groups: Sequence[Group]) -> str:
    """The first error among the requests."""
    return next((group.error for group in groups if group.error), "all are empty")


def _solver(requests: Sequence[Request]) -> Solver[Sequence[Completion]]:
    return (yield requests)
