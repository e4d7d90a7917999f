"""The probes: an architecture that is right passes, any other is refused in one line, before weights are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from tale.config.training import LoraConfig
from tale.data.records import write_records
from tale.errors import UserError
from tale.inference.transformers.probe import compare_generation, verify_generation
from tale.models.base import BaseModel
from tale.models.probe import compare_training, verify_training
from tale.models.tiny import layers_of, tiny_copy
from tale.training.run import train
from tests.factories import pairs, recipe

SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 99}
SHARED = SIZES | {"intermediate_size": 64, "num_key_value_heads": 2}
MAMBA2 = {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "vocab_size": 99}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}


def config(kind: str, **settings: object) -> PreTrainedConfig:
    return AutoConfig.for_model(kind, **settings)


def lora(*modules: str) -> LoraConfig:
    return LoraConfig(2, 4, target_modules=list(modules or ("q_proj", "v_proj")))


@pytest.mark.parametrize(
    ("made", "adapted"),
    [
        (config("llama", **SHARED), lora()),
        (config("qwen2", **SHARED, tie_word_embeddings=True), lora()),  # a bias on queries, keys and values
        (config("qwen2", **SHARED), lora("k_proj", "down_proj")),
        (config("gemma", **SHARED, head_dim=16), lora("q_proj", "down_proj")),
        (config("gpt_neox", **SIZES), lora("query_key_value")),
        (config("qwen3_moe", **SHARED, head_dim=8, num_experts=8, moe_intermediate_size=16), lora()),
        (config("mistral", **SHARED, sliding_window=64), lora()),
    ],
)
def test_layers_that_keep_packed_sequences_apart_pass(made: PreTrainedConfig, adapted: LoraConfig) -> None:
    verify_training(made, adapted, longest=64)
    assert compare_training(made, adapted, 64).gradients > 0  # two ways of computing, which rounding tells apart


@pytest.mark.parametrize(
    ("made", "adapted", "words"),
    [
        (config("falcon", **SIZES), lora("query_key_value"), r"alone, .* from layer 0 \(FalconDecoderLayer\) on$"),
        (config("bloom", hidden_size=32, n_head=4, n_layer=2), lora("dense"), r"from layer 0 \(BloomBlock\) on$"),
        (config("lfm2", **SHARED, full_attn_idxs=[0]), lora(), r"from layer 1 \(Lfm2DecoderLayer\) on$"),
        (config("mamba2", **MAMBA2), lora("in_proj"), r"from layer 0 \(Mamba2Block\) on$"),
        (config("gemma2", **SHARED, head_dim=8, query_pre_attn_scalar=8), lora(), "from layer 0"),
        (config("mistral", **SHARED, sliding_window=63), lora(), "; data.max_length=63 keeps within its window$"),
        (config("granite", **SHARED, logits_scaling=8.0), lora(), "behind its layers, in how its head makes logits$"),
        (config("cohere", **SHARED), lora(), "behind its layers, in how its head makes logits$"),
        (config("phi", **SHARED), lora(), "behind its layers, in how its head makes logits$"),  # a bias
        (config("llama", **SHARED), lora("q_proj", "lm_head"), "behind its layers, in how its head makes logits$"),
        (config("stablelm", **SHARED), lora(), "do not pass `layout` to attention"),
        (config("llama4_text", **SHARED), lora(), "llama4_text: this architecture does not take packed rows"),
        (config("xlstm", hidden_size=64, num_heads=4, num_blocks=2), lora("q"), "xlstm: no tiny copy of this arch"),
    ],
)
def test_what_training_would_compute_otherwise_is_refused(
    made: PreTrainedConfig, adapted: LoraConfig, words: str
) -> None:
    with pytest.raises(UserError, match=words) as refused:
        verify_training(made, adapted, longest=64)
    assert "\n" not in str(refused.value)


def test_a_copy_has_a_layer_of_each_kind_and_heads_as_wide() -> None:
    """Of 8 layers with attention at 3 and 7, and experts at each odd one, the first 4 show all kinds."""
    made = config(
        "jamba", hidden_size=512, num_attention_heads=8, num_key_value_heads=4, intermediate_size=1024, num_experts=64,
        num_hidden_layers=8, attn_layer_period=4, attn_layer_offset=3, expert_layer_period=2, expert_layer_offset=1,
    )  # fmt: skip
    model = tiny_copy(made, longest=64)
    kinds = [type(layer).__name__.removeprefix("Jamba") for layer in layers_of(model, model.config)]
    assert kinds == ["MambaDecoderLayer"] * 3 + ["AttentionDecoderLayer"]
    assert model.config.hidden_size == 256
    assert model.config.num_experts == 16
    attention = layers_of(model, model.config)[3].self_attn
    assert (attention.q_proj.out_features, attention.k_proj.out_features) == (4 * 64, 2 * 64)
    torch.testing.assert_close(tiny_copy(made, 64).lm_head.weight, model.lm_head.weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    "made",
    [
        config("llama", **SHARED),
        config("mistral", **SHARED, sliding_window=64),
        config("qwen2", **SHARED),
        config("deepseek_v3", **SIZES, num_key_value_heads=4, intermediate_size=64, n_routed_experts=16, q_lora_rank=8,
               kv_lora_rank=8, moe_intermediate_size=16, first_k_dense_replace=1),
        config("bloom", hidden_size=32, n_head=4, n_layer=2),
    ],
)  # fmt: skip
def test_the_engine_answers_as_plain_generate(made: PreTrainedConfig) -> None:
    """Windows narrower than prompts, values of another width than keys, no limit to the context."""
    verify_generation(made)
    assert compare_generation(made) > 0  # two ways of computing, which rounding tells apart


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (config("lfm2", **SHARED, full_attn_idxs=[0]), "lfm2: this architecture does not run with the cache and rows"),
        (config("bamba", **SHARED, **MAMBA, attn_layer_indices=[1]), "bamba: this architecture does not run with"),
        (config("rwkv", hidden_size=64, num_hidden_layers=2), "rwkv: this architecture does not run with"),
        (
            config("gemma2", **SHARED, head_dim=8, query_pre_attn_scalar=8),
            "gemma2 .*logits differ",
        ),  # its scores are capped in `eager` alone
    ],
)
def test_an_architecture_that_rows_cannot_hold_is_refused(made: PreTrainedConfig, words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        verify_generation(made)
    assert "\n" not in str(refused.value)


def test_training_is_refused_before_weights_or_a_folder(
    tiny_tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BaseModel, "load", lambda *_: pytest.fail("weights were loaded"))
    source, output, records = tmp_path / "falcon", tmp_path / "run", tmp_path / "records.jsonl"
    AutoModelForCausalLM.from_config(config("falcon", **SIZES | {"vocab_size": 258})).save_pretrained(source)
    tiny_tokenizer.save_pretrained(source)
    write_records(records, pairs(9))
    with pytest.raises(UserError, match="falcon is not known to training"):
        train(recipe(source, output, records, "sft", "lora.target_modules=[query_key_value]"))
    assert not output.exists()
