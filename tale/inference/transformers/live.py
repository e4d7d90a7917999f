"""Generating with a model in training: its own weights, in the form of the engine and then of training again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from tale.data.chat import Chat
from tale.hardware.malloc import release_freed_memory
from tale.inference.transformers.engine import TransformersEngine
from tale.inference.transformers.linear import unpack_linear


@contextmanager
def live_engine(
    model: PreTrainedModel, chat: Chat, batch_size: int, prefix_cache_gb: float, attention: str
) -> Iterator[TransformersEngine]:
    """An engine of `model` as it is now, without dropout; afterwards the model trains as before.

    No weight is copied: on a CPU frozen linear layers are repacked one by one, and back. `attention` is transformers'
    name of the implementation that the model was loaded with. The prefix cache is new, as keys and values of an earlier
    policy are not this one's.
    """
    # A trained layer is told from a frozen one, which is replaced, by its gradient.
    assert any(parameter.requires_grad for parameter in model.parameters())
    in_training, generation = model.config._attn_implementation, model.generation_config
    trains = {module: module.training for module in model.modules()}
    model.set_attn_implementation(attention)
    release_freed_memory()
    try:
        device = str(model.device)
        yield TransformersEngine(model, chat, batch_size, device, prefix_cache_gb=prefix_cache_gb, in_training=True)
    finally:
        unpack_linear(model)
        model.set_attn_implementation(in_training)
        model.generation_config = generation
        for module, training in trains.items():
            module.training = training
        release_freed_memory()
