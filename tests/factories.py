"""Small things that several tests make: records, recipes and models for the tiny Llama, and scores by a second way."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from tale.config import recipes
from tale.config.training import LoraConfig, TrainRecipe
from tale.data.chat import Chat
from tale.data.examples import Example
from tale.data.question import Question
from tale.data.records import Answer, Attempt, Record
from tale.inference import Sampling
from tale.models.lora import add_lora
from tests.tiny_llama import END_ID


class Ids(Chat):
    """Shows generated ids as they are."""

    def decode(self, ids: list[int], ends: Collection[int] = ()) -> str:
        return " ".join(map(str, ids))


def prompt_bytes(question: str) -> list[int]:
    """Ids of the tiny model's vanilla prompt about a number question, written out: ids are bytes, 256 opens a turn."""
    user = (
        f"Q: {question}\nPlease Give the response by strictly following this format: [[answer]], for example: "
        "Answer: [[50]].\nLet's think step by step:\n"
    )
    return [256, *f"user\n{user}".encode(), END_ID, *b"\n", 256, *b"assistant\n"]


def answer(text: str, finish: str = "stop") -> Answer:
    """A right answer."""
    return Answer(text, len(text.encode()) + 1, finish, correct=True, value="1", via="brackets")


def record(
    name: str, text: str, target: str | Answer | None, vanilla: str | Answer = "long", reason: str | None = None
) -> Record:
    """A search's record of one question, without its attempts."""
    target = answer(target) if isinstance(target, str) else target
    first = Attempt(None, (answer(vanilla) if isinstance(vanilla, str) else vanilla,), feasible=False)
    return Record(Question(name, text, "1"), first, (), 9 if target else None, target, reason, Sampling(512), "m")


def pairs(count: int) -> list[Record]:
    """Different stories, each with a short target and a longer vanilla answer, all of different lengths."""
    return [
        record(
            f"q/{i}",
            f"Story {i} of {count}: a {'very ' * (i % 5)}old oak has {i} acorns, how many?",
            f"{i}{'.' * (i % 7)} [[{i}]]",
            f"It says{' so' * (i % 4)} {i}. [[{i}]]",
        )
        for i in range(count)
    ]


def examples(count: int, sides: int = 1) -> list[Example]:
    """Examples without a tokenizer: random ids, prompts and answers of many lengths."""
    generator = torch.Generator().manual_seed(count)
    draw = lambda low, high: int(torch.randint(low, high, (), generator=generator))  # noqa: E731
    ids = lambda length: torch.randint(0, 256, (length,), generator=generator).tolist()  # noqa: E731
    return [
        Example(f"e/{i}", ids(draw(2, 12)), tuple([*ids(draw(0, 8)), END_ID] for _ in range(sides)))
        for i in range(count)
    ]


def recipe(source: Path, output: Path, records: Path, objective: str = "sft", *overrides: str) -> TrainRecipe:
    """The shipped tiny recipe on this model and these records."""
    return recipes.load(TrainRecipe, arguments(source, output, records, objective, *overrides))


def arguments(source: Path, output: Path, records: Path, objective: str = "sft", *overrides: str) -> list[str]:
    """What `scripts/train.py` is given for `recipe`; an override may repeat a key."""
    read = [f"data.records=[{records}]"] if objective != "grpo" else []  # which asks questions of its task
    return [f"recipe=tiny/{objective}", f"model.name_or_path={source}", f"output={output}", *read, *overrides]


def adapted(
    source: Path, spread: float = 0.3, dropout: float = 0.0, modules: Collection[str] = ("q_proj", "v_proj")
) -> PeftModel:
    """A tiny model with adapters of some size on it (`spread=0`: fresh ones), always the same."""
    torch.manual_seed(1)
    lora = LoraConfig(2, 4, dropout, target_modules=list(modules))
    model = add_lora(AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), lora, "tiny-llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(spread * torch.randn(parameter.shape))
    return model


@torch.no_grad()
def score(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> Tensor:
    """s(y, x) of one sequence alone, in float64: every token's log-softmax read off one after the other."""
    rows = model(torch.tensor([prompt + answer])).logits[0].double().log_softmax(dim=-1)
    return torch.stack([rows[len(prompt) - 1 + t, token] for t, token in enumerate(answer)]).sum()
