"""Which architectures are trained and decoded correctly? The probes that each run makes, over those of transformers.

    python benchmarks/architectures.py [only=llama,falcon]

Each is its library's own default config (with layers of each kind, where the default has one kind), shrunk to a tiny
copy with random weights, LoRA on all linear layers but the head. `trained`: two packed examples and two packed pairs
against plain transformers on each sequence alone, the largest difference as a share of the largest value, of
log-probabilities and of the adapters' gradients (tale/models/probe.py). `asked`: the transformers engine on a CPU
against plain `generate`, greedy, prompts with a common beginning, more of them than rows
(tale/inference/transformers/probe.py).

Prints a table in Markdown and writes runs/benchmarks/architectures.json.
"""

from __future__ import annotations

from collections.abc import Callable

from report import publish
from torch import nn
from tqdm import tqdm
from transformers import AutoConfig, PreTrainedConfig
from words import named, only

from tale.cli import guarded
from tale.config.training import LoraConfig
from tale.errors import UserError
from tale.inference.transformers.probe import verify_generation
from tale.models.probe import compare_training, verify_training
from tale.models.tiny import tiny_copy

LONGEST = 1024  # data.max_length's default: wider windows never act
# What is changed in a default config.
CHANGED: dict[str, dict] = {
    "granite": {"logits_scaling": 8.0, "residual_multiplier": 0.22, "embedding_multiplier": 12.0},
    "gemma3_text": {"sliding_window": 512},
    "deepseek_v2": {"topk_method": "greedy", "num_experts_per_tok": 6},
    "nemotron": {"num_key_value_heads": 8},
    "lfm2": {"full_attn_idxs": [2, 5, 8, 10, 12, 14]},
    "bamba": {"attn_layer_indices": [2, 9]},
    "granitemoehybrid": {"num_hidden_layers": 40, "layer_types": ["mamba", "attention"] * 20},
}
NAMES = """
    llama mistral mixtral qwen2 qwen2_moe qwen3 qwen3_moe gemma gemma2 gemma3_text phi phi3 phimoe gpt2 gpt_neo
    gpt_neox gptj gpt_bigcode gpt_oss codegen opt falcon bloom mpt xglm biogpt stablelm persimmon olmo olmo2 olmo3 olmoe
    granite granitemoe granitemoehybrid cohere cohere2 smollm3 starcoder2 deepseek_v2 deepseek_v3 glm glm4 exaone4
    helium seed_oss ernie4_5 apertus arcee llama4_text nemotron lfm2 qwen3_next qwen3_5_text jamba bamba minimax
    nemotron_h kimi_linear falcon_h1 zamba2 mamba mamba2 falcon_mamba recurrent_gemma rwkv xlstm
"""


def main() -> None:
    names = named(only({"only": ",".join(NAMES.split())})["only"], NAMES.split(), "only")
    rows = {name: row(AutoConfig.for_model(name, **CHANGED.get(name, {}))) for name in tqdm(sorted(names))}
    publish("architectures", {"rows": rows})
    print("| architecture | trained | asked on a CPU |\n|---|---|---|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


def row(config: PreTrainedConfig) -> list[str]:
    """What came of training and of generation."""
    return [verdict(lambda: trained(config)), verdict(lambda: asked(config))]


def verdict(prove: Callable[[], str]) -> str:
    """What was proved, or the words of the refusal."""
    try:
        return prove()
    except UserError as error:
        return f"refused: {str(error).removeprefix('model.name_or_path: ')}".replace("|", "\\|")


def trained(config: PreTrainedConfig) -> str:
    """The largest differences.

    Raises:
        UserError: it is refused.
    """
    lora = LoraConfig(target_modules=linear(config) or ["q_proj", "v_proj"])
    verify_training(config, lora, LONGEST)
    found = compare_training(config, lora, LONGEST)
    return f"right: {found.logprobs:.0e}, gradients {found.gradients:.0e}"


def asked(config: PreTrainedConfig) -> str:
    """That it is right.

    Raises:
        UserError: it is refused.
    """
    verify_generation(config)
    return "right"


def linear(config: PreTrainedConfig) -> list[str]:
    """Names of its linear layers but the head; none where no copy can be built, which the probe is to say."""
    try:
        model = tiny_copy(config, LONGEST)
    except Exception:
        return []
    modules = {name.rpartition(".")[2]: module for name, module in model.named_modules()}
    out = {"router"}  # some of them return more than one tensor
    out |= {"out_proj"} if "conv1d" in modules else set()  # which PEFT does not adapt in Mamba's layers
    head = model.get_output_embeddings()
    return sorted({name for name, m in modules.items() if isinstance(m, nn.Linear) and m is not head} - out)


if __name__ == "__main__":
    guarded(main, __doc__)
