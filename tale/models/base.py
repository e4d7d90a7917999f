"""Where a base model comes from, and its identity: its name and a hash of its weights, never a path."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tale.config.sections import Dtype, ModelConfig
from tale.data.chat import Chat, read_chat
from tale.errors import UserError
from tale.hardware.devices import fast_dtype
from tale.models import embedded
from tale.models.adapters import adapter_fingerprint, check_adapter
from tale.models.architectures import check_blocks, never_repacked
from tale.models.embedded import Embedded
from tale.models.tensors import hash_tensors, places
from tale.storage.files import explained, new_folder
from tale.storage.folder import check_output
from tale.text import say, warn

TOKENIZER_FILES = ["*.json", "*.jinja", "tokenizer*", "*.model"]
HUB_FILES = [*TOKENIZER_FILES, "*.safetensors"]


@dataclass(frozen=True)
class BaseModel:
    """A base model on disk, not yet loaded. `merge` is an adapter folder that is folded into the weights on loading.

    `quantize` is how the weights are held, as `dtype` is: not part of who the model is.
    """

    name: str
    folder: Path
    merge: Path | None
    template: str
    dtype: str
    quantize: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hash over every tensor's name, shape, dtype and bytes, and over the merged adapter's: the weights' identity.

        It depends on neither the file names nor how the checkpoint is sharded.
        """
        if self.merge:
            parts = f"{self.plain.fingerprint} {adapter_fingerprint(self.merge)}"
            return hashlib.sha256(parts.encode()).hexdigest()[:16]
        return hash_tensors(_weights(self.folder))[:16]

    @cached_property
    def plain(self) -> BaseModel:
        """This base without what is merged into it."""
        return replace(self, merge=None) if self.merge else self

    @property
    def identity(self) -> dict[str, str]:
        """What a run and an adapter keep of their base."""
        return {"name": self.name, "weights": self.fingerprint}

    def chat(self) -> Chat:
        """The tokenizer with its chat template.

        Raises:
            UserError: there is none that can be read.
        """
        return read_chat(self.folder, self.template, "model.name_or_path")

    @cached_property
    def context(self) -> int | None:
        """The longest prompt and answer together, in tokens."""
        return context_of(self.architecture())

    def architecture(self) -> PreTrainedConfig:
        """What its config says."""
        return AutoConfig.from_pretrained(self.folder)

    def outline(self) -> PreTrainedModel:
        """The architecture on the meta device, without weights."""
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(self.architecture())

    def load(self, device: torch.device | str = "cpu") -> PreTrainedModel:
        """The weights: in `dtype` on the CPU, `merge` folded in, or quantised on `device`."""
        return self._quantised(device) if self.quantize else self.merged()

    def plain_folder(self) -> Path:
        """A folder with this base as a plain model: its own, or with `merge` folded in, written once to the cache."""
        if self.merge is None:
            return self.folder
        name = f"merged-{self.fingerprint}-{self.dtype}"
        return written_once(name, lambda draft: _write(draft, self.merged(), self.chat().tokenizer))

    def merged(self, also_merge: Path | None = None) -> PreTrainedModel:
        """The weights, in `dtype`, with the adapters to merge folded in (in float32, then rounded once)."""
        dtype = getattr(torch, self.dtype)
        adapters = [adapter for adapter in (self.merge, also_merge) if adapter]
        model = _loaded(self.folder, dtype=torch.float32 if adapters else dtype)
        for adapter in adapters:
            model = PeftModel.from_pretrained(_untied(model, adapter), adapter).merge_and_unload()
        return model.to(dtype)

    def _quantised(self, device: torch.device | str) -> PreTrainedModel:
        """The linear layers but the head in 4 bits (NF4, its scales quantised too); the rest, and the sums, in `dtype`.

        The library quantises while it reads a checkpoint, so a merged base is first written as one.
        """
        if torch.device(device).type == "cpu":
            check_blocks(self.outline())
        dtype = getattr(torch, self.dtype)
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        model = _loaded(self.plain_folder(), dtype=dtype, quantization_config=config, device_map={"": device})
        return never_repacked(model)


def resolve(config: ModelConfig) -> BaseModel:
    """Find the model that a recipe names: a folder, `embedded:<name>` or a hub id.

    Raises:
        UserError: it is missing, gated or not a causal language model.
    """
    folder = locate(config.name_or_path, HUB_FILES)
    _check_causal(folder, config.name_or_path)
    _weights(folder)
    if getattr(AutoConfig.from_pretrained(folder), "quantization_config", None) is None:
        _loaded(folder, device_map="meta")  # no bytes are read
    merge = Path(config.merge_adapter) if config.merge_adapter else None
    if merge and not (merge / "adapter_model.safetensors").is_file():
        raise UserError(
            f"model.merge_adapter: no adapter_model.safetensors in {merge}; name the folder of a trained adapter"
        )
    if merge:
        check_output(merge)
    base = BaseModel(
        config.name or _called(config.name_or_path),
        folder,
        merge,
        config.template.value,
        fast_dtype() if config.dtype is Dtype.auto else config.dtype.value,
        config.quantization,
    )
    if merge:
        check_adapter(merge, base.plain, renamed=True)
    return base


def _called(source: str) -> str:
    return embedded.named(source).name if source.startswith(embedded.PREFIX) else Path(source).name


def context_of(config: PreTrainedConfig) -> int | None:
    """The most tokens that a model reads at once; None where its configuration names no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def cache_folder() -> Path:
    """Where converted models are kept: `$TALE_CACHE`, or `~/.cache/tale`."""
    return Path(os.environ.get("TALE_CACHE", Path.home() / ".cache" / "tale"))


def tokenizer_alone(source: str, template: str, key: str) -> Chat:
    """The tokenizer of a hub id, folder or embedded model, which the recipe names under `key`; no weights are fetched.

    Raises:
        UserError: it is missing, gated or cannot be read.
    """
    return read_chat(locate(source, TOKENIZER_FILES, key), template, key)


def locate(source: str, files: list[str], key: str = "model.name_or_path") -> Path:
    """The folder of a hub id (with these of its files), folder or embedded model, which the recipe names under `key`.

    Raises:
        UserError: it is missing or gated.
    """
    if source.startswith(embedded.PREFIX):
        model = embedded.named(source, key)
        return _converted(model) or _upstream(model, files, key)
    if source.startswith("pypi:"):
        raise UserError(f"{key}: {source} was renamed; models in packages are {embedded.sources()}")
    if (folder := Path(source).expanduser()).is_dir():
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(f"{key}: no folder {source!r}")
    return _from_hub(source, files, key)


def _from_hub(source: str, files: list[str], key: str) -> Path:
    try:
        return Path(snapshot_download(source, allow_patterns=files))
    except GatedRepoError as error:
        raise UserError(
            f"{key}: {source} is gated. Accept its licence at https://huggingface.co/{source}, then put a read "
            "token into the environment variable HF_TOKEN"
        ) from error
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(
            f"{key}: {source!r} is no local folder and the hub did not give it ({type(error).__name__}). See "
            f"https://huggingface.co/{source} for its name and licence; a private or gated model also needs HF_TOKEN"
        ) from error


def _upstream(model: Embedded, files: list[str], key: str) -> Path:
    """The folder, from the hub, of the model that an embedded one was quantised from."""
    try:
        folder = _from_hub(model.hub, files, key)
    except UserError as error:
        raise UserError(
            f"{key}: {model.source} is not installed: `{model.command}` brings it; the hub did not give {model.hub}, "
            "which it was made from, either"
        ) from error
    warn(f"{model.source} is not installed: these are the weights of {model.hub}, not the embedded, quantised ones")
    return folder


def _converted(model: Embedded) -> Path | None:
    """The folder of an embedded model; None where neither it nor any of its packages is there."""
    if not (cache_folder() / model.converted).is_dir() and not model.installed():
        return None
    return written_once(model.converted, lambda draft: _convert(model, draft))


def _convert(model: Embedded, folder: Path) -> None:
    """Write an embedded model as safetensors, in float32, so that every number of the GGUF file is kept."""
    say(f"{model.source}: converting to safetensors, once; it takes minutes")
    model.join(gguf := folder / "joined.gguf")
    how = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    made = _loaded(folder, gguf_file=gguf.name, **how)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
    made.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids([*model.ends])
    gguf.unlink()
    _write(folder, made, tokenizer)


def _write(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def written_once(name: str, write: Callable[[Path], None]) -> Path:
    """The folder of this name in the cache, written where it is missing: whole, and by one process at a time.

    Raises:
        UserError: it cannot be written.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    with explained(folder, elsewhere := "set TALE_CACHE to another folder"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{name}.lock").open("ab")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():  # another process may just have written it
            with new_folder(folder, elsewhere) as draft:
                write(draft)
    return folder


def _loaded(folder: Path, **how: Any) -> PreTrainedModel:
    """The model whose weights a folder holds, all of them and no others.

    What is missing the library would fill with random numbers, and say so in a warning alone. Weights that are left
    over belong to another architecture than `config.json` says: to more layers, for instance.

    Raises:
        UserError: they are not all there, or not of this architecture; a tensor is named.
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **how
        )
        model, report = loaded
    except Exception as error:  # whatever the library makes of files that cannot be
        raise UserError(
            f"{folder}: cannot be loaded ({str(error).strip().splitlines()[0]:.200}); fetch it again"
        ) from error
    wrong = {
        **{name: "is missing" for name in report["missing_keys"]},
        **{name: "belongs to no part of this architecture" for name in report["unexpected_keys"]},
        **{name: f"is {list(one)}, wanted: {list(other)}" for name, one, other in report["mismatched_keys"]},
    }
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        name = min(wrong)
        raise UserError(f"{folder}: {name} {wrong[name]}{more}; fetch config.json and all weights of one release again")
    return model


def _untied(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """The model; its head and embeddings no longer share their weight where the adapter changes one of them."""
    shared = [model.get_input_embeddings(), head := model.get_output_embeddings()]
    ends = {f".{name}.lora_" for name, module in model.named_modules() if any(module is one for one in shared)}
    named = places([adapter / SAFETENSORS_WEIGHTS_NAME])
    if shared[0].weight is head.weight and any(end in name for name in named for end in ends):
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = False
    return model


def _weights(folder: Path) -> dict[str, Path]:
    if found := places(folder.glob("*.safetensors")):
        return found
    raise UserError(f"model.name_or_path: no *.safetensors in {folder}; weights are read from safetensors only")


def _check_causal(folder: Path, source: str) -> None:
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # likewise
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"model.name_or_path: {source} has no config.json that transformers can read: {reason}"
        ) from error
    kinds = config.architectures or []
    if not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        raise UserError(
            f"model.name_or_path: {source} is {', '.join(kinds) or 'of no stated architecture'}, not a causal LM"
        )
