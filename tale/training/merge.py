"""Merging an adapter into its base, as a plain model."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import realpath
from pathlib import Path

from tale.config.fields import Recipe, opt, section
from tale.config.sections import ModelConfig
from tale.errors import UserError
from tale.models.adapters import check_adapter
from tale.models.base import resolve
from tale.runs.run import start_run
from tale.storage.files import atomic_folder
from tale.storage.folder import LOCK, locked
from tale.text import log_info


@dataclass
class MergeRecipe(Recipe):
    """Merge an adapter into its base and write a plain model that transformers, vLLM or another recipe can load."""

    source = "adapter"

    output: str = opt("new folder for the merged model")
    adapter: str = opt("folder of the adapter to merge")
    model: ModelConfig = section(ModelConfig)


def merge(recipe: MergeRecipe) -> Path:
    """Merge `recipe.adapter` into the base's weights (in float32, rounded once) and write model and tokenizer.

    An adapter that was trained on a quantised base is merged into the checkpoint's unquantised weights.

    Raises:
        UserError: the adapter is of another base, or the folder is not empty or cannot be written.
    """
    base = resolve(recipe.model)
    adapter, into = Path(recipe.adapter), Path(recipe.output)
    check_adapter(adapter, base)
    with locked(into):
        if any(file.name != LOCK for file in into.iterdir()):
            raise UserError(f"output: {into} exists; give a new folder")
        model, tokenizer = base.merged(adapter), base.chat().tokenizer
        with atomic_folder(Path(realpath(into)) if into.is_symlink() else into) as draft:
            start_run(recipe, draft, reads=[recipe.adapter], base=base.identity)
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            (
                into / LOCK
            ).unlink()  # the folder is replaced only if empty, not if another process has started to write to it
    log_info(f"merged model: {into}")
    return into
