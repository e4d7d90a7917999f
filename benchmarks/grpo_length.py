"""A task that is learnt only if GRPO is wired right: answers of 20 tokens, the reward is −|length − 20|.

    python benchmarks/grpo_length.py                 # a random model of two layers and 32 words learns it in a minute
    python benchmarks/grpo_length.py adapter=false   # the adapter left out of the rollouts: it cannot be learnt
    python benchmarks/grpo_length.py 'grpo.budget_range=[3,9]' grpo.max_completion_length=20 grpo.num_generations=8 \
        optimizer.lr=0.003 train.max_steps=600       # the length is the budget that the prompt states: minutes

`scripts/train.py`'s own code trains, with `lcpo_exact` at α = 1, a budget of 20 in every prompt and no right answers.
The model's first answers are 18 tokens off on average, most of them cut off at 40. Without its adapter in the
rollouts the policy samples the same lengths for ever: the second command tests that the first one tests something.
Further words are the recipe's keys.

Prints the mean absolute error of every ten steps' sampled answers, and the seconds; writes them to runs/benchmarks.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import torch
from report import publish
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from words import options

from tale.cli import guarded
from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.inference import Engine
from tale.inference.build import LazyEngine
from tale.results.events import read_curves
from tale.training import run
from tale.training.policy import LivePolicy

LENGTH = 20
WORDS = ["[UNK]", "<s>", "</s>", *"0123456789", *"abcdefghijklmnopqrs"]
RECIPE = [
    *["recipe=tiny/grpo", "model.template=plain", "task.limit=40", "data.max_length=500", "data.val_fraction=0.1"],
    *["grpo.reward_funcs=[lcpo_exact]", f"grpo.budget_range=[{LENGTH}, {LENGTH}]", "grpo.length_penalty=1"],
    *["grpo.max_completion_length=40", "grpo.num_generations=16", "engine.batch_size=64", "lora.lora_dropout=0"],
    *["lora.r=8", "lora.lora_alpha=16", "optimizer.lr_scheduler=constant", "optimizer.lr=0.01", "train.max_steps=60"],
    "lora.target_modules=[q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]",
    *["train.epochs=1000", "train.global_batch_size=64", "train.micro_batch_size=64"],
    *["train.save_steps=1000", "train.eval_steps=1000"],
]


class WithoutAdapter(LivePolicy):
    """The policy's engine around the base alone."""

    def engine(self, stack: ExitStack, step: int) -> LazyEngine:
        """With the adapter switched off until the stack is closed, once the engine has it: it takes frozen layers over,
        and those of an adapter that is off count as frozen."""
        live = super().engine(stack, step)

        def without() -> Engine:
            engine = live.make()
            stack.enter_context(self.module.model.disable_adapter())
            return engine

        return LazyEngine(live.tokenizer, live.chat, without)


def main() -> None:
    own, words = options({"adapter": "true"})
    policy = WithoutAdapter if own["adapter"] == "false" else LivePolicy
    with tempfile.TemporaryDirectory() as place, patch.object(run, "LivePolicy", policy):
        write_model(Path(place, "model"))
        given = [*RECIPE, f"model.name_or_path={place}/model", f"output={place}/run", *words]
        began = time.perf_counter()
        run.train(load(TrainRecipe, given))
        seconds = time.perf_counter() - began
        points = read_curves(Path(place, "run")).points
        rewards = [-value for _, value in points["train/reward"]]
    figures = {
        "adapter in the rollouts": own["adapter"] != "false",
        "mean absolute error, tokens, every 10 steps": [
            round(fmean(rewards[i : i + 10]), 2) for i in range(0, len(rewards), 10)
        ],
        "of the last 10 steps": round(fmean(rewards[-10:]), 2),
        "largest gradient norm": round(max(value for _, value in points["train/grad_norm"]), 4),
        "seconds": round(seconds, 1),
    }
    print(publish("grpo_length" if own["adapter"] != "false" else "grpo_length_without_adapter", figures))


def write_model(folder: Path) -> None:
    """A random Llama and its tokenizer of single words."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    unknown, start, end = WORDS[:3]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, bos_token=start, eos_token=end, pad_token=end
    ).save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.2,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
    ).save_pretrained(folder)


if __name__ == "__main__":
    guarded(main, __doc__)
