"""Write a base with an adapter folded in as a plain model."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import realpath
from pathlib import Path

from tale.config.fields import Recipe, group, opt
from tale.config.sections import ModelConfig
from tale.errors import UserError
from tale.models.adapters import check_adapter
from tale.models.base import resolve
from tale.runs.run import start_run
from tale.storage.files import new_folder
from tale.storage.folder import LOCK, held
from tale.text import say


@dataclass
class MergeRecipe(Recipe):
    """Fold an adapter into its base and write a plain model that transformers, vLLM or another recipe can load."""

    source = "adapter"

    output: str = opt("new folder for the merged model")
    adapter: str = opt("adapter folder")
    model: ModelConfig = group(ModelConfig)


def merge(recipe: MergeRecipe) -> Path:
    """Fold `recipe.adapter` into the base's weights (in float32, rounded once) and write model and tokenizer.

    Also an adapter that was trained on a quantised base: what is written is the checkpoint's own weights and it.

    Raises:
        UserError: the adapter belongs to another base, or the folder is taken or cannot be written.
    """
    base = resolve(recipe.model)
    adapter, into = Path(recipe.adapter), Path(recipe.output)
    check_adapter(adapter, base)
    with held(into):
        if any(file.name != LOCK for file in into.iterdir()):
            raise UserError(f"output: {into} exists; give a new folder")
        model, tokenizer = base.merged(adapter), base.chat().tokenizer
        with new_folder(Path(realpath(into)) if into.is_symlink() else into) as draft:
            start_run(recipe, draft, reads=[recipe.adapter], base=base.identity)
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            (into / LOCK).unlink()  # an empty folder is replaced, not one that another process has begun to write
    say(f"merged model: {into}")
    return into
