"""Checkpoints: adapter, optimizer, schedule and step, written atomically, refused under another recipe or data.

One file, the same under every strategy and on any number of devices; it begins with a hash of the rest, so that an
altered file is detected. The random state is not stored: dropout and data order are functions of (seed, step, rank) and
(seed, step), see `tale.training.loop`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Fabric
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tale.config.recipes import to_yaml
from tale.config.training import Objective, TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.errors import UserError
from tale.models.adapters import adapter_fingerprint
from tale.models.modules import CausalLMModule
from tale.models.optimizers import make_optimizer
from tale.models.tensors import first_difference
from tale.storage.files import explain_write_errors, remove, write_atomic
from tale.training.sharding import full_tensor, sharded_like

KEEP = 2
PARTS = {"step", "fingerprint", "module", "optimizer", "scheduler", "scores"}
HASH = hashlib.sha256().digest_size
REMEDY = "delete it to resume from the previous one"


def fingerprint(recipe: TrainRecipe, base: dict[str, str], data: TaleDataModule, world_size: int) -> dict[str, str]:
    """The settings that must be the same in a checkpoint and in the run that resumes it.

    The number of devices is included only if the result depends on it: with dropout, which each device samples for its
    examples, or if a last step has fewer examples than devices.
    """
    golds = [question.gold for question in data.questions] if recipe.objective is Objective.grpo else []
    ids = repr([(e.prompt, e.answers) for e in data.train] + golds).encode()
    read = ("loss", "lora", "optimizer", "train", *(("grpo", "engine") if golds else ()))
    sections = {name: to_yaml(getattr(recipe, name)) for name in read}
    drawn = {"number of devices (each draws its own dropout)": str(world_size)} if recipe.lora.lora_dropout else {}
    begun = recipe.lora.init_from
    return {
        **sections,
        "objective": recipe.objective.value,
        "precision": f"{recipe.model.dtype.value} {recipe.model.quantization} {recipe.fabric.precision}",
        "model": f"{base['name']} {base['weights']}",
        "data": hashlib.sha256(ids).hexdigest()[:16],
        "number of steps": str(data.total_steps(world_size)),
        **drawn,
        **({"adapter at lora.init_from": adapter_fingerprint(Path(begun))} if begun else {}),
    }


def save(
    fabric: Fabric,
    folder: Path,
    step: int,
    identity: dict[str, str],
    module: CausalLMModule,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    scores: Sequence[float] = (),
) -> None:
    """Write `step-<n>.ckpt` with the trained parameters only, then remove all but the latest two.

    `scores` are those of the validations so far.

    The log is flushed first: a run that resumes from here does not log these steps again.
    """
    state = optimizer.state_dict()
    state["state"] = {i: {k: full_tensor(v) for k, v in values.items()} for i, values in state["state"].items()}
    content = {
        "step": step,
        "fingerprint": identity,
        "module": trained_state_dict(module),
        "optimizer": state,
        "scheduler": scheduler.state_dict(),
        "scores": list(scores),
    }
    if fabric.is_global_zero:
        for logger in fabric.loggers:
            with explain_write_errors(folder.parent):
                logger.experiment.flush()  # type: ignore[attr-defined]  # TensorBoard's has it
        stream = io.BytesIO()
        torch.save(content, stream)
        write_atomic(folder / f"step-{step:06d}.ckpt", hashlib.sha256(stream.getvalue()).digest() + stream.getvalue())
        for old in [*_all(folder)[:-KEEP], *_drafts(folder)]:
            old.unlink()
    fabric.barrier()


def load(file: Path, module: CausalLMModule, optimizer: Optimizer, scheduler: LambdaLR) -> list[float]:
    """Load a checkpoint, which may have been written under another strategy or on another number of devices.

    Returns the scores of the validations before it.

    Raises:
        UserError: its content does not fit this module, optimizer and schedule at its step.
    """
    saved, parameters = read(file), _trained_parameters(module)
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    wanted = make_optimizer([torch.nn.Parameter(torch.zeros_like(p)) for p in ordered], module.optimizer_config)
    if wrong := (
        first_difference(saved["module"], parameters, same_dtype=True)
        or first_difference(_flat(saved["optimizer"]["state"]), _flat(_stepped(wanted)), same_dtype=True)
        or _other_schedule(saved, optimizer, scheduler)
    ):
        raise UserError(f"{file}: {wrong}; {REMEDY}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(sharded_like(parameter, saved["module"][name]))
    for i, values in saved["optimizer"]["state"].items():
        saved["optimizer"]["state"][i] = {k: sharded_like(ordered[i], v) for k, v in values.items()}
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    return [float(score) for score in saved["scores"]]


def trained_state_dict(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trained parameters in full, on the CPU; every rank must call this."""
    return {name: full_tensor(parameter) for name, parameter in _trained_parameters(module).items()}


def latest(folder: Path) -> Path | None:
    """The latest checkpoint, from which a run resumes, if any."""
    return _all(folder)[-1] if _all(folder) else None


def oldest(folder: Path) -> Path | None:
    """The earliest checkpoint that is kept, if any."""
    return _all(folder)[0] if _all(folder) else None


def step_of(file: Path | None) -> int:
    """The number of steps done when it was written; 0 without a checkpoint."""
    return int(file.stem.removeprefix("step-")) if file else 0


def check(file: Path, identity: dict[str, str]) -> None:
    """Refuse to resume from the checkpoint of another run.

    Raises:
        UserError: it cannot be read, or is of another recipe, model or data set.
    """
    content = read(file)
    saved = content["fingerprint"]
    if changed := [key for key in {**saved, **identity} if saved.get(key) != identity.get(key)]:
        raise UserError(f"{file}: written with another {', '.join(changed)}; use another output folder, or resume=null")
    if content["step"] != step_of(file):
        raise UserError(f"{file}: is of step {content['step']}; {REMEDY}")


def clear(folder: Path) -> None:
    """Remove the checkpoints of an earlier run from the folder, which is created if missing.

    Raises:
        UserError: the folder cannot be written.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in [*_all(folder), *_drafts(folder)]:
            remove(file)


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        UserError: it cannot be read, or was altered.
    """
    try:
        content = file.read_bytes()
        known, content = content[:HASH], content[HASH:]
        if known != hashlib.sha256(content).digest():
            raise ValueError("its hash differs")
        held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(held, dict) or held.keys() != PARTS:
            raise ValueError("its content is not a checkpoint's")
        return held
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{file}: damaged ({reason}); {REMEDY}") from error


def _stepped(optimizer: Optimizer) -> dict[str, Any]:
    """The state of an optimizer after a step with a gradient of 0."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer.state_dict()["state"]


def _flat(value: Any, name: str = "optimizer") -> dict[str, torch.Tensor]:
    """An optimizer's state as a flat dict (bitsandbytes nests it), with numbers as tensors."""
    if isinstance(value, dict):
        return {inner: tensor for key, held in value.items() for inner, tensor in _flat(held, f"{name} {key}").items()}
    return {name: value if isinstance(value, torch.Tensor) else torch.tensor(value)}


def _other_schedule(saved: dict[str, Any], optimizer: Optimizer, scheduler: LambdaLR) -> str | None:
    """What differs in a checkpoint's learning rates, settings and step counts; None if nothing does."""
    step, rates = saved["step"], scheduler.base_lrs
    now = [rate * factor(step) for rate, factor in zip(rates, scheduler.lr_lambdas, strict=True)]
    groups = [group | {"lr": rate} for group, rate in zip(optimizer.state_dict()["param_groups"], now, strict=True)]
    if saved["optimizer"]["param_groups"] != groups:
        return "its optimizer has other settings"
    if any(int(held["step"]) != step for held in saved["optimizer"]["state"].values()):
        return f"its optimizer has not done {step} steps"
    theirs, mine = saved["scheduler"], scheduler.state_dict()
    if theirs.keys() != mine.keys() or (theirs["last_epoch"], theirs["base_lrs"], theirs["_last_lr"]) != (
        step,
        rates,
        now,
    ):
        return f"its schedule is not at step {step}"
    return None


def _trained_parameters(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _all(folder: Path) -> list[Path]:
    return sorted((file for file in folder.glob("step-*.ckpt") if file.stem[5:].isdecimal()), key=step_of)


def _drafts(folder: Path) -> list[Path]:
    """Incomplete checkpoints of killed processes."""
    return sorted(folder.glob(".step-*.tmp"))
