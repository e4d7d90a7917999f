"""LoRA adapters in PEFT's own format, tied to the base they were trained on."""

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
from tale.storage.files import new_folder, remove


def add_lora(model: PreTrainedModel, config: LoraConfig, base_name: str) -> PeftModel:
    """Freeze `model` and put adapters (float32) on its `config.modules`, fresh or with the weights of `config.start`.

    Raises:
        UserError: the model has no module of such a name, or PEFT has no adapter for it.
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
    # PEFT notes the path that the model was loaded from; an adapter belongs to a model, not to a folder.
    peft_config.base_model_name_or_path = base_name
    peft_config.target_modules = sorted(config.target_modules)  # PEFT's is a set: the same run would write another file
    if config.init_from:
        set_peft_model_state_dict(adapted, load_peft_weights(config.init_from, device="cpu"))
    return adapted


def save_adapter(
    model: PeftModel, card: AdapterCard, folder: Path, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write the adapter (safetensors), its PEFT config and its card; the folder appears whole or not at all.

    `weights` are the adapter's, by their names in `model`, where the model itself holds only shards of them.
    """
    with new_folder(folder) as draft:
        # "auto" would ask the hub whether the base's vocabulary was resized.
        model.save_pretrained(str(draft), save_embedding_layers=False, state_dict=weights)
        (draft / "README.md").unlink(missing_ok=True)
        card = replace(card, adapter=adapter_fingerprint(draft))
        (draft / CARD).write_text(json.dumps(asdict(card), indent=1) + "\n")
        remove(folder)


def check_lora(config: LoraConfig, base: BaseModel) -> AdapterCard | None:
    """Refuse what the recipe's adapters cannot be, before any weights are loaded; the card of `config.start`.

    Raises:
        UserError: the model has no such layers, or the adapter to go on from is of another base, rank, scale or other
            layers, or its file is damaged.
    """
    with torch.device("meta"):
        fresh = add_lora(base.outline(), replace(config, init_from=None), base.name)
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
        raise UserError(
            f"lora.init_from: {folder} is on some of these layers only; the recipe's lora is on all of them"
        )
    return card


def load_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """`model` with a trained adapter on it, unmerged: the same arithmetic as in training.

    PEFT's wrapper passes on to the model whatever it does not do itself.
    """
    return cast(PreTrainedModel, PeftModel.from_pretrained(model, folder))
