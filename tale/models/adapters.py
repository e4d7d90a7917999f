"""Adapters on disk, in PEFT's format: checking their base model, their config and their tensors."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model, get_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from tale.data.question import HASH_VERSION
from tale.data.splits import check_hash_version
from tale.errors import UserError
from tale.models.tensors import first_difference, hash_tensors, tensor_files
from tale.storage.folder import check_output
from tale.storage.strict_json import convert_value, read_json

CARD = "tale.json"
REMEDY = "train it again, or fetch it again"
# Keys of PEFT's config that do not change what a trained adapter computes.
NOTES = {
    *("peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout"),
    *("fan_in_fan_out", "megatron_core", "qalora_group_size", "runtime_config"),
}


class AdapterBase(Protocol):
    """The parts of `tale.models.base.BaseModel` that adapters depend on."""

    @property
    def name(self) -> str: ...

    @property
    def folder(self) -> Path: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def identity(self) -> dict[str, str]: ...

    def meta_model(self) -> PreTrainedModel:
        """The architecture without weights."""
        ...


@dataclass(frozen=True)
class AdapterCard:
    """An adapter's training manifest, with the identity of its base model.

    `quantize` is the base's quantisation in training; the adapter can be used with another. `adapter` is the adapter's
    fingerprint, by which later changes are detected.
    """

    base: dict[str, str]
    questions: list[str]
    contexts: list[str]
    quantize: str | None = None
    hashes: int = HASH_VERSION
    adapter: str | None = None


@dataclass(frozen=True)
class PlainLora:
    """PEFT's config of plain LoRA: one rank and one scale, on some layers. Every other key must be unset.

    So evaluation, merging, further training and vLLM compute the same. Accepted are only initialisations that do not
    change the base.
    """

    r: int
    lora_alpha: float
    target_modules: list[str] | str
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    @classmethod
    def read(cls, folder: Path) -> PlainLora:
        """Read it from an adapter folder.

        Raises:
            UserError: it cannot be read, or is not plain LoRA.
        """
        content, file = read_config(folder), folder / CONFIG_NAME
        defaults = vars(PeftLoraConfig(task_type="CAUSAL_LM", peft_type="LORA"))
        fitting = {"init_lora_weights": (True, False, "gaussian"), "task_type": ("CAUSAL_LM", None)}
        names = {field.name for field in fields(cls)}
        for key in content.keys() - NOTES - names:
            if content[key] not in (*fitting.get(key, ()), defaults.get(key), None, False, {}, []):
                said = json.dumps(content[key], ensure_ascii=False)
                raise UserError(f"{file}: {key}={said:.60}: not plain LoRA, the only kind that is supported")
        plain = convert_value(
            {name: content[name] for name in names & content.keys()}, cls, str(file), "plain LoRA's", REMEDY
        )
        if plain.r < 1 or not plain.lora_alpha > 0 or not plain.target_modules:
            raise UserError(
                f"{file}: r={plain.r}, lora_alpha={plain.lora_alpha}, target_modules={plain.target_modules}"
                f": an adapter needs a rank, a scale and layers; {REMEDY}"
            )
        return plain

    def tensors(self, base: AdapterBase, folder: Path) -> dict[str, Tensor]:
        """The tensors that the adapter in `folder` must have on this base, on the meta device.

        Raises:
            UserError: the base has no such layers.
        """
        try:
            with torch.device("meta"):
                model = get_peft_model(base.meta_model(), PeftLoraConfig(task_type="CAUSAL_LM", **vars(self)))
        except (ValueError, TypeError, RuntimeError, re.error) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"{folder / CONFIG_NAME}: does not fit {base.name} ({reason:.200}); {REMEDY}") from error
        return get_peft_model_state_dict(model, save_embedding_layers=False)


def read_config(folder: Path) -> dict[str, Any]:
    """PEFT's config of an adapter.

    Raises:
        UserError: it is missing or damaged.
    """
    file = folder / CONFIG_NAME
    content = read_json(file, dict[str, Any], "an adapter's config", REMEDY)
    if content.get("peft_type") != "LORA":
        raise UserError(f"{file}: not the config of a LoRA adapter; {REMEDY}")
    return content


def read_card(folder: Path) -> AdapterCard | None:
    """The card of an adapter; None for an adapter that another program trained.

    Raises:
        UserError: the folder has no adapter, or one that is not of the run in the parent folder, or its card is damaged
            or has hashes of another version.
    """
    check_output(folder)
    if not (folder / SAFETENSORS_WEIGHTS_NAME).is_file():
        raise UserError(f"{folder}: no adapter (adapter_model.safetensors is missing); train one with scripts/train.py")
    if not (folder / CARD).is_file():
        return None
    content = read_json(folder / CARD, dict[str, Any], "an adapter's card", REMEDY)
    card = convert_value({"hashes": 1, **content}, AdapterCard, str(folder / CARD), "an adapter's card", REMEDY)
    check_hash_version(card, folder / CARD, "the run's command with resume=auto rewrites it from the latest checkpoint")
    return card


def adapter_fingerprint(folder: Path) -> str:
    """Hash of an adapter's tensors, rank, scale and layers, on which its answers depend."""
    tensors = hash_tensors(tensor_files([folder / SAFETENSORS_WEIGHTS_NAME]))
    plain = vars(PlainLora.read(folder)).items()
    settings = json.dumps({key: sorted(value) if isinstance(value, list) else value for key, value in plain})
    return hashlib.sha256(f"{tensors} {settings}".encode()).hexdigest()[:16]


def check_adapter(folder: Path, base: AdapterBase, renamed: bool = False) -> AdapterCard | None:
    """Refuse an adapter of another base model, or a damaged one, before any weights are loaded.

    Its tensors must be those of its config on this base, finite, and unchanged since its card was written. `renamed`:
    the merged model may have another name (`model.name`), so only the base's weights are compared.

    Raises:
        UserError: it is of another base, not plain LoRA, or damaged; the file and the tensor are named.
    """
    card = read_card(folder)
    if card is None:
        owner = read_config(folder).get("base_model_name_or_path")
        if not renamed and owner not in (base.name, str(base.folder)):
            raise UserError(f"{folder}: this adapter is for {owner!r}, the recipe's model is {base.name!r}")
    elif card.base.get("weights") != base.fingerprint or not (renamed or card.base == base.identity):
        raise UserError(f"{folder}: this adapter was trained on {card.base}, the recipe's model is {base.identity}")
    file, plain = folder / SAFETENSORS_WEIGHTS_NAME, PlainLora.read(folder)
    if copied := [name for name in tensor_files([file], REMEDY) if ".base_layer." in name]:
        raise UserError(f"{file}: {copied[0]} is the base's; save the adapter with save_embedding_layers=False")
    if wrong := first_difference(load_file(file), plain.tensors(base, folder)):
        raise UserError(f"{file}: {wrong}, by its adapter_config.json on {base.name}; {REMEDY}")
    if card and card.adapter not in (None, adapter_fingerprint(folder)):
        raise UserError(f"{folder}: changed since it was trained: its tensors, rank, scale or layers; {REMEDY}")
    return card
