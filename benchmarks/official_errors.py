"""How far would the official code's errors move the results?

Each is made here, on purpose and in this file alone. Errors 3, 6 and 7 are of counting and grading, so an evaluation's
own replies are counted and graded again, the questions being the same:

    python benchmarks/official_errors.py run=runs/eval_qwen

- 3: mean tokens are divided by the number of right answers.
- 6: a gold answer ends where its digits do: "2,125" is "2", 12.5 is 12.
- 7: a reply is right if `[[gold]]` stands anywhere in prompt and reply, the format's own example included.

Errors 1 and 4 are of training and decoding, so a small model runs for minutes, with the recipes named:

    python benchmarks/official_errors.py error=1 sft=sft_qwen recipe=eval_qwen [padding=512]
    python benchmarks/official_errors.py error=4 recipe=eval_qwen [task.limit=50]

- 1: an adapter is trained as there, on prompt, answer and padding, with no end behind the answer and no chat
  template, on the same records with the same steps, and evaluated beside the sft recipe's own adapter, which must be
  there. The padding is to 512 tokens, there to 2,048, which a CPU cannot train on: less of the loss is padding here.
- 4: vanilla CoT is decoded with a repetition penalty of 1.2 and temperature 0.1, the trained models' is left as it is.

What is left of the arguments are keys of the evaluation's recipe. Prints the figures and writes them to
runs/benchmarks/official_errors_<number>.json.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import torch
from report import publish
from transformers import GenerationConfig, set_seed

from tale.cli import guarded
from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.data import prompts
from tale.data.chat import Chat
from tale.data.datamodule import TaleDataModule
from tale.data.examples import Example
from tale.data.question import Question
from tale.data.records import Record
from tale.errors import UserError
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import Reply, answer_all, read_replies
from tale.evaluation.run import evaluate
from tale.grading import grade
from tale.inference import Completion, Request, Sampling
from tale.inference.requests import RequestSource, iter_requests
from tale.models.base import BaseModel, resolve
from tale.solvers.vanilla import Vanilla
from tale.tasks.selection import select_questions
from tale.training.run import train


def main() -> None:
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    error, padding = given.pop("error", ""), int(given.pop("padding", 512))
    if "run" in given:
        figures, name = recounted(Path(given["run"])), "official_errors_3_6_7"
    elif error in ("1", "4") and "recipe" in given:
        sft = given.pop("sft", None)
        recipe = load(EvaluateRecipe, [f"{key}={value}" for key, value in given.items()])
        figures, name = trained(recipe, sft, padding) if error == "1" else penalised(recipe), f"official_errors_{error}"
    else:
        raise UserError("run=<folder of an evaluation>, or error=1 or error=4 with recipe=…; see the head of this file")
    print(publish(name, figures))


# --- 3, 6, 7: counted and graded again ------------------------------------------------------------------------------


def recounted(folder: Path) -> dict:
    """Every method of an evaluation with each of the errors alone."""
    recipe = load(EvaluateRecipe, [f"recipe={folder / 'recipe.yaml'}"])
    questions = {question.id: question for question in select_questions(recipe.task)[0]}
    replies = read_replies(folder / "replies.jsonl")
    if any(reply.correct is None for of in replies.values() for reply in of):
        raise UserError(f"{folder}: its questions are open-ended; give an evaluation of questions with a right answer")
    if missing := {reply.question for of in replies.values() for reply in of} - questions.keys():
        raise UserError(f"{folder}: its benchmark has no {min(missing)} any more; give it the file it was run on")
    return {"run": folder.name, "methods": {method: _moved(of, questions) for method, of in replies.items()}}


def _moved(replies: Sequence[Reply], questions: dict[str, Question]) -> dict:
    right = sum(reply.correct for reply in replies)
    tokens = sum(reply.output_tokens for reply in replies)
    return {
        "questions": len(replies),
        "right": right,
        "mean tokens": round(tokens / len(replies), 2),
        "3: mean tokens": round(tokens / right, 2) if right else None,
        "6: golds cut short": sum(truncated(questions[r.question]).gold != questions[r.question].gold for r in replies),
        "6": _regraded(replies, questions, with_truncated_gold),
        "7": _regraded(replies, questions, anywhere),
    }


def _regraded(
    replies: Sequence[Reply], questions: dict[str, Question], verdict: Callable[[Reply, Question], bool]
) -> dict:
    verdicts = [(reply.correct, verdict(reply, questions[reply.question])) for reply in replies]
    return {
        "right": sum(now for _, now in verdicts),
        "made right": sum(now and not was for was, now in verdicts),
        "made wrong": sum(was and not now for was, now in verdicts),
    }


def truncated(question: Question) -> Question:
    """With its gold as far as its first digits go."""
    digits = re.match(r"-?\d+", question.gold)
    return replace(question, gold=digits.group()) if digits else question


def with_truncated_gold(reply: Reply, question: Question) -> bool:
    """Error 6, all else as it is."""
    return grade(reply.text, truncated(question), reply.finish != "stop").correct


def anywhere(reply: Reply, question: Question) -> bool:
    """Error 7: a local model's output there begins with its prompt."""
    return f"[[{question.gold}]]" in reply.prompt + reply.text


# --- 1: training ----------------------------------------------------------------------------------------------------


def trained(recipe: EvaluateRecipe, sft: str | None, padding: int) -> dict:
    """Vanilla CoT, the sft recipe's adapter, and one trained as the official code does it, on the same questions."""
    if sft is None:
        raise UserError("error=1 needs sft=<the recipe of the adapter to compare with>, such as sft_qwen")
    ours = load(TrainRecipe, [f"recipe={sft}"])
    if not (Path(ours.output) / "adapter").is_dir():
        raise UserError(f"{ours.output}/adapter: not there; python scripts/train.py recipe={sft}")
    # Their trainer means over all tokens of a batch.
    overrides = ["output=runs/benchmarks/official_sft", "loss.reduction=token", f"data.max_length={padding}"]
    theirs = load(TrainRecipe, [f"recipe={sft}", *overrides])
    with patch.object(TaleDataModule, "_example", lambda self, record: all_labelled(record, self.chat, padding)):
        train(theirs)
    recipe.output = "runs/benchmarks/official_errors_1"
    recipe.methods = [Vanilla()] + [
        Vanilla(label=label, adapter=f"{made.output}/adapter")
        for label, made in (("SFT", ours), ("SFT as in the official code", theirs))
    ]
    rows = evaluate(recipe)
    kept = ("questions", "accuracy", "accuracy_low", "accuracy_high", "output_tokens", "truncated")
    return {"padding": padding} | {row.method: {name: getattr(row, name) for name in kept} for row in rows}


def all_labelled(record: Record, chat: Chat, padding: int) -> Example:
    """Prompt, answer and padding, `padding` ids in all; each is a label but the first, which nothing comes before."""
    assert record.target is not None
    tokenizer = chat.tokenizer
    plain = Chat(tokenizer, template="plain")
    text = plain.prompt_ids(prompts.vanilla(record.question)) + plain.target_ids(record.target.text, ended=False)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    first, *labels = (text + [pad] * padding)[:padding]
    return Example(record.question.id, [first], (labels,))


# --- 4: decoding ----------------------------------------------------------------------------------------------------


class Penalised:
    """Sampled `model.generate` with the official baselines' decoding, a prompt after the other."""

    tokenizer = "the model's own"

    def __init__(self, base: BaseModel):
        self.model, self.chat = base.load().eval(), base.chat()

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        """Yield `(number, completion)` in the order of the requests."""
        yield from enumerate(map(self._answer, iter_requests(more)))

    def _answer(self, request: Request) -> Completion:
        end = self.chat.end_id
        config = GenerationConfig(
            do_sample=True,
            temperature=0.1,
            repetition_penalty=1.2,
            max_new_tokens=request.sampling.max_tokens,
            eos_token_id=end,
            pad_token_id=end,
        )
        set_seed(request.sampling.seed)
        prompt = torch.tensor([self.chat.prompt_ids(request.prompt)])
        with torch.inference_mode():
            output = self.model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
        ids = output[0, prompt.shape[1] :].tolist()
        finish = "stop" if ids[-1] == end else "length"
        return Completion(self.chat.decode(ids), len(ids), finish, prompt.shape[1], ids=tuple(ids))


def penalised(recipe: EvaluateRecipe) -> dict:
    """Vanilla CoT as the recipe decodes it, and as the official baselines are decoded."""
    recipe.output = "runs/benchmarks/official_errors_4"
    recipe.methods = [Vanilla()]
    (row,) = evaluate(recipe)
    questions, _ = select_questions(recipe.task)
    engine, sampling = Penalised(resolve(recipe.model)), Sampling(**vars(recipe.sampling))
    replies = answer_all(recipe.methods[0], questions, engine, sampling)
    return {
        "method": recipe.methods[0].name,
        "questions": len(replies),
        "right": round(row.accuracy * row.questions),
        "mean tokens": round(row.output_tokens, 2),
        "4: right": sum(reply.correct for reply in replies),
        "4: mean tokens": round(fmean(reply.output_tokens for reply in replies), 2),
        "4: cut off": sum(reply.finish == "length" for reply in replies),
    }


if __name__ == "__main__":
    guarded(main, __doc__)
