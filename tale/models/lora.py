"""LoRA adapters in PEFT's own format, tied to the base they were trained on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME, load_peft_weights
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from tale.config import LoraConfig
from tale.data.question import HASHES
from tale.data.splits import check_hashes
from tale.errors import UserError
from tale.files import new_folder, remove
from tale.folder import check_output
from tale.models.base import BaseModel
from tale.models.modules import check_architecture

CARD = "tale.json"


@dataclass(frozen=True)
class AdapterCard:
    """What an adapter keeps of its making: the base it belongs to, and hashes of what it was trained on.

    `quantize` says how the base was held meanwhile; the adapter is for that base however it is held. `hashes`: as in
    `tale.data.splits.Seen`.
    """

    base: dict[str, str]
    questions: list[str]
    contexts: list[str]
    quantize: str | None = None
    hashes: int = HASHES


def add_lora(model: PreTrainedModel, config: LoraConfig, base_name: str) -> PeftModel:
    """Freeze `model` and put adapters (float32) on its `config.modules`, fresh or with the weights of `config.start`.

    Raises:
        UserError: the model has no module of such a name.
    """
    kinds = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    if unknown := sorted(set(config.modules) - kinds):
        raise UserError(
            f"lora.modules: no linear layer named {', '.join(unknown)}; this model has {', '.join(sorted(kinds))}"
        )
    peft_config = PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.modules),
    )
    adapted = get_peft_model(model, peft_config)
    # PEFT notes the path that the model was loaded from; an adapter belongs to a model, not to a folder.
    peft_config.base_model_name_or_path = base_name
    peft_config.target_modules = sorted(config.modules)  # PEFT's is a set: the same run would write another file
    if config.start:
        loaded = set_peft_model_state_dict(adapted, load_peft_weights(config.start, device="cpu"))
        assert not loaded.unexpected_keys, loaded.unexpected_keys[:3]
    return adapted


def save_adapter(
    model: PeftModel, card: AdapterCard, folder: Path, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write the adapter (safetensors), its PEFT config and its card; the folder appears whole or not at all.

    `weights` are the adapter's, by their names in `model`, where the model itself holds only shards of them.
    """
    with new_folder(folder) as draft:
        # "auto" would ask the hub whether the base's vocabulary was resized.
        model.save_pretrained(draft, save_embedding_layers=False, state_dict=weights)
        (draft / "README.md").unlink(missing_ok=True)
        (draft / CARD).write_text(json.dumps(asdict(card), indent=1) + "\n")
        remove(folder)


def read_card(folder: Path) -> AdapterCard | None:
    """The card of an adapter, or None for an adapter that another program trained.

    Raises:
        UserError: the folder holds no adapter, one that the run beside it has not made, or its card is damaged or has
            hashes of another version.
    """
    check_output(folder)
    if not (folder / SAFETENSORS_WEIGHTS_NAME).is_file():
        raise UserError(
            f"{folder}: no adapter here (adapter_model.safetensors is missing); train one with scripts/train.py"
        )
    if not (folder / CARD).is_file():
        return None
    try:
        content: dict[str, Any] = json.loads((folder / CARD).read_text())
        card = AdapterCard(**{"hashes": 1, **content})  # the first ones do not say
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"{folder / CARD}: damaged ({error}); train the adapter again") from error
    check_hashes(card, folder / CARD, "the run's own command with resume=auto writes it anew from its last checkpoint")
    return card


def check_adapter(folder: Path, base: BaseModel) -> AdapterCard | None:
    """Refuse an adapter that belongs to another base model, before any weights are loaded."""
    card = read_card(folder)
    if card is None:
        owner = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
        if owner not in (base.name, str(base.folder)):
            raise UserError(f"{folder}: this adapter is for {owner!r}, the recipe's model is {base.name!r}")
    elif card.base != base.identity:
        raise UserError(f"{folder}: this adapter was trained on {card.base}, the recipe's model is {base.identity}")
    return card


def check_lora(config: LoraConfig, base: BaseModel) -> AdapterCard | None:
    """Refuse what the recipe's adapters cannot be, before any weights are loaded; the card of `config.start`.

    Raises:
        UserError: training does not know this kind of model, it has no such layers, or the adapter to go on from is of
            another base, rank, scale or other layers, or its file is damaged.
    """
    with torch.device("meta"):
        fresh = add_lora(base.outline(), replace(config, start=None), base.name)
    check_architecture(fresh.get_base_model())
    if config.start is None:
        return None
    folder = Path(config.start)
    card = check_adapter(folder, base)
    saved = PeftLoraConfig.from_pretrained(folder)
    theirs = {"rank": saved.r, "alpha": saved.lora_alpha, "modules": sorted(saved.target_modules or ())}
    mine = {"rank": config.rank, "alpha": config.alpha, "modules": sorted(config.modules)}
    if theirs != mine:
        raise UserError(f"lora.start: {folder} has {theirs}, the recipe's lora has {mine}; make them the same")
    wanted = get_peft_model_state_dict(fresh, save_embedding_layers=False)
    if _shapes(folder / SAFETENSORS_WEIGHTS_NAME) != {name: list(tensor.shape) for name, tensor in wanted.items()}:
        raise UserError(f"lora.start: the tensors in {folder} are not those that its own config says; train it again")
    return card


def _shapes(file: Path) -> dict[str, list[int]]:
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{file}: damaged ({error}); train the adapter again") from error


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """`model` with a trained adapter on it, unmerged: the same arithmetic as in training."""
    return PeftModel.from_pretrained(model, folder)
