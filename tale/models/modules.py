"""LightningModules around a causal LM with adapters: `SFTModule`, `DPOModule` and `GRPOModule`.

A step returns *sums* over its examples, never means: the loop divides them by the denominator of the global batch, so
that neither accumulation nor the number of devices changes the loss or its gradient. Shapes: A answers, N target
tokens, T positions, H hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from lightning import LightningModule
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from tale.config.training import GRPOConfig, LossConfig, Objective, OptimizerConfig, TrainRecipe
from tale.data.examples import Batch
from tale.hardware.malloc import limit_freed_memory
from tale.losses import dpo_margin, grpo_loss, kl_to_reference, preference_loss, sft_loss, target_logprobs
from tale.models import attention
from tale.models.lora import add_lora
from tale.models.optimizers import make_optimizer

SATURATED_NATS = 10.0


class CausalLMModule(LightningModule):
    """The model, its optimizer, and log-probabilities of a batch's answers.

    `divisors` has the metrics that are not means over examples: by name, the sum by which theirs is divided.
    """

    divisors: ClassVar[Mapping[str, str]] = {"loss": "denominator"}

    def __init__(self, model: PeftModel, loss: LossConfig, optimizer: OptimizerConfig):
        super().__init__()
        self.model, self.loss, self.optimizer_config = model, loss, optimizer
        self.loaded_attention = self.base.config._attn_implementation
        self.base.set_attn_implementation(attention.NAME)

    @property
    def base(self) -> PreTrainedModel:
        """The base model, without PEFT's wrapper."""
        return cast(PreTrainedModel, self.model.get_base_model())

    def logprobs(self, batch: Batch) -> Tensor:
        """Summed log-probability of each answer, shape [A]."""
        logprobs_N = self.token_logprobs(batch)
        return logprobs_N.new_zeros(len(batch.lengths)).index_add(0, batch.answers, logprobs_N)

    def token_logprobs(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """Log-probability of each target token, shape [N]; the head runs only at the target positions."""
        decoder, head = self.base.get_decoder(), self.base.get_output_embeddings()
        hidden_1TH = decoder(
            input_ids=batch.input_ids[None], position_ids=batch.position_ids[None], layout=batch.layout, use_cache=False
        ).last_hidden_state
        hidden_NH = hidden_1TH[0, batch.sources]
        return target_logprobs(hidden_NH, head.weight, batch.targets, temperature=temperature)

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

    def score(self, metrics: Mapping[str, float]) -> float:
        """How good a validation is, by its metrics, for early stopping: the greater, the better."""
        return -metrics["loss"]

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


class GRPOModule(CausalLMModule):
    """Raise the log-probability of answers with more reward than their group's mean, and lower that of the others.

    Examples are answers. The metrics of rollouts are a batch's own sums (`tale.training.rollouts`).
    """

    divisors: ClassVar[Mapping[str, str]] = {
        **CausalLMModule.divisors,
        **dict.fromkeys(("entropy", "logprob_gap", "kl", "clipped"), "target_tokens"),
        "right_tokens": "right",
        "wrong_tokens": "wrong",
        "groups_without_spread": "groups",
        "unanswered": "asked",
        "rollout_tokens_per_second": "rollout_seconds",
    }

    def __init__(self, model: PeftModel, loss: LossConfig, optimizer: OptimizerConfig, grpo: GRPOConfig):
        super().__init__(model, loss, optimizer)
        self.grpo = grpo

    def loss_denominator(self, batch: Batch) -> int:
        """Answers × the most tokens of one: a constant, so that no answer's weight depends on its length."""
        return batch.examples * self.grpo.max_completion_length

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, and of its tokens −log π, an estimate of the entropy, and how far it is from when it was sampled."""
        config = self.grpo
        logprobs_N = self.token_logprobs(batch, config.temperature)
        advantages_N = batch.advantages[batch.answers]
        repeated = config.num_iterations > 1
        loss = grpo_loss(
            logprobs_N,
            advantages_N,
            sampling_logprobs=batch.logprobs,
            epsilon=config.epsilon if repeated else None,
            cap=config.importance_sampling_clip_max,
        )
        change_N = logprobs_N.detach() - batch.logprobs
        sums = {"entropy": -logprobs_N.detach().sum(), "logprob_gap": change_N.abs().sum()}
        if repeated:
            # A ratio beyond 1 ± ε is clipped only on the side where the objective would still gain (`grpo_loss`).
            sums["clipped"] = ((change_N.exp() - 1) * advantages_N.sign() > config.epsilon).sum()
        if config.beta:
            kl_N = kl_to_reference(logprobs_N, self._ref_logprobs(batch))
            loss, sums["kl"] = loss + config.beta * kl_N.sum(), kl_N.detach().sum()
        return {"loss": loss, **sums}

    def validation_step(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing: all metrics of a validation are its rollouts'."""
        return {}

    def score(self, metrics: Mapping[str, float]) -> float:
        """The share of held-out answers that are right within the length asked for."""
        return metrics["accuracy_at_length"]

    def _ref_logprobs(self, batch: Batch) -> Tensor:
        with torch.no_grad(), self.model.disable_adapter():
            return self.token_logprobs(batch, self.grpo.temperature)


def build_module(recipe: TrainRecipe, model, base_name: str) -> CausalLMModule:
    """The LightningModule of a recipe around a loaded (or meta-device) causal LM."""
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    common = add_lora(model, recipe.lora, base_name), recipe.loss, recipe.optimizer
    module: CausalLMModule
    if recipe.objective is Objective.grpo:
        module = GRPOModule(*common, recipe.grpo)
    else:
        module = (SFTModule if recipe.objective is Objective.sft else DPOModule)(*common)
    for layer in module.base.get_decoder().layers:
        if recipe.train.torch_compile:
            layer.compile(dynamic=True)  # all layers share one graph, for batches of any length
        elif model.device.type == "cpu":
            layer.register_forward_pre_hook(lambda *_: limit_freed_memory())
    return module
