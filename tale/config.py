"""What a recipe may say: every key, its type, default, range and meaning. `tale.recipes` reads them from YAML."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field
from enum import Enum
from typing import Any

LARGEST = 2**31 - 1  # what every library takes as an integer, and more than any number here has to be


@dataclass(frozen=True)
class Bounds:
    """Where a number lies: from `least` to `most`, or strictly `above` and `below`, or `at`. NaN lies nowhere."""

    least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    most: float = LARGEST
    at: float | None = None

    def hold(self, value: float) -> bool:
        """Whether the number lies there."""
        return value == self.at or (self.least <= value <= self.most and self.above < value < self.below)

    def __str__(self) -> str:
        words = {"at least": self.least, "above": self.above, "below": self.below, "at most": self.most}
        lies = ", ".join(f"{word} {bound}" for word, bound in words.items() if math.isfinite(bound))
        return lies if self.at is None else f"{self.at}, or {lies}"


def opt(
    meaning: str,
    default: Any = MISSING,
    *,
    one_of: Any = None,
    holds: str = "",
    like: tuple[str, str] | None = None,
    **bounds: float,
) -> Any:
    """A field with its meaning, which `--help` prints; without a default the recipe must give it.

    A number, or each in a list of them, lies within `Bounds(**bounds)`; a text is among `one_of`, has `holds` in it, or
    matches `like`, a regular expression that comes with its meaning.
    """
    metadata = {"help": meaning, "bounds": Bounds(**bounds) if bounds else None, "one_of": one_of, "holds": holds}
    metadata["like"] = like
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default="???" if default is MISSING else default, metadata=metadata)


def seed_of(what: str, default: Any) -> Any:
    """A field for a seed, or several: what torch, NumPy and vLLM all take."""
    return opt(what, default, least=0, most=2**32 - 1)


def budget_line(whose: str = "") -> Any:
    """A field for how a budget is asked for (`tale.prompts.budgeted`)."""
    meaning = (
        f"{whose}last line of a prompt with a budget, {{budget}} standing for it; with {{question}} in it the whole "
        "prompt, {format} standing for its answer format; default: the paper's (Table 1)"
    )
    return opt(meaning, None, holds="{budget}")


def group(kind: type) -> Any:
    """A nested section of a recipe."""
    return field(default_factory=kind)


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


class Objective(Enum):
    sft = "sft"
    dpo = "dpo"


class MethodKind(Enum):
    direct = "direct"
    vanilla = "vanilla"
    budget = "budget"
    searched = "searched"
    estimated = "estimated"


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


@dataclass
class SearchRecipe:
    """Find, for each question, the shortest right answer under halving token budgets (§4)."""

    output: str = opt("run folder")
    model: ModelConfig = group(ModelConfig)
    benchmark: BenchmarkConfig = group(BenchmarkConfig)
    sampling: SamplingConfig = group(SamplingConfig)
    engine: EngineConfig = group(EngineConfig)
    samples: int = opt("answers for each budget, and for the vanilla prompt; above 1 needs a temperature", 1, least=1)
    rule: str = opt(
        "when a budget counts as answered right: shortest (any sample is right), majority (more than half are), "
        "confident (the 95 % interval of the right share lies above a half)",
        "shortest",
        one_of=("shortest", "majority", "confident"),
    )
    strategy: str = opt(
        "greedy (§4), minimum (right, whatever it costs), bisection, printed (Algorithm 1 with its slips), grid",
        "greedy",
        one_of=("greedy", "minimum", "bisection", "printed", "grid"),
    )
    grid: list[float] = opt(
        "budgets of strategy=grid, as shares of the vanilla answer's tokens (Table 8's)",
        [0.03125, 0.0625, 0.25, 1.0],
        above=0,
    )
    search_wrong: bool = opt(
        "search questions that vanilla CoT answers wrong, too (Algorithm 1 does, the official code does not); an "
        "answer under a budget has to be right and, but with strategy minimum or grid, cheaper than the vanilla answer",
        False,
    )
    confirm: int = opt(
        "times that each target's own prompt is asked again; a target is lucky where fewer than half of these answers "
        "are right",
        0,
        least=0,
    )
    confirm_temperature: float = opt("of these answers", 0.7, least=0.01)
    budget_line: str | None = budget_line()
    window: int = opt("questions searched at the same time; one that is done makes room for the next", 256, least=1)
    shard: str | None = opt(
        "2/8: the second of eight parts of the questions alone, into a folder of its own; join: put all parts together",
        None,
    )
    fabric: DevicesConfig = group(DevicesConfig)
    prices: PriceConfig = group(PriceConfig)
    dry_run: bool = opt("say how many calls and tokens it can take at most, and load no weights", False)


@dataclass
class DataConfig:
    records: list[str] = opt("records.jsonl files that searches wrote", [])
    confirmed: float = opt(
        "least share right of the answers when a target was asked again (the search's confirm); others are left out as "
        "lucky",
        0.0,
        least=0,
        most=1,
    )
    count: int | None = opt("targets drawn at random, validation included; default: all", None, least=1)
    max_length: int = opt(
        "longest example, prompt and answer, in tokens; longer ones are left out and counted", 1024, least=1
    )
    validation: float = opt("share of contexts held out for the validation loss", 0.1, least=0, below=1)
    seed: int = seed_of("of the validation split", 0)


MEANS = ("example", "token")


@dataclass
class LossConfig:
    mean: str = opt("sft: sum over tokens, mean over 'example's (the paper) or over 'token's", "example", one_of=MEANS)
    reference: bool = opt("dpo: subtract the base model's margin (standard DPO); the paper's is false", False)
    beta: float = opt("dpo: factor on the margin; the paper's loss is 1", 1.0, above=0)
    length_normalised: bool = opt("score an answer by its tokens' mean log-probability, not by the sum", False)


@dataclass
class LoraConfig:
    rank: int = opt("rank (A.3: 8)", 8, least=1)
    alpha: int = opt("scale (A.3: 32)", 32, least=1)
    dropout: float = opt("dropout before the adapter", 0.05, least=0, below=1)
    modules: list[str] = opt("names of the adapted linear layers", ["q_proj", "v_proj"])
    start: str | None = opt("adapter folder of the same shape to start from, in place of a fresh adapter", None)


@dataclass
class OptimConfig:
    lr: float = opt("peak learning rate (A.3: 1e-4 SFT, 3e-5 DPO)", 1e-4, above=0)
    weight_decay: float = opt("AdamW's, on the adapters (A.3: 0.01 SFT, 0.001 DPO)", 0.01, least=0)
    warmup: float = opt("share of the steps over which the rate rises linearly", 0.03, least=0, most=1)
    decay: str = opt("what follows: cosine, linear or constant", "cosine", one_of=("cosine", "linear", "constant"))
    clip: float = opt("largest norm of the gradient", 1.0, above=0)
    kind: str = opt(
        "adamw, or with its state in 8 bits: adamw_8bit, paged_adamw_8bit (CUDA alone)",
        "adamw",
        one_of=("adamw", "adamw_8bit", "paged_adamw_8bit"),
    )


@dataclass
class TrainConfig:
    epochs: int = opt("passes over the examples (A.3: 3 SFT, 2 DPO)", 3, least=1)
    batch_size: int = opt("examples an optimizer step, over all devices and accumulation (A.3: 16)", 16, least=1)
    micro_batch: int = opt("examples a forward pass on one device", 4, least=1)
    max_steps: int | None = opt("stop early, after this many optimizer steps", None, least=1)
    validate_every: int = opt("optimizer steps between validations", 20, least=1)
    checkpoint_every: int = opt("optimizer steps between checkpoints", 20, least=1)
    gradient_checkpointing: bool = opt("recompute activations to save memory", False)
    compile: bool = opt(
        "compile the decoder layers (torch.compile); the first steps take minutes, the others less", False
    )
    seed: int = seed_of("of initial adapters, data order and dropout", 0)


@dataclass
class FabricConfig(DevicesConfig):
    accelerator: str = opt("auto, cpu, cuda, mps", "auto")
    strategy: str = opt(
        "auto (ddp on more than one device), ddp (each has all weights), fsdp2 (each has a share of every weight)",
        "auto",
        one_of=("auto", "ddp", "fsdp2"),
    )
    precision: str = opt(
        "32-true, or bf16-mixed (adapters stay fp32); auto: as model.dtype",
        "auto",
        one_of=("auto", "32-true", "bf16-mixed"),
    )


@dataclass
class TrainRecipe:
    """Train LoRA adapters on the searched targets: SFT, or pairwise DPO of target over vanilla answer (§5.3)."""

    output: str = opt("run folder; its name is the run's name in TensorBoard")
    objective: Objective = opt("sft or dpo")
    model: ModelConfig = group(ModelConfig)
    data: DataConfig = group(DataConfig)
    loss: LossConfig = group(LossConfig)
    lora: LoraConfig = group(LoraConfig)
    optim: OptimConfig = group(OptimConfig)
    train: TrainConfig = group(TrainConfig)
    fabric: FabricConfig = group(FabricConfig)
    resume: str | None = opt(
        "auto: resume from the newest checkpoint in the run folder, if there is one", None, one_of=("auto", None)
    )
    plan: bool = opt("say how much memory training takes on each device, and train nothing", False)
    plan_device: str = opt(
        "whose memory the plan has to fit: this machine, 24GB or any such size, RTX4090, A100-80GB, H100-80GB, …",
        "this machine",
    )


@dataclass
class MethodConfig:
    kind: MethodKind = opt("direct, vanilla, budget, searched or estimated (TALE-EP)")
    label: str | None = opt("name in tables; default: the kind", None)
    adapter: str | None = opt("adapter folder to answer with (TALE-PT: kind vanilla with an adapter)", None)
    budget: int | None = opt("for kind budget: tokens", None, least=1)
    records: str | None = opt("for kind searched: records.jsonl of a search over the same questions", None)
    estimator: str | None = opt(
        "for kind estimated: folder of an estimator that scripts/estimate.py trained; default: zero-shot by a model",
        None,
    )
    estimator_model: ModelConfig | None = opt(
        "for kind estimated, zero-shot: another model than the evaluated one, on the same engine", None
    )
    alpha: float = opt("for kind estimated: factor on the estimate (A.8)", 1.0, above=0)
    budget_line: str | None = budget_line("for kinds with a budget: ")


@dataclass
class EvaluateRecipe:
    """Accuracy, or BLEU, and output tokens of several methods on one benchmark (§6, A.5)."""

    output: str = opt("run folder")
    model: ModelConfig = group(ModelConfig)
    benchmark: BenchmarkConfig = group(BenchmarkConfig)
    sampling: SamplingConfig = group(SamplingConfig)
    engine: EngineConfig = group(EngineConfig)
    methods: list[MethodConfig] = opt("what to compare; differences are to the first plain vanilla")
    seeds: list[int] = seed_of(
        "every question is answered once for each, in place of sampling.seed; several need a temperature", []
    )
    margin: float = opt("points of accuracy that a method may lose and still count as not worse", 3.0, least=0.1)
    prices: PriceConfig = group(PriceConfig)


@dataclass
class WordingConfig:
    label: str = opt("name in tables and figures")
    budget_line: str | None = budget_line()


@dataclass
class WordingsRecipe:
    """Ways to ask for a budget, over budgets, models and tasks: where it is obeyed, ignored or overdone (§3)."""

    output: str = opt("run folder")
    models: list[ModelConfig] = opt("each is loaded once, and asked every task")
    tasks: list[BenchmarkConfig] = opt("each has a figure, and a best wording for each model")
    wordings: list[WordingConfig] = opt("ways to ask for a budget; one without a budget_line is the paper's")
    budgets: list[int] = opt("tokens that every wording asks for; two or more", [10, 30, 90, 270], least=1)
    sampling: SamplingConfig = group(SamplingConfig)
    engine: EngineConfig = group(EngineConfig)
    share: float = opt("most tokens of a best wording, as a share of vanilla CoT's", 0.5, above=0, most=1)
    seed: int = seed_of("of the split into questions that the best is chosen on and those that confirm it", 0)
    prices: PriceConfig = group(PriceConfig)
    dry_run: bool = opt("say how many calls and tokens each task takes, and load no weights", False)


@dataclass
class AnalyseRecipe:
    """What searches tell: token elasticity, ideal budgets, monotonicity (§3, A.1, A.2); the searches' paths (Fig 2, 3).

    Takes records of strategy=grid for the curves, and of greedy or minimum for the paths.
    """

    output: str = opt("folder for tables and plots")
    records: list[str] = opt("records.jsonl in the run folders of searches; each is a line in the plots")


@dataclass
class EstimateRecipe:
    """Train budget estimators on searched budgets, and score them on a held-out grid search (§5.2, A.2, A.8)."""

    output: str = opt("folder for the estimators, one folder each, and their scores")
    train: list[str] = opt("records.jsonl of searches whose β* is learnt")
    grid: list[str] = opt(
        "records.jsonl of searches with strategy=grid over other questions, to score on; none: train only", []
    )
    searched: list[str] = opt(
        "records.jsonl of the searches with which the β* of the same questions was found; default: the grid's own", []
    )
    replies: list[str] = opt(
        "replies.jsonl of evaluations of the grid's questions, whose zero-shot estimates are scored too", []
    )
    coverage: float = opt("share of questions for which the conformal budget is to reach β*", 0.9, above=0, below=1)
    calibration: float = opt("share of the training contexts kept apart to calibrate that", 0.3, above=0, below=1)
    ridge: float | None = opt(
        "strength of the regression's ridge; default: by cross-validation over contexts", None, above=0
    )
    alpha: float = opt("factor on every estimate (A.8)", 1.0, above=0)
    seed: int = seed_of("of the split into fitting and calibration", 0)


@dataclass
class MergeRecipe:
    """Fold an adapter into its base and write a plain model that transformers, vLLM or another recipe can load."""

    output: str = opt("new folder for the merged model")
    adapter: str = opt("adapter folder")
    model: ModelConfig = group(ModelConfig)


@dataclass
class AskRecipe:
    """Ask one question of the base model and of a trained adapter."""

    adapter: str = opt("adapter folder")
    question: str = opt("the question, as plain text")
    model: ModelConfig = group(ModelConfig)
    sampling: SamplingConfig = group(SamplingConfig)
    engine: EngineConfig = group(EngineConfig)


@dataclass
class ReportRecipe:
    """One self-contained page about runs: tables, figures, examples, and what it all cost."""

    output: str = opt("folder for report.html, its tables as CSV and its figures as PNG")
    runs: list[str] = opt(
        "run folders of searches, trainings, evaluations, wordings, analyses and estimators, finished or not"
    )
    examples: int = opt("questions whose answers are shown side by side, for each trained method", 8, least=0)
    hourly: float = opt("dollars an hour of the machine: prices what has no price a token, as training", 0.0, least=0)
