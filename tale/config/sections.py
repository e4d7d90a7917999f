"""Sections that several recipes share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tale.config.fields import opt, section, seed_option


class Template(Enum):
    chat = "chat"
    plain = "plain"


class Dtype(Enum):
    auto = "auto"
    bfloat16 = "bfloat16"
    float32 = "float32"


class ContextSplit(Enum):
    all = "all"
    train = "train"
    test = "test"


@dataclass
class ModelConfig:
    name_or_path: str = opt(
        "hub id, local folder, or embedded:<name>, a model in installed packages", renamed_from="source"
    )
    name: str | None = opt("name of the model in runs and adapters; default: the last part of name_or_path", None)
    merge_adapter: str | None = opt("adapter folder to merge into the weights on loading", None, renamed_from="merge")
    template: Template = opt("chat: the tokenizer's chat template; plain: the bare prompt", Template.chat)
    dtype: Dtype = opt(
        "dtype of the frozen weights, or the compute dtype if they are quantised; auto: bfloat16 if the device "
        "supports it in hardware, else float32",
        Dtype.auto,
    )
    quantization: str | None = opt(
        "nf4: quantise linear layers to 4 bits on loading, with double quantisation (QLoRA)",
        None,
        choices=("nf4", None),
        renamed_from="quantize",
    )


@dataclass
class TaskConfig:
    name: str = opt(
        "gsm8k, gsm8k_zero, mathbench_<level>_<en|cn>, jsonl, or generated: problems, "
        "reasoning_gym_<syllogism|aiw|letter_counting|chain_sum>; scored by BLEU: codesearchnet, empathetic_dialogues, "
        "mbpp"
    )
    path: str | None = opt("local JSONL file; default: download of the published data", None)
    split: str = opt("published split; of reasoning_gym: train or test; of problems: train, test or test_new", "test")
    context_split: ContextSplit = opt(
        "questions to use: all, or the train or test side of the split by context",
        ContextSplit.all,
        renamed_from="part",
    )
    test_fraction: float = opt("share of contexts on the test side", 0.3, gt=0, lt=1, renamed_from="held_out")
    limit: int | None = opt(
        "questions to sample at random after splitting; default: all", None, ge=1, renamed_from="count"
    )
    seed: int = seed_option("seed of the split by context, of sampling questions and of generated problems", 0)


@dataclass
class SamplingConfig:
    max_tokens: int = opt("most tokens of a completion; a longer one is cut off", 512, ge=1)
    temperature: float = opt("0: greedy decoding", 0.0, allow=0, ge=0.01)
    seed: int = seed_option("seed of sampling at a temperature above 0 (A.3: 1024)", 1024)


@dataclass
class VllmConfig:
    tensor_parallel_size: int = opt("devices over which each layer is split", 1, ge=1, renamed_from="tensor_parallel")
    data_parallel_size: int = opt(
        "copies of the model, among which prompts are split", 1, ge=1, renamed_from="data_parallel"
    )
    gpu_memory_utilization: float = opt(
        "share of each device's memory for weights and KV cache", 0.9, gt=0, le=1, renamed_from="memory"
    )


@dataclass
class EndpointConfig:
    base_url: str | None = opt(
        "URL of an OpenAI-compatible server, up to /v1; $NAME in it is read from the environment; default: OpenAI",
        None,
        pattern=(r"https?://\S+", "a url that begins with http:// or https:// and ends in /v1"),
        renamed_from="url",
    )
    api_key_env: str = opt(
        "name of the environment variable with the API key; a local server needs none",
        "OPENAI_API_KEY",
        pattern=("[A-Z_][A-Z0-9_]*", "the name of an environment variable, in capitals, and not the key itself"),
        renamed_from="key",
    )
    timeout: float = opt("seconds until a call times out and is retried", 600.0, gt=0)
    max_concurrency: int = opt("calls in flight at the same time", 64, ge=1)
    max_retries: int = opt("retries after 429, 5xx, a time-out or a lost connection", 5, ge=0, renamed_from="retries")
    tokenizer: str | None = opt(
        "hub id or folder of the tokenizer that counts tokens; default: the usage that the endpoint reports", None
    )
    max_model_len: int | None = opt(
        "most tokens of prompt and answer together that the server accepts; with a tokenizer set, prompts too long for "
        "it are named before the run and not sent",
        None,
        ge=1,
        renamed_from="context",
    )
    use_n: bool = opt(
        "request all samples of a prompt in one call (n), so that the prompt is billed once; needs a tokenizer",
        False,
        renamed_from="grouped",
    )
    continue_final_message: bool = opt(
        "the server continues an open assistant turn if a call says continue_final_message (vLLM, SGLang)", False
    )


@dataclass
class EngineConfig:
    kind: str = opt(
        "transformers, vllm (offline), or openai (any OpenAI-compatible endpoint)",
        "transformers",
        choices=("transformers", "vllm", "openai"),
    )
    batch_size: int = opt("prompts per batch of kind transformers and vllm", 64, ge=1)
    device: str = opt("device of kind transformers: auto (a GPU if there is one), cpu, cuda, cuda:1, mps", "auto")
    prefix_cache_gb: float = opt(
        "GB of the prefix cache of kind transformers: keys and values of prompts' common beginnings, and of answers "
        "that are continued",
        2.0,
        ge=0,
        renamed_from="prefix_cache",
    )
    vllm: VllmConfig = section(VllmConfig)
    endpoint: EndpointConfig = section(EndpointConfig)


@dataclass
class PriceConfig:
    input: float = opt("dollars per million input tokens", 0.0, ge=0)
    output: float = opt("dollars per million output tokens", 0.0, ge=0)


@dataclass
class DevicesConfig:
    devices: str = opt("number of devices on each machine, or auto", "1")
    num_nodes: int = opt("number of machines", 1, ge=1)
