"""Sections that several recipes share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tale.config.fields import group, opt, seed_of


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
    name_or_path: str = opt("hub id, local folder, or embedded:<name>, a model in installed packages", was="source")
    name: str | None = opt("name kept in runs and adapters; default: the last part of name_or_path", None)
    merge_adapter: str | None = opt(
        "adapter folder folded into the weights on loading, of an earlier training", None, was="merge"
    )
    template: Template = opt("chat: the tokenizer's chat template; plain: the bare prompt", Template.chat)
    dtype: Dtype = opt(
        "dtype of the frozen weights, or of their arithmetic where they are quantised; auto: bfloat16 where the device "
        "multiplies it in hardware, else float32",
        Dtype.auto,
    )
    quantization: str | None = opt(
        "nf4: linear layers in 4 bits on loading, with double quantisation (QLoRA)",
        None,
        one_of=("nf4", None),
        was="quantize",
    )


@dataclass
class TaskConfig:
    name: str = opt(
        "gsm8k, gsm8k_zero, mathbench_<level>_<en|cn>, jsonl, or generated: problems, "
        "reasoning_gym_<syllogism|aiw|letter_counting>; scored by BLEU: codesearchnet, empathetic_dialogues, mbpp"
    )
    path: str | None = opt("local JSONL file; default: downloaded from where it is published", None)
    split: str = opt(
        "split where it is published; of reasoning_gym: train or test; of problems: train, test or test_new", "test"
    )
    context_split: ContextSplit = opt(
        "all, or one side of the split by context: train or test", ContextSplit.all, was="part"
    )
    test_fraction: float = opt("share of contexts on the test side", 0.3, above=0, below=1, was="held_out")
    limit: int | None = opt("questions drawn at random, after splitting; default: all", None, least=1, was="count")
    seed: int = seed_of("seed of the split by context, of the draw and of generated problems", 0)


@dataclass
class SamplingConfig:
    max_tokens: int = opt("longest completion; one that reaches it is cut off", 512, least=1)
    temperature: float = opt("0: greedy decoding", 0.0, at=0, least=0.01)
    seed: int = seed_of("seed of sampling at a temperature above 0 (A.3: 1024)", 1024)


@dataclass
class VllmConfig:
    tensor_parallel_size: int = opt("devices that share each layer", 1, least=1, was="tensor_parallel")
    data_parallel_size: int = opt(
        "copies of the model, each with a share of the prompts", 1, least=1, was="data_parallel"
    )
    gpu_memory_utilization: float = opt(
        "share of each device's memory that weights and cache may take", 0.9, above=0, most=1, was="memory"
    )


@dataclass
class EndpointConfig:
    base_url: str | None = opt(
        "where an OpenAI-compatible server listens, up to /v1; $NAME in it is read from the environment; default: "
        "OpenAI itself",
        None,
        like=(r"https?://\S+", "a url that begins with http:// or https:// and ends in /v1"),
        was="url",
    )
    api_key_env: str = opt(
        "name of the environment variable that holds the key; a local server needs none",
        "OPENAI_API_KEY",
        like=("[A-Z_][A-Z0-9_]*", "the name of an environment variable, in capitals, and not the key itself"),
        was="key",
    )
    timeout: float = opt("most seconds of a call, after which it is made again", 600.0, above=0)
    max_concurrency: int = opt("calls under way at the same time", 64, least=1)
    max_retries: int = opt(
        "most times that a call is made again, after 429, 5xx, a time-out or a lost connection",
        5,
        least=0,
        was="retries",
    )
    tokenizer: str | None = opt("hub id or folder that counts tokens; default: the endpoint's own usage figures", None)
    max_model_len: int | None = opt(
        "most tokens of prompt and answer together that the server takes; with tokenizer, longer prompts are named "
        "before the run and not sent",
        None,
        least=1,
        was="context",
    )
    use_n: bool = opt(
        "ask for all samples of a prompt in one call (n), so that its prompt is paid once; needs tokenizer",
        False,
        was="grouped",
    )


@dataclass
class EngineConfig:
    kind: str = opt(
        "transformers, vllm (offline), or openai (any OpenAI-compatible endpoint)",
        "transformers",
        one_of=("transformers", "vllm", "openai"),
    )
    batch_size: int = opt("prompts that transformers and vllm generate together", 64, least=1)
    device: str = opt("device of kind transformers: auto (a GPU where there is one), cpu, cuda, cuda:1, mps", "auto")
    prefix_cache_gb: float = opt(
        "GB for the keys and values of what prompts begin with in common, of kind transformers",
        2.0,
        least=0,
        was="prefix_cache",
    )
    vllm: VllmConfig = group(VllmConfig)
    endpoint: EndpointConfig = group(EndpointConfig)


@dataclass
class PriceConfig:
    input: float = opt("dollars a million input tokens", 0.0, least=0)
    output: float = opt("dollars a million output tokens", 0.0, least=0)


@dataclass
class DevicesConfig:
    devices: str = opt("number of devices on each machine, or auto", "1")
    num_nodes: int = opt("machines", 1, least=1)
