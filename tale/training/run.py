"""A whole training run: check, load, train, and write the adapter."""

from __future__ import annotations

from pathlib import Path

from lightning import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger

from tale.config import FabricConfig, Objective, TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.errors import UserError
from tale.models.base import resolve
from tale.models.lora import AdapterCard, add_lora, read_card, save_adapter
from tale.models.modules import CausalLMModule, DPOModule, SFTModule
from tale.runs import start_run
from tale.training.loop import fit


def train(recipe: TrainRecipe) -> Path:
    """Run a training recipe; the folder of the final adapter, in PEFT's own format.

    Raises:
        UserError: bad input, before any weights are loaded.
    """
    _check(recipe)
    base = resolve(recipe.model)
    data = TaleDataModule(recipe, base.chat())
    data.setup()
    output = Path(recipe.output)
    fabric = _fabric(recipe.fabric, TensorBoardLogger(output.parent, name=output.name, version=""))
    fabric.launch()
    if (shared := min(recipe.train.batch_size, len(data.train))) < fabric.world_size:
        raise UserError(f"fabric.devices: {fabric.world_size} devices, but a step has {shared} examples to share out")
    fabric.print(data.summary())
    if fabric.is_global_zero:
        start_run(recipe, base=base.identity, examples={"train": len(data.train), "left_out": dict(data.left_out)})
    fabric.seed_everything(recipe.train.seed, verbose=False)
    module = build(recipe, base.load(), base.name)
    fit(fabric, recipe, module, data, base.identity)
    adapter = output / "adapter"
    if fabric.is_global_zero:
        inherited = read_card(base.merge) if base.merge else None
        save_adapter(module.model, _card(base.identity, data, inherited), adapter)
    fabric.barrier()
    fabric.print(f"adapter: {adapter}\ncompare runs: tensorboard --logdir {output.parent}")
    return adapter


def build(recipe: TrainRecipe, model, base_name: str) -> CausalLMModule:
    """The LightningModule of a recipe around a loaded (or meta-device) causal LM."""
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    kind = SFTModule if recipe.objective is Objective.sft else DPOModule
    return kind(add_lora(model, recipe.lora, base_name), recipe.loss, recipe.optim)


def _card(base: dict[str, str], data: TaleDataModule, inherited: AdapterCard | None) -> AdapterCard:
    """Everything this adapter has seen, its warm start's questions included."""
    questions = {q.question_hash for q in data.questions} | set(inherited.questions if inherited else ())
    contexts = {q.context_hash for q in data.questions} | set(inherited.contexts if inherited else ())
    return AdapterCard(base, sorted(questions), sorted(contexts))


def _check(recipe: TrainRecipe) -> None:
    if recipe.loss.mean == "token" and recipe.loss.length_normalised:
        raise UserError(
            "loss.mean=token, loss.length_normalised=true: both divide by an answer's tokens; leave out one"
        )
    if not recipe.lora.modules:
        raise UserError("lora.modules: none given; the official code's are [q_proj, v_proj]")
    if recipe.resume not in (None, "auto"):
        raise UserError(f"resume={recipe.resume}: auto, or nothing")


def _fabric(config: FabricConfig, logger: TensorBoardLogger) -> Fabric:
    try:
        return Fabric(
            accelerator=config.accelerator,
            devices=_devices(config.devices),
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=config.precision,  # type: ignore[arg-type]
            loggers=logger,
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"fabric: {str(error).strip().splitlines()[0]}") from error


def _devices(devices: str) -> int | str:
    return int(devices) if devices.lstrip("-").isdigit() else devices
