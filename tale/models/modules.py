"""LightningModules around a causal LM with adapters: `SFTModule` and `DPOModule`.

A step returns *sums* over its examples, never means: the loop divides them by the denominator of the global batch, so
that neither accumulation nor the number of devices changes the loss or its gradient. Shapes: A answers, N target
tokens, T positions, H hidden width.
"""

from __future__ import annotations

from typing import cast

import torch
from lightning import LightningModule
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from tale.config.training import LossConfig, Objective, OptimizerConfig, TrainRecipe
from tale.data.examples import Batch
from tale.losses import dpo_margin, preference_loss, sft_loss, target_logprobs
from tale.models import attention
from tale.models.lora import add_lora
from tale.models.optimizers import make_optimizer

SATURATED_NATS = 10.0


class CausalLMModule(LightningModule):
    """The model, its optimizer, and log-probabilities of a batch's answers."""

    def __init__(self, model: PeftModel, loss: LossConfig, optimizer: OptimizerConfig):
        super().__init__()
        self.model, self.loss, self.optimizer_config = model, loss, optimizer
        self.base.set_attn_implementation(attention.NAME)

    @property
    def base(self) -> PreTrainedModel:
        """The base model, without PEFT's wrapper."""
        return cast(PreTrainedModel, self.model.get_base_model())

    def logprobs(self, batch: Batch) -> Tensor:
        """Summed log-probability of each answer, shape [A]; the head runs only at the target positions."""
        decoder, head = self.base.get_decoder(), self.base.get_output_embeddings()
        hidden_1TH = decoder(
            input_ids=batch.input_ids[None], position_ids=batch.position_ids[None], layout=batch.layout, use_cache=False
        ).last_hidden_state
        logprobs_N = target_logprobs(hidden_1TH[0, batch.sources], head.weight, batch.targets)
        return logprobs_N.new_zeros(len(batch.lengths)).index_add(0, batch.answers, logprobs_N)

    def loss_denominator(self, batch: Batch) -> int:
        """This batch's part of the loss's denominator."""
        return batch.examples

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over the batch's examples: `loss`, and all other logged metrics."""
        raise NotImplementedError

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """The sums of `step`; `loss` has a gradient."""
        return self.step(batch)

    def validation_step(self, batch: Batch) -> dict[str, Tensor]:
        """The sums of `step` for a validation batch."""
        return self.step(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's optimizer for the adapters."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return make_optimizer(trained, self.optimizer_config)


class SFTModule(CausalLMModule):
    """Maximise the log-probability of the searched target (§5.3, L_CE)."""

    def loss_denominator(self, batch: Batch) -> int:
        """Examples (the paper's mean), or target tokens."""
        return batch.target_tokens if self.loss.reduction == "token" else batch.examples

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`: summed over examples and their tokens, or over the examples' means."""
        return {"loss": sft_loss(self.logprobs(batch), batch.lengths if self.loss.length_normalized else None)}


class DPOModule(CausalLMModule):
    """Prefer the searched target over the vanilla answer (§5.3, L_DPO). A batch has all chosen, then all rejected."""

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, and of the pairs the margin, its sign and saturation, and both sides' log-probability and tokens."""
        chosen, rejected = self.logprobs(batch).chunk(2)
        lengths = batch.lengths.chunk(2)
        margin = dpo_margin(
            chosen,
            rejected,
            ref_logprobs=self._ref_logprobs(batch) if self.loss.use_ref_model else None,
            lengths=lengths if self.loss.length_normalized else None,
            beta=self.loss.beta,
        )
        return {
            "loss": preference_loss(margin),
            "margin": margin.detach().sum(),
            "accuracy": (margin.detach() > 0).sum(),
            "saturated": (margin.detach() > SATURATED_NATS).sum(),
            "chosen_logprob": chosen.detach().sum(),
            "rejected_logprob": rejected.detach().sum(),
            "chosen_tokens": lengths[0].sum(),
            "rejected_tokens": lengths[1].sum(),
        }

    def _ref_logprobs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), self.model.disable_adapter():
            chosen, rejected = self.logprobs(batch).chunk(2)
        return chosen, rejected


def build_module(recipe: TrainRecipe, model, base_name: str) -> CausalLMModule:
    """The LightningModule of a recipe around a loaded (or meta-device) causal LM."""
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    kind = SFTModule if recipe.objective is Objective.sft else DPOModule
    module = kind(add_lora(model, recipe.lora, base_name), recipe.loss, recipe.optimizer)
    if recipe.train.torch_compile:
        for layer in module.base.get_decoder().layers:
            layer.compile(dynamic=True)  # all layers share one graph, for batches of any length
    return module
