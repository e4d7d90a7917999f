"""Finding and loading base models. A model's identity is its name and a hash of its weights, never a path."""

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
from tale.models.architectures import check_nf4_blocks, disable_cpu_repacking
from tale.models.embedded import EmbeddedModel
from tale.models.tensors import hash_tensors, tensor_files
from tale.storage.files import atomic_folder, explain_write_errors
from tale.storage.folder import check_output
from tale.text import log_info, log_warning

TOKENIZER_FILES = ["*.json", "*.jinja", "tokenizer*", "*.model"]
HUB_FILES = [*TOKENIZER_FILES, "*.safetensors"]


@dataclass(frozen=True)
class BaseModel:
    """A base model on disk, not yet loaded. `merge` is the folder of an adapter to merge into the weights on loading.

    `quantize` and `dtype`, the format of the loaded weights, are not part of the model's identity.
    """

    name: str
    folder: Path
    merge: Path | None
    template: str
    dtype: str
    quantize: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights: every tensor's name, shape, dtype and bytes, and those of the merged adapter.

        It does not depend on file names or on the sharding of the checkpoint.
        """
        if self.merge:
            parts = f"{self.unmerged.fingerprint} {adapter_fingerprint(self.merge)}"
            return hashlib.sha256(parts.encode()).hexdigest()[:16]
        return hash_tensors(_weights(self.folder))[:16]

    @cached_property
    def unmerged(self) -> BaseModel:
        """This base without the merged adapter."""
        return replace(self, merge=None) if self.merge else self

    @property
    def identity(self) -> dict[str, str]:
        """The model's name and weight hash, which a run and an adapter record."""
        return {"name": self.name, "weights": self.fingerprint}

    def chat(self) -> Chat:
        """The tokenizer with its chat template.

        Raises:
            UserError: it cannot be read.
        """
        return read_chat(self.folder, self.template, "model.name_or_path")

    @cached_property
    def max_model_len(self) -> int | None:
        """The context length: the most tokens of prompt and answer together."""
        return max_model_len_of(self.architecture())

    def architecture(self) -> PreTrainedConfig:
        """The model's config."""
        return AutoConfig.from_pretrained(self.folder)

    def meta_model(self) -> PreTrainedModel:
        """The architecture without weights, on the meta device."""
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(self.architecture())

    def load(self, device: torch.device | str = "cpu") -> PreTrainedModel:
        """Load the weights: with `merge` merged, in `dtype` on the CPU, or quantised on `device`."""
        if self.dtype == "bfloat16" and fast_dtype() != "bfloat16":
            log_warning(
                "model.dtype=bfloat16: this device has no bfloat16 in hardware and takes several times as long as with "
                "model.dtype=float32"
            )
        return self._quantised(device) if self.quantize else self.merged()

    def checkpoint_folder(self) -> Path:
        """A folder with this base as a plain checkpoint: its own, or with `merge` merged, written once to the cache."""
        if self.merge is None:
            return self.folder
        name = f"merged-{self.fingerprint}-{self.dtype}"
        return cached_folder(name, lambda draft: _write(draft, self.merged(), self.chat().tokenizer))

    def merged(self, also_merge: Path | None = None) -> PreTrainedModel:
        """Load the weights with all adapters merged (in float32, then rounded once to `dtype`)."""
        dtype = getattr(torch, self.dtype)
        adapters = [adapter for adapter in (self.merge, also_merge) if adapter]
        model = _loaded(self.folder, dtype=torch.float32 if adapters else dtype)
        for adapter in adapters:
            model = PeftModel.from_pretrained(_untied(model, adapter), adapter).merge_and_unload()
        return model.to(dtype)

    def _quantised(self, device: torch.device | str) -> PreTrainedModel:
        """Load linear layers, except the head, in 4 bits (NF4 with double quantisation); all else is in `dtype`.

        transformers quantises while it reads a checkpoint, so a merged base is first written as one.
        """
        if torch.device(device).type == "cpu":
            check_nf4_blocks(self.meta_model())
        dtype = getattr(torch, self.dtype)
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        model = _loaded(self.checkpoint_folder(), dtype=dtype, quantization_config=config, device_map={"": device})
        return disable_cpu_repacking(model)


def resolve(config: ModelConfig) -> BaseModel:
    """Find a recipe's model: a folder, `embedded:<name>` or a hub id.

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
        raise UserError(f"model.merge_adapter: no adapter_model.safetensors in {merge}; give a trained adapter")
    if merge:
        check_output(merge)
    source = config.name_or_path
    default = embedded.embedded_model(source).name if source.startswith(embedded.PREFIX) else Path(source).name
    base = BaseModel(
        config.name or default,
        folder,
        merge,
        config.template.value,
        fast_dtype() if config.dtype is Dtype.auto else config.dtype.value,
        config.quantization,
    )
    if merge:
        check_adapter(merge, base.unmerged, renamed=True)
    return base


def max_model_len_of(config: PreTrainedConfig) -> int | None:
    """The context length in a model's config, in tokens; None if it has no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def cache_folder() -> Path:
    """The folder of converted models: `$TALE_CACHE`, or `~/.cache/tale`."""
    return Path(os.environ.get("TALE_CACHE", Path.home() / ".cache" / "tale"))


def load_chat(source: str, template: str, key: str) -> Chat:
    """The tokenizer of a hub id, folder or embedded model, which is the recipe's `key`; no weights are downloaded.

    Raises:
        UserError: it is missing, gated or cannot be read.
    """
    return read_chat(locate(source, TOKENIZER_FILES, key), template, key)


def locate(source: str, files: list[str], key: str = "model.name_or_path") -> Path:
    """The folder of a hub id (with these of its files), folder or embedded model, which is the recipe's `key`.

    Raises:
        UserError: it is missing or gated.
    """
    if source.startswith(embedded.PREFIX):
        model = embedded.embedded_model(source, key)
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
            f"{key}: {source!r} is not a local folder and cannot be downloaded ({type(error).__name__}). See "
            f"https://huggingface.co/{source} for its name and licence; a private or gated model also needs HF_TOKEN"
        ) from error


def _upstream(model: EmbeddedModel, files: list[str], key: str) -> Path:
    """The folder, from the hub, of the model that an embedded one was quantised from."""
    try:
        folder = _from_hub(model.hub, files, key)
    except UserError as error:
        raise UserError(
            f"{key}: {model.source} is not installed: `{model.command}` installs it; its original, {model.hub}, cannot "
            "be downloaded either"
        ) from error
    log_warning(f"{model.source} is not installed: using the weights of {model.hub}, not the embedded, quantised ones")
    return folder


def _converted(model: EmbeddedModel) -> Path | None:
    """The folder of a converted embedded model; None if neither it nor any of its packages exists."""
    if not (cache_folder() / model.converted).is_dir() and not model.installed():
        return None
    return cached_folder(model.converted, lambda draft: _convert(model, draft))


def _convert(model: EmbeddedModel, folder: Path) -> None:
    """Write an embedded model as safetensors, in float32, which represents every number of the GGUF file."""
    log_info(f"{model.source}: converting to safetensors, once; it takes minutes")
    model.join(gguf := folder / "joined.gguf")
    how = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    made = _loaded(folder, gguf_file=gguf.name, **how)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
    made.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids([*model.eos_tokens])
    gguf.unlink()
    _write(folder, made, tokenizer)


def _write(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def cached_folder(name: str, write: Callable[[Path], None]) -> Path:
    """The folder of this name in the cache, written if missing: atomically, and by one process at a time.

    Raises:
        UserError: it cannot be written.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    with explain_write_errors(folder, elsewhere := "set TALE_CACHE to another folder"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{name}.lock").open("ab")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():  # another process may just have written it
            with atomic_folder(folder, elsewhere) as draft:
                write(draft)
    return folder


def _loaded(folder: Path, **how: Any) -> PreTrainedModel:
    """Load the model in a folder, with exactly the weights of its architecture.

    transformers would only warn, and initialise missing weights randomly. Unexpected weights belong to another
    architecture than that of `config.json`: to more layers, for instance.

    Raises:
        UserError: weights are missing or unexpected; a tensor is named.
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **how
        )
        model, report = loaded
    except Exception as error:  # transformers raises exceptions of many types for damaged files
        raise UserError(
            f"{folder}: cannot be loaded ({str(error).strip().splitlines()[0]:.200}); fetch it again"
        ) from error
    wrong = {
        **{name: "is missing" for name in report["missing_keys"]},
        **{name: "is not a part of this architecture" for name in report["unexpected_keys"]},
        **{name: f"is {list(one)}, wanted: {list(other)}" for name, one, other in report["mismatched_keys"]},
    }
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        name = min(wrong)
        raise UserError(f"{folder}: {name} {wrong[name]}{more}; fetch config.json and all weights of one release again")
    return model


def _untied(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Untie the weights of head and embeddings if the adapter changes one of them; returns the model."""
    shared = [model.get_input_embeddings(), head := model.get_output_embeddings()]
    ends = {f".{name}.lora_" for name, module in model.named_modules() if any(module is one for one in shared)}
    named = tensor_files([adapter / SAFETENSORS_WEIGHTS_NAME])
    if shared[0].weight is head.weight and any(end in name for name in named for end in ends):
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = False
    return model


def _weights(folder: Path) -> dict[str, Path]:
    if found := tensor_files(folder.glob("*.safetensors")):
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
        raise UserError(f"model.name_or_path: {source} is {', '.join(kinds) or 'of no architecture'}, not a causal LM")
