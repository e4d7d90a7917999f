"""What each measure in a training step buys: the step as it is, and without one measure, or with one option more.

    python benchmarks/training_ablations.py 'data.records=[runs/gsm8k_zero/search/records.jsonl]'
    python benchmarks/training_ablations.py … rounds=3 steps=4 cases=sft,dpo variants=whole_head,padded

- `whole_head`: logits of every position at once, through transformers' own forward, where the code has those of target
  positions alone, in chunks. Still packed.
- `padded`: rows padded on the right with an attention mask, through transformers' own decoder and attention, where the
  code packs without padding. The head is as it is. Neighbours in length share a micro-batch, which is the least padding
  that a step's examples allow; as the longest then stand together, its peak is that of their micro-batch. A pair is
  two rows, so for DPO this is to be compared with `unshared`.
- `unshared` (DPO): each pair as two packed sequences, its prompt twice.
- `kernel`: all attention by torch's kernel, where the code has products for short sequences in bfloat16.
- `bfloat16`: model.dtype=bfloat16, with the precision that a recipe has with it.
- `compiled`: train.torch_compile=true.

Fair, because all variants train the same model with the same initial adapter on the same token ids in the same order,
16 examples a step in micro-batches of the same size, with the loop, the losses and the optimizer of this code, and
nothing but the one measure differs. That they compute the same is seen in the table: the losses of all steps, and of
DPO the mean margins, are compared with those of the code as it is, and differ by rounding, which in bfloat16 is coarse.
(A margin tells more: where all pairs are far apart, the paper's loss is 0 whatever else is wrong.)

Each measurement is a separate process, so that its peak memory is separate too, and its first step does not count (it
compiles, where that is asked for). All variants take turns for `rounds` rounds, whose medians count.

Prints a table a case: seconds a step, peak memory, both as multiples of the code as it is, and how far apart losses and
margins are; writes them to runs/benchmarks.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from report import publish
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from training_steps import CASES, NO_MEMORY, RESULTS, apart, child, measure, ours, prepared
from words import named, options

from tale.cli import guarded
from tale.data.examples import Batch, Example, micro_batches, pack
from tale.data.layout import Layout
from tale.losses import target_logprobs
from tale.models import attention
from tale.models.modules import CausalLMModule
from tale.output.formats import written
from tale.output.tables import Column, table_of

# Shape suffixes: A answers, N target tokens, T positions of the packed row, R rows of L, H hidden width, V vocabulary.


def whole_head(module: CausalLMModule, batch: Batch) -> Tensor:
    """Each answer's log-probability, shape [A], from the logits of every position."""
    model = module.model.get_base_model()
    logits_1TV = model(
        input_ids=batch.input_ids[None], position_ids=batch.position_ids[None], layout=batch.layout, use_cache=False
    ).logits
    return summed(logits_1TV[0].float().log_softmax(dim=-1)[batch.sources, batch.targets], batch)


def padded(module: CausalLMModule, batch: Batch) -> Tensor:
    """The same from a row a sequence, padded on the right, with a mask."""
    model = module.model.get_base_model()
    rows = unpacked(batch).input_ids.split(batch.layout.lengths)
    ids_RL = pad_sequence(list(rows), batch_first=True)
    mask_RL = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    hidden_RLH = model.get_decoder()(input_ids=ids_RL, attention_mask=mask_RL, use_cache=False).last_hidden_state
    hidden_NH = hidden_RLH[sequences(batch), batch.position_ids[batch.sources]]
    return summed(target_logprobs(hidden_NH, model.get_output_embeddings().weight, batch.targets), batch)


def unshared(module: CausalLMModule, batch: Batch) -> Tensor:
    """The same from the code's own forward, of a row in which no prompt is shared."""
    return CausalLMModule.logprobs(module, unpacked(batch))


def kernel(module: CausalLMModule, batch: Batch) -> Tensor:
    """The same from the code's own forward, with torch's attention alone."""
    with attention.fused_attention_only():
        return CausalLMModule.logprobs(module, batch)


def summed(logprobs_N: Tensor, batch: Batch) -> Tensor:
    """Over each answer's tokens."""
    return logprobs_N.new_zeros(len(batch.lengths)).index_add(0, batch.answers, logprobs_N)


def unpacked(batch: Batch) -> Batch:
    """The batch with its sequences one after the other, each with its own prompt."""
    lengths = batch.layout.lengths
    order = slice(None) if batch.layout.order_S is None else batch.layout.order_S
    begins = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    return dataclasses.replace(
        batch,
        input_ids=batch.input_ids[order],
        position_ids=batch.position_ids[order],
        layout=Layout(lengths),
        sources=begins[sequences(batch)] + batch.position_ids[batch.sources],
    )


def sequences(batch: Batch) -> Tensor:
    """The sequence of each target token, shape [N]: answers go side by side, sequences example by example."""
    sides = len(batch.lengths) // batch.examples
    return batch.answers % batch.examples * sides + batch.answers // batch.examples


def neighbours(examples: list[Example], size: int) -> list[Batch]:
    """Micro-batches of examples of similar length."""
    ordered = sorted(examples, key=lambda example: example.length)
    return [pack(ordered[i : i + size]) for i in range(0, len(ordered), size)]


@dataclass(frozen=True)
class Variant:
    """Keys of the recipe, and what stands in place of the code's own forward, dealing out and attention."""

    words: tuple[str, ...] = ()
    logprobs: Callable[[CausalLMModule, Batch], Tensor] = CausalLMModule.logprobs
    deal: Callable[[list[Example], int], list[Batch]] = micro_batches
    attention: str = attention.NAME

    def put_in(self, module: CausalLMModule) -> None:
        """Change a module; the steps of both objectives go through its `logprobs`."""
        module.model.get_base_model().set_attn_implementation(self.attention)
        module.logprobs = partial(self.logprobs, module)


AS_IT_IS = "as_it_is"
VARIANTS = {
    AS_IT_IS: Variant(),
    "whole_head": Variant(logprobs=whole_head),
    "padded": Variant(logprobs=padded, deal=neighbours, attention="sdpa"),
    "unshared": Variant(logprobs=unshared),
    "kernel": Variant(logprobs=kernel),
    "bfloat16": Variant(words=("model.dtype=bfloat16", "fabric.precision=bf16-mixed")),
    "compiled": Variant(words=("train.torch_compile=true",)),
}


def main() -> None:
    own, words = options({"rounds": "3", "steps": "4", "cases": "sft,dpo", "variants": ",".join(VARIANTS)})
    cases, wanted = named(own["cases"], CASES, "cases"), named(own["variants"], VARIANTS, "variants")
    report: dict[str, Any] = {"steps": int(own["steps"]), "rounds": int(own["rounds"]), "arguments": words}
    for case in cases:
        variants = [name for name in VARIANTS if name in (AS_IT_IS, *wanted)]
        if case == "sft" and "unshared" in variants:  # it has no pairs
            variants.remove("unshared")
        report[case] = compare(case, variants, int(own["rounds"]), own["steps"], words)
        show_case(case, report[case])
    print(publish("training_ablations", report))


def compare(case: str, variants: list[str], rounds: int, steps: str, words: list[str]) -> dict[str, Any]:
    """Figures of each variant, from rounds in which they take turns; None where there was not the memory."""
    turns = [name for _ in range(rounds) for name in variants]
    runs: dict[str, list[dict[str, Any] | None]] = {name: [] for name in variants}
    for name in tqdm(turns, desc=case):
        runs[name].append(child(__file__, name, case, steps, *words))
    if None in runs[AS_IT_IS]:
        raise SystemExit("not even the code as it is has the memory; train.micro_batch_size=1 takes less")
    return {name: None if None in runs[name] else figures(runs[name], runs[AS_IT_IS]) for name in variants}


def figures(runs: list[dict[str, Any]], as_it_is: list[dict[str, Any]]) -> dict[str, Any]:
    """A variant's medians, beside those of the code as it is."""
    seconds, usual = (median(s for run in of for s in run["seconds"]) for of in (runs, as_it_is))
    memory, usual_memory = (median(run["peak_gb"] for run in of) for of in (runs, as_it_is))
    results = [name for name in RESULTS if name in runs[0]]
    return {
        "seconds a step": round(seconds, 2),
        "times the seconds": round(seconds / usual, 2),
        "peak GB": round(memory, 2),
        "times the memory": round(memory / usual_memory, 2),
        **{f"largest difference of {name}": apart(runs[0][name], as_it_is[0][name]) for name in results},
        "results": {name: runs[0][name] for name in results},
    }


def show_case(case: str, rows: dict[str, Any]) -> None:
    """The table of a case."""
    results = rows[AS_IT_IS]["results"].items()
    steps = "; ".join(f"{name} {', '.join(f'{value:.4g}' for value in values)}" for name, values in results)
    first, *others = (name for name in rows[AS_IT_IS] if name != "results")
    columns = {"variant": Column("variant"), first: Column(first, written(".3g"), empty=NO_MEMORY)}
    columns |= {name: Column(name, written(".3g")) for name in others}
    cells = [{"variant": name, **(row or {})} for name, row in rows.items()]
    table_of(case, f"{case}: {steps}", columns, cells).show()


def one_variant(name: str, case: str, steps: str, *words: str) -> None:
    """Train a few steps and print their figures."""
    variant = VARIANTS[name]
    recipe, module, data = prepared(case, [*words, *variant.words])
    variant.put_in(module)
    print(json.dumps(measure(lambda: ours(recipe, module, data, int(steps) + 1, variant.deal))))


if __name__ == "__main__":
    guarded(lambda: one_variant(*sys.argv[2:]) if sys.argv[1:2] == ["--side"] else main(), __doc__)
