"""A whole training run: check, load, train, and write the adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from os.path import realpath
from pathlib import Path

from lightning import Fabric
from lightning.pytorch.loggers import TensorBoardLogger

from tale.config.training import TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.errors import UserError
from tale.models.adapters import AdapterCard, read_card
from tale.models.base import BaseModel, resolve
from tale.models.lora import check_lora, save_adapter
from tale.models.modules import build
from tale.models.probe import prove_training
from tale.runs.devices import launch, make_fabric, over_all
from tale.runs.run import Identity, finish_run, hold, start_run
from tale.storage.folder import Examples
from tale.text import printable
from tale.training import checkpoint
from tale.training.loop import fit
from tale.training.sharding import strategy


def train(recipe: TrainRecipe) -> Path:
    """Run a training recipe; the folder of the final adapter, in PEFT's own format.

    Raises:
        UserError: bad input, before any weights are loaded.
    """
    assert not recipe.plan
    check(recipe)
    fabric = _fabric(recipe)
    base = resolve(recipe.model)
    cards = [read_card(base.merge) if base.merge else None, check_lora(recipe.lora, base)]
    prove_training(base.architecture(), recipe.lora, recipe.data.max_length)
    data = TaleDataModule(recipe, base.chat())
    data.setup()
    if (shared := min(recipe.train.global_batch_size, len(data.train))) < fabric.world_size:
        raise UserError(f"fabric.devices: {fabric.world_size} devices, but a step has {shared} examples to share out")
    identity = checkpoint.fingerprint(recipe, base.identity, data, fabric.world_size)
    launch(fabric)
    with _held(fabric, recipe, identity) as start:
        output = Path(recipe.output)
        if recipe.resume:
            fabric.print(printable(f"resume=auto: goes on from {start or 'step 0, there is no checkpoint'}"))
        fabric.print(printable(data.summary()))
        if fabric.is_global_zero:
            if not start:
                _forget(output)
            counted: Examples = {
                "train": len(data.train),
                "left_out": dict(data.left_out),
                "retokenised": data.retokenised,
                "vanilla_wrong": data.vanilla_wrong,
            }
            reads = [*recipe.data.records, *filter(None, [recipe.lora.init_from])]
            used: Identity = {"base": base.identity, "examples": counted}
            start_run(recipe, None, ("adapter",), keep=start is not None, reads=reads, **used)
        # Not before: the logger makes files. It hides what was logged from here on before a resumed run was cut off.
        logger = TensorBoardLogger(output.parent, name=output.name, version="", purge_step=checkpoint.step_of(start))
        fabric.loggers.append(logger)
        fabric.seed_everything(recipe.train.seed, verbose=False)
        module = build(recipe, base.load(fabric.device), base.name)
        fit(fabric, recipe, module, data, identity, start)
        adapter, weights = output / "adapter", checkpoint.trained(module.model)
        if fabric.is_global_zero:
            save_adapter(module.model, _card(base, data, [card for card in cards if card]), adapter, weights)
            finish_run(output)
        fabric.barrier()
    fabric.print(printable(f"adapter: {adapter}"))
    fabric.print(printable(f"compare runs: tensorboard --logdir {output.parent}"))
    return adapter


def _fabric(recipe: TrainRecipe) -> Fabric:
    """Fabric, not yet launched."""
    f = recipe.fabric
    fabric = make_fabric(f, f.accelerator, strategy=strategy(f.strategy), precision=f.precision, loggers=[])
    if recipe.optimizer.name.startswith("paged") and fabric.device.type != "cuda":
        raise UserError(f"optimizer.name={recipe.optimizer.name}: needs a CUDA device; adamw_8bit runs on a CPU too")
    return fabric


@contextmanager
def _held(fabric: Fabric, recipe: TrainRecipe, identity: dict[str, str]) -> Iterator[Path | None]:
    """Hold the output folder, the first process for all; the checkpoint to go on from, which it alone has looked up.

    Raises:
        UserError: on every process: the folder or its checkpoint is refused, or the processes would not train the same,
            on machines with other files, for instance.
    """
    with ExitStack() as stack:
        refused = start = None
        try:
            if fabric.is_global_zero:
                stack.enter_context(hold(recipe))
                start = _checkpoint(recipe, identity)
        except UserError as error:
            refused = str(error)
        refused, start, first = fabric.broadcast((refused, start, identity))
        if refused:
            raise UserError(refused)
        other = identity != first or (start is not None and not start.is_file())
        if any(over_all(fabric, [other])):
            who = f"process {fabric.global_rank}" if other else "another process"
            raise UserError(
                f"output, data.records, model.name_or_path: {who} sees other checkpoints, examples or weights than the "
                "first one; keep them where all machines can read them"
            )
        yield start


def _forget(output: Path) -> None:
    """Drop the checkpoints and the log of an earlier run, when one starts anew in its folder."""
    checkpoint.clear(output / "checkpoints")
    for file in output.glob("events.out.tfevents.*"):
        file.unlink()


def _checkpoint(recipe: TrainRecipe, identity: dict[str, str]) -> Path | None:
    """The checkpoint to go on from, if that is wanted and there is one.

    Raises:
        UserError: it is damaged or another run's, or a finished run has lost its own.
    """
    output = Path(recipe.output)
    if recipe.resume is None:
        return None
    if file := checkpoint.newest(output / "checkpoints"):
        checkpoint.check(file, identity)
    elif (output / "adapter").exists():
        raise UserError(
            f"{output / 'checkpoints'}: no checkpoint is left, but the run had come to its adapter; resume=null to "
            "train it anew, or choose another output"
        )
    return file


def _card(base: BaseModel, data: TaleDataModule, earlier: Sequence[AdapterCard]) -> AdapterCard:
    """Everything this adapter has seen, by way of the adapters it builds on too."""
    questions = {q.question_hash for q in data.questions}.union(*(card.questions for card in earlier))
    contexts = data.contexts.union(*(card.contexts for card in earlier))
    return AdapterCard(base.identity, sorted(questions), sorted(contexts), base.quantize)


def check(recipe: TrainRecipe) -> None:
    """Refuse keys that do not go together.

    Raises:
        UserError: two do not, or one lacks.
    """
    if recipe.fabric.strategy == "fsdp2" and recipe.model.quantization:
        raise UserError(
            f"model.quantization={recipe.model.quantization}, fabric.strategy=fsdp2: 4-bit weights are not sharded "
            "here; take fabric.strategy=ddp (each device holds them all), or leave out model.quantization"
        )
    if recipe.fabric.strategy == "fsdp2" and recipe.optimizer.name != "adamw":
        raise UserError(
            f"optimizer.name={recipe.optimizer.name}, fabric.strategy=fsdp2: an 8-bit state is not sharded here; take "
            "adamw, whose state each device then holds its share of"
        )
    if recipe.loss.reduction == "token" and recipe.loss.length_normalized:
        raise UserError("loss.reduction=token, loss.length_normalized=true: both divide by tokens; leave out one")
    for key, adapter in (
        ("lora.init_from", recipe.lora.init_from),
        ("model.merge_adapter", recipe.model.merge_adapter),
    ):
        if adapter and realpath(adapter) == realpath(Path(recipe.output, "adapter")):
            raise UserError(f"{key}={adapter}: is what this run would write over; choose another output")
    if not recipe.lora.target_modules:
        raise UserError("lora.target_modules: none given; the official code's are [q_proj, v_proj]")
