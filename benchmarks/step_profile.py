"""Where the processor time of a step goes, by kinds of operators."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

# The first that fits; attention before products, for it has some in its name. Sums along rows are with elementwise: as
# the norms' and the softmax's, they read each number once, too.
KINDS = {
    "attention": r"attention",
    "matrix products": r"aten::(\w*mm|\w*matmul|\w*linear|dot|mv)$",
    "copies and concatenations": r"aten::(\w*copy_?|cat|clone|contiguous|index\w*|\w*index_put\w*|gather|scatter\w*"
    r"|embedding\w*|fill_|zero_|zeros\w*|ones\w*|new_zeros|repeat_interleave|slice_backward|select_backward|stack)$",
    "elementwise": r"aten::(_foreach_\w+|_fused_\w+|add|sub|rsub|mul|div|neg|silu|silu_backward|pow|rsqrt|exp|log"
    r"|log_sigmoid\w*|sigmoid|cos|sin|addcmul|addcdiv|sqrt|where|clamp\w*|reciprocal|lerp|sum|mean|amax|isfinite"
    r"|linalg_vector_norm|\w*softmax\w*|eq|ne|gt|lt|le|ge|abs|maximum)_?$",
}


def kind(operator: str) -> str:
    """The kind of an operator, by its name in the profile; "rest": views, autograd's nodes, allocation."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operator)), "rest")


def shares(step: Callable[[], object]) -> dict[str, float]:
    """Run `step` once; the share of each kind in the operators' own processor time, as torch's profiler has it."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    times: Counter[str] = Counter()
    for event in profiled.key_averages():
        times[kind(event.key)] += event.self_cpu_time_total
    return {name: times[name] / times.total() for name in (*KINDS, "rest")}
