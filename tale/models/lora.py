"""Adding, saving, checking and loading LoRA adapters, in PEFT's format."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import PreTrainedModel

from tale.config.training import LoraConfig
from tale.errors import UserError
from tale.models.adapters import CARD, AdapterCard, PlainLora, adapter_fingerprint, check_adapter
from tale.models.base import BaseModel
from tale.storage.files import atomic_folder, remove


def add_lora(model: PreTrainedModel, config: LoraConfig, base_name: str) -> PeftModel:
    """Freeze `model` and add adapters (float32) to `config.target_modules`, new or with the weights of `init_from`.

    Raises:
        UserError: the model has no module of such a name, or PEFT cannot adapt it.
    """
    kinds = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    if unknown := sorted(set(config.target_modules) - kinds):
        raise UserError(
            f"lora.target_modules: no linear layer named {', '.join(unknown)}; this model has "
            f"{', '.join(sorted(kinds))}"
        )
    peft_config = PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.target_modules),
    )
    try:
        adapted = get_peft_model(model, peft_config)
    except ValueError as error:
        raise UserError(f"lora.target_modules: PEFT cannot adapt these: {str(error).splitlines()[0]}") from error
    # PEFT records the path that the model was loaded from; an adapter belongs to a model, not to a folder.
    peft_config.base_model_name_or_path = base_name
    peft_config.target_modules = sorted(config.target_modules)  # PEFT's is a set, so its order in the file would vary
    if config.init_from:
        set_peft_model_state_dict(adapted, load_peft_weights(config.init_from, device="cpu"))
    return adapted


def save_adapter(
    model: PeftModel, card: AdapterCard, folder: Path, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write the adapter (safetensors), its PEFT config and its card, atomically.

    `weights` are the adapter's, by their names in `model`, if the model itself has only shards of them.
    """
    with atomic_folder(folder) as draft:
        # "auto" would query the hub to check whether the base's vocabulary was resized.
        model.save_pretrained(str(draft), save_embedding_layers=False, state_dict=weights)
        (draft / "README.md").unlink(missing_ok=True)
        card = replace(card, adapter=adapter_fingerprint(draft))
        (draft / CARD).write_text(json.dumps(asdict(card), indent=1) + "\n")
        remove(folder)


def check_lora(config: LoraConfig, base: BaseModel) -> AdapterCard | None:
    """Check the recipe's LoRA section, before any weights are loaded; returns the card of `init_from`, if any.

    Raises:
        UserError: the model has no such layers, or `init_from` is of another base, rank, scale or layers, or damaged.
    """
    with torch.device("meta"):
        fresh = add_lora(base.meta_model(), replace(config, init_from=None), base.name)
    if config.init_from is None:
        return None
    folder = Path(config.init_from)
    card, saved = check_adapter(folder, base), PlainLora.read(folder)
    tensors = saved.tensors(base, folder)
    layers = {name.partition(".lora_")[0].rpartition(".")[2] for name in tensors}
    theirs = {"rank": saved.r, "alpha": saved.lora_alpha, "modules": sorted(layers)}
    mine = {"rank": config.r, "alpha": config.lora_alpha, "modules": sorted(config.target_modules)}
    if theirs != mine:
        raise UserError(f"lora.init_from: {folder} has {theirs}, the recipe's lora has {mine}; make them the same")
    if tensors.keys() != get_peft_model_state_dict(fresh, save_embedding_layers=False).keys():
        raise UserError(f"lora.init_from: {folder} is only on some of these layers; the recipe's lora on all of them")
    return card


def load_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Add a trained adapter to `model`, unmerged: the same arithmetic as in training.

    PEFT's wrapper delegates all other attributes to the model.
    """
    return cast(PreTrainedModel, PeftModel.from_pretrained(model, folder))
