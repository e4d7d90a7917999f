"""A whole training run: check, load, train, and write the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from tale.config import Objective, TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.devices import make_fabric
from tale.errors import UserError
from tale.models.base import resolve
from tale.models.lora import AdapterCard, add_lora, check_start, read_card, save_adapter
from tale.models.modules import CausalLMModule, DPOModule, SFTModule
from tale.runs import start_run
from tale.training import checkpoint
from tale.training.loop import fit


def train(recipe: TrainRecipe) -> Path | None:
    """Run a training recipe; the folder of the final adapter, in PEFT's own format. None where it is only planned.

    Raises:
        UserError: bad input, before any weights are loaded.
    """
    _check(recipe)
    if recipe.plan:
        from tale.planner.plan import show  # it builds and runs what is defined here

        show(recipe)
        return None
    base = resolve(recipe.model)
    cards = [read_card(base.merge) if base.merge else None, check_start(recipe.lora, base)]
    data = TaleDataModule(recipe, base.chat())
    data.setup()
    output = Path(recipe.output)
    first = checkpoint.newest_step(output / "checkpoints") if recipe.resume else 0
    # What an earlier run logged from this step on is hidden: a resumed run logs it again, a new one its own.
    logger = TensorBoardLogger(output.parent, name=output.name, version="", purge_step=first)
    fabric = make_fabric(
        recipe.fabric,
        recipe.fabric.accelerator,
        strategy=recipe.fabric.strategy,
        precision=recipe.fabric.precision,
        loggers=logger,
    )
    fabric.launch()
    if (shared := min(recipe.train.batch_size, len(data.train))) < fabric.world_size:
        raise UserError(f"fabric.devices: {fabric.world_size} devices, but a step has {shared} examples to share out")
    identity = checkpoint.fingerprint(recipe, base.identity, data, fabric.world_size)
    if first:
        checkpoint.check(fabric, output / "checkpoints", identity)
    fabric.print(data.summary())
    if fabric.is_global_zero:
        start_run(recipe, base=base.identity, examples={"train": len(data.train), "left_out": dict(data.left_out)})
    fabric.seed_everything(recipe.train.seed, verbose=False)
    module = build(recipe, base.load(), base.name)
    fit(fabric, recipe, module, data, identity, first)
    adapter = output / "adapter"
    if fabric.is_global_zero:
        save_adapter(module.model, _card(base.identity, data, [card for card in cards if card]), adapter)
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


def _card(base: dict[str, str], data: TaleDataModule, earlier: Sequence[AdapterCard]) -> AdapterCard:
    """Everything this adapter has seen, by way of the adapters it builds on too."""
    questions = {q.question_hash for q in data.questions}.union(*(card.questions for card in earlier))
    contexts = {q.context_hash for q in data.questions}.union(*(card.contexts for card in earlier))
    return AdapterCard(base, sorted(questions), sorted(contexts))


def _check(recipe: TrainRecipe) -> None:
    if recipe.loss.mean == "token" and recipe.loss.length_normalised:
        raise UserError("loss.mean=token, loss.length_normalised=true: both divide by tokens; leave out one")
    if not recipe.lora.modules:
        raise UserError("lora.modules: none given; the official code's are [q_proj, v_proj]")
