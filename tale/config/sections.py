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


class Part(Enum):
    all = "all"
    train = "train"
    test = "test"


@dataclass
class ModelConfig:
    source: str = opt("hub id, local folder, or embedded:<name>, a model in installed packages")
    name: str | None = opt("name kept in runs and adapters; default: the last part of source", None)
    merge: str | None = opt("adapter folder folded into the weights on loading, of an earlier training", None)
    template: Template = opt("chat: the tokenizer's chat template; plain: the bare prompt", Template.chat)
    dtype: Dtype = opt(
        "of the frozen weights, or of their arithmetic where they are quantised; auto: bfloat16 where the device "
        "multiplies it in hardware, else float32",
        Dtype.auto,
    )
    quantize: str | None = opt(
        "nf4: linear layers in 4 bits on loading, with double quantisation (QLoRA)", None, one_of=("nf4", None)
    )


@dataclass
class BenchmarkConfig:
    name: str = opt(
        "gsm8k, gsm8k_zero, mathbench_<level>_<en|cn>, jsonl, or generated: problems, "
        "reasoning_gym_<syllogism|aiw|letter_counting>; scored by BLEU: codesearchnet, empathetic_dialogues, mbpp"
    )
    path: str | None = opt("local JSONL file; default: downloaded from where it is published", None)
    split: str = opt(
        "split where it is published; of reasoning_gym: train or test; of problems: train, test or test_new", "test"
    )
    part: Part = opt("all, or one side of the split by context: train or test", Part.all)
    held_out: float = opt("share of contexts on the test side", 0.3, above=0, below=1)
    count: int | None = opt("questions drawn at random, after splitting; default: all", None, least=1)
    seed: int = seed_of("of the split, of the draw and of generated problems", 0)


@dataclass
class SamplingConfig:
    max_tokens: int = opt("longest completion; one that reaches it is cut off", 512, least=1)
    temperature: float = opt("0: greedy decoding", 0.0, at=0, least=0.01)
    seed: int = seed_of("of sampling at a temperature above 0 (A.3: 1024)", 1024)


@dataclass
class VllmConfig:
    tensor_parallel: int = opt("devices that share each layer", 1, least=1)
    data_parallel: int = opt("copies of the model, each with a share of the prompts", 1, least=1)
    memory: float = opt("share of each device's memory that weights and cache may take", 0.9, above=0, most=1)


@dataclass
class EndpointConfig:
    url: str | None = opt(
        "where an OpenAI-compatible server listens, up to /v1; $NAME in it is read from the environment; default: "
        "OpenAI itself",
        None,
        like=(r"https?://\S+", "a url that begins with http:// or https:// and ends in /v1"),
    )
    key: str = opt(
        "name of the environment variable that holds the key; a local server needs none",
        "OPENAI_API_KEY",
        like=("[A-Z_][A-Z0-9_]*", "the name of an environment variable, in capitals, and not the key itself"),
    )
    timeout: float = opt("seconds that a call may take in all; then it is given up and made again", 600.0, above=0)
    retries: int = opt("times that a call is made again after 429, 5xx, a time-out or a lost connection", 5, least=0)
    tokenizer: str | None = opt("hub id or folder that counts tokens; default: the endpoint's own usage figures", None)
    context: int | None = opt(
        "most tokens of prompt and answer together that the server takes; with tokenizer, longer prompts are named "
        "before the run and not sent",
        None,
        least=1,
    )
    grouped: bool = opt("all samples of a prompt in one call (n), the prompt paid once; needs tokenizer", False)


@dataclass
class EngineConfig:
    kind: str = opt(
        "transformers, vllm (offline), or openai (any OpenAI-compatible endpoint)",
        "transformers",
        one_of=("transformers", "vllm", "openai"),
    )
    batch_size: int = opt("prompts generated together; of an endpoint: calls at the same time", 64, least=1)
    device: str = opt("of transformers: auto (a GPU where there is one), cpu, cuda, cuda:1, mps", "auto")
    prefix_cache: float = opt(
        "of transformers: GB for keys and values of what prompts begin with in common", 2.0, least=0
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
