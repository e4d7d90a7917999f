"""Write a base with an adapter folded in as a plain model."""

from __future__ import annotations

import shutil
from pathlib import Path

from tale.config import MergeRecipe
from tale.errors import UserError
from tale.models.base import resolve
from tale.models.lora import check_adapter


def merge(recipe: MergeRecipe) -> Path:
    """Fold `recipe.adapter` into the base's weights (in float32, rounded once) and write model and tokenizer.

    Also an adapter that was trained on a quantised base: what is written is the checkpoint's own weights and it.

    Raises:
        UserError: the adapter belongs to another base, or the folder is taken.
    """
    base = resolve(recipe.model)
    adapter, into = Path(recipe.adapter), Path(recipe.output)
    check_adapter(adapter, base)
    if into.exists():
        raise UserError(f"output: {into} exists; give a new folder")
    draft = into.with_name(f".{into.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    base.merged(adapter).save_pretrained(draft)
    base.chat().tokenizer.save_pretrained(draft)
    draft.rename(into)
    print(f"merged model: {into}")
    return into
