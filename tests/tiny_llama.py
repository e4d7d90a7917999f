"""The tiny model of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

START_ID, END_ID = 256, 257  # of `tiny_tokenizer`


def tiny_llama(hidden_size: int = 32, **others: int) -> LlamaForCausalLM:
    """A random two-layer Llama, its weights wide enough that context matters, the same every time."""
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=hidden_size,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=START_ID,
        eos_token_id=END_ID,
        pad_token_id=END_ID,
        **others,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, factory: pytest.TempPathFactory) -> Path:
    """A new folder with both."""
    folder = factory.mktemp("models") / "tiny-llama"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
