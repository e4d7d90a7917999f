"""Running a training: check, load, train, and write the adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from os.path import realpath
from pathlib import Path

from lightning import Fabric
from lightning.pytorch.loggers import TensorBoardLogger

from tale.config.keys import unread_keys
from tale.config.sections import EngineConfig
from tale.config.training import Objective, TrainRecipe
from tale.data.chat import Chat
from tale.data.datamodule import TaleDataModule
from tale.errors import UserError
from tale.models.adapters import AdapterCard, read_card
from tale.models.base import BaseModel, resolve
from tale.models.lora import check_lora, save_adapter
from tale.models.modules import CausalLMModule, build_module
from tale.models.probe import verify_training
from tale.runs.devices import all_reduce, launch, make_fabric
from tale.runs.run import RunInputs, finish_run, lock_output, start_run
from tale.storage.files import remove
from tale.storage.folder import ExampleCounts
from tale.text import printable
from tale.training import checkpoint
from tale.training.check import check_grpo, questions_to_ask
from tale.training.loop import Batches, fit
from tale.training.policy import LivePolicy, VllmPolicy
from tale.training.rollouts import Rollouts
from tale.training.sharding import strategy


def train(recipe: TrainRecipe) -> Path:
    """Run a training recipe; returns the folder of the final adapter, in PEFT's format.

    Raises:
        UserError: bad input, before any weights are loaded.
    """
    assert not recipe.plan
    check(recipe)
    fabric = training_fabric(recipe)
    base = resolve(recipe.model)
    cards = [read_card(base.merge) if base.merge else None, check_lora(recipe.lora, base)]
    verify_training(base.architecture(), recipe.lora, recipe.data.max_length)
    asked, dropped = questions_to_ask(recipe, base) if recipe.objective is Objective.grpo else ([], 0)
    data = TaleDataModule(recipe, base.chat(), asked)
    data.setup()
    data.left_out.update({"duplicate question": dropped} if dropped else {})
    _check_held_out(recipe, data)
    if (shared := min(data.sampler().batch_size, len(data.train))) < fabric.world_size:
        raise UserError(f"fabric.devices: {fabric.world_size} devices, but a step has only {shared} {data.unit}s")
    identity = checkpoint.fingerprint(recipe, base.identity, data, fabric.world_size)
    launch(fabric)
    with _held(fabric, recipe, identity) as start:
        output = Path(recipe.output)
        if recipe.resume:
            fabric.print(printable(f"resume=auto: resumes from {start or 'step 0, there is no checkpoint'}"))
        fabric.print(printable(data.summary()))
        if fabric.is_global_zero:
            if not start:
                _forget(output, rollouts=recipe.resume is None)
            counted: ExampleCounts = {
                "train": len(data.train),
                "left_out": dict(data.left_out),
                "retokenised": data.retokenised,
                "vanilla_wrong": data.vanilla_wrong,
            }
            reads = [*recipe.data.records, *filter(None, [recipe.lora.init_from])]
            used: RunInputs = {"base": base.identity, "examples": counted}
            start_run(recipe, None, ("adapter",), keep=start is not None, reads=reads, **used)
        # Only here, as the logger creates files. A resumed run hides what was logged after its checkpoint.
        logger = TensorBoardLogger(output.parent, name=output.name, version="", purge_step=checkpoint.step_of(start))
        fabric.loggers.append(logger)
        fabric.seed_everything(recipe.train.seed, verbose=False)
        module = build_module(recipe, base.load(fabric.device), base.name)
        fit(fabric, recipe, module, _batches(fabric, recipe, module, base, data, identity), identity, start)
        adapter, weights = output / "adapter", checkpoint.trained_state_dict(module.model)
        if fabric.is_global_zero:
            save_adapter(module.model, _card(base, data, [card for card in cards if card]), adapter, weights)
            finish_run(output)
        fabric.barrier()
    fabric.print(printable(f"adapter: {adapter}"))
    fabric.print(printable(f"compare runs: tensorboard --logdir {output.parent}"))
    return adapter


def _check_held_out(recipe: TrainRecipe, data: TaleDataModule) -> None:
    """Refuse keys that only a validation reads if there is nothing to validate on."""
    for key in ("train.early_stopping_patience", "grpo.eval_length"):
        value = attrgetter(key)(recipe)
        if value is not None and not data.validation:
            raise UserError(
                f"{key}={value}: data.val_fraction={recipe.data.val_fraction} holds nothing out to validate on; raise "
                f"it, or leave {key} out"
            )


def training_fabric(recipe: TrainRecipe) -> Fabric:
    """The recipe's Fabric, not yet launched.

    Raises:
        UserError: as `make_fabric`, or the optimizer needs a GPU.
    """
    f = recipe.fabric
    # No precision: Fabric calls a step under autocast, and converts its batch, only if DDP wraps the module.
    fabric = make_fabric(f, f.accelerator, strategy=strategy(f.strategy), loggers=[])
    if recipe.optimizer.name.startswith("paged") and fabric.device.type != "cuda":
        raise UserError(f"optimizer.name={recipe.optimizer.name}: needs a CUDA device; adamw_8bit runs on a CPU too")
    return fabric


@contextmanager
def _held(fabric: Fabric, recipe: TrainRecipe, identity: dict[str, str]) -> Iterator[Path | None]:
    """Lock the output folder, on the first process, and find the checkpoint to resume from, if any.

    Raises:
        UserError: on every process: the folder or its checkpoint is refused, or the processes see different files, on
            different machines, for instance.
    """
    with ExitStack() as stack:
        refused = start = None
        try:
            if fabric.is_global_zero:
                stack.enter_context(lock_output(recipe))
                start = _checkpoint(recipe, identity)
        except UserError as error:
            refused = str(error)
        refused, start, first = fabric.broadcast((refused, start, identity))
        if refused:
            raise UserError(refused)
        other = identity != first or (start is not None and not start.is_file())
        if any(all_reduce(fabric, [other])):
            who = f"process {fabric.global_rank}" if other else "another process"
            raise UserError(
                f"output, data.records, model.name_or_path: {who} sees other checkpoints, examples or weights than the "
                "first one; use folders that all machines share"
            )
        yield start


def _batches(
    fabric: Fabric,
    recipe: TrainRecipe,
    module: CausalLMModule,
    base: BaseModel,
    data: TaleDataModule,
    identity: dict[str, str],
) -> Batches:
    """Where the loop pulls its batches from."""
    if recipe.objective is not Objective.grpo:
        return data
    held: tuple[CausalLMModule, BaseModel, Chat, EngineConfig] = (module, base, data.chat, recipe.engine)
    vllm = recipe.engine.kind == "vllm"
    policy = VllmPolicy(*held, Path(recipe.output, "rollouts")) if vllm else LivePolicy(*held)
    return Rollouts(fabric, recipe, data, policy, identity)


def _forget(output: Path, rollouts: bool) -> None:
    """Remove the checkpoints and the log of an earlier run in the folder, and with `rollouts` what it has sampled."""
    checkpoint.clear(output / "checkpoints")
    if rollouts:
        remove(output / "rollouts")
    for file in output.glob("events.out.tfevents.*"):
        file.unlink()


def _checkpoint(recipe: TrainRecipe, identity: dict[str, str]) -> Path | None:
    """The checkpoint to resume from, if the recipe says so and there is one.

    Raises:
        UserError: it is damaged or of another run, or the checkpoints of a finished run are missing.
    """
    output = Path(recipe.output)
    if recipe.resume is None:
        return None
    if file := checkpoint.latest(output / "checkpoints"):
        checkpoint.check(file, identity)
    elif (output / "adapter").exists():
        raise UserError(
            f"{output / 'checkpoints'}: there is no checkpoint, but the run has written its adapter; resume=null to "
            "train again, or choose another output"
        )
    return file


def _card(base: BaseModel, data: TaleDataModule, earlier: Sequence[AdapterCard]) -> AdapterCard:
    """The adapter's card: all that it was trained on, including the adapters it starts from."""
    questions = {q.question_hash for q in data.questions}.union(*(card.questions for card in earlier))
    contexts = data.contexts.union(*(card.contexts for card in earlier))
    return AdapterCard(base.identity, sorted(questions), sorted(contexts), base.quantize)


def check(recipe: TrainRecipe) -> None:
    """Refuse keys that exclude each other.

    Raises:
        UserError: two keys exclude each other, one is missing, or the objective does not read one.
    """
    for key, value in unread_keys(recipe, recipe.objective.value):
        raise UserError(f"{key}={value}: objective={recipe.objective.value} does not read it; leave it out")
    if recipe.objective is Objective.grpo:
        check_grpo(recipe)
    if recipe.fabric.strategy == "fsdp2" and recipe.model.quantization:
        raise UserError(
            f"model.quantization={recipe.model.quantization}, fabric.strategy=fsdp2: 4-bit weights are not sharded "
            "here; use fabric.strategy=ddp (each device holds them all), or leave out model.quantization"
        )
    if recipe.fabric.strategy == "fsdp2" and recipe.optimizer.name != "adamw":
        raise UserError(
            f"optimizer.name={recipe.optimizer.name}, fabric.strategy=fsdp2: an 8-bit state is not sharded here; use "
            "adamw, whose state is sharded"
        )
    if recipe.loss.reduction == "token" and recipe.loss.length_normalized:
        raise UserError("loss.reduction=token, loss.length_normalized=true: both divide by tokens; leave out one")
    for key, adapter in (
        ("lora.init_from", recipe.lora.init_from),
        ("model.merge_adapter", recipe.model.merge_adapter),
    ):
        if adapter and realpath(adapter) == realpath(Path(recipe.output, "adapter")):
            raise UserError(f"{key}={adapter}: this run would overwrite it; choose another output")
    if not recipe.lora.target_modules:
        raise UserError("lora.target_modules: none given; the official code's are [q_proj, v_proj]")
