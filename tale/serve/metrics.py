"""What is measured while the proxy runs: metrics for Prometheus, and the figures of its page."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as Total

from tale.serve.log import RequestRow
from tale.serve.saving import Moments, relative_saving

SHOWN, TIMED = 20, 1000  # last requests on the page, and those whose latency it shows
# Of the page's list: nothing that a client has written.
COLUMNS = ("time", "arm", "outcome", "status", "source", "reason", "asked", "limit", "used", "first_byte", "seconds")
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


@dataclass
class Metrics:
    """The figures since the proxy's start."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    arms: Counter = field(default_factory=Counter)
    outcomes: Counter = field(default_factory=Counter)
    asked: int = 0
    used: int = 0
    estimator_tokens: int = 0
    spent: dict[str, Moments] = field(default_factory=dict)
    first_bytes: deque[float] = field(default_factory=lambda: deque(maxlen=TIMED))
    last: deque[RequestRow] = field(default_factory=lambda: deque(maxlen=SHOWN))

    def __post_init__(self) -> None:
        r = self.registry
        self.requests = Total("tale_requests", "Requests", ["arm", "outcome", "status"], registry=r)
        self.unchanged = Total("tale_unchanged", "Requests passed unchanged", ["reason"], registry=r)
        self.tokens = Total("tale_tokens", "Output tokens: asked, used, of the estimator", ["arm", "of"], registry=r)
        self.fired = Total("tale_limits_fired", "Answers that the proxy's limit has cut", registry=r)
        self.retried = Total("tale_empty_retried", "Answers asked again without a budget", registry=r)
        self.log_errors = Total("tale_log_errors", "Requests that could not be logged", registry=r)
        self.first_byte = Histogram("tale_first_byte_seconds", "To the first byte", buckets=SECONDS, registry=r)
        self.duration = Histogram("tale_request_seconds", "To the last byte", buckets=SECONDS, registry=r)
        self.in_flight = Gauge("tale_requests_in_flight", "Requests in flight", registry=r)

    def note(self, row: RequestRow) -> None:
        """Count a request that has ended."""
        self.arms[row.arm] += 1
        self.outcomes[row.outcome] += 1
        self.last.appendleft(row)
        self.requests.labels(row.arm, row.outcome, str(row.status or "")).inc()
        if row.arm == "unchanged" or row.reason:
            self.unchanged.labels(row.reason or "").inc()
        for name, tokens in (("asked", row.asked), ("used", row.used), ("estimator", row.estimator_tokens)):
            if tokens:
                self.tokens.labels(row.arm, name).inc(tokens)
        self.fired.inc(row.limit_fired)
        self.retried.inc(row.retried)
        self.duration.observe(row.seconds)
        if row.first_byte is not None:
            self.first_byte.observe(row.first_byte)
            self.first_bytes.append(row.first_byte)
        self.estimator_tokens += row.estimator_tokens
        if row.counts:
            self.spent.setdefault(row.arm, Moments()).add(row.spent)
            if row.arm == "budget" and row.asked:
                self.asked += row.asked
                self.used += row.used or 0

    def snapshot(self) -> dict[str, Any]:
        """What the page shows."""
        treated, control = (self.spent.get(arm, Moments()) for arm in ("budget", "control"))
        share, low, high = relative_saving(treated, control)
        times = sorted(self.first_bytes)
        return {
            "arms": dict(self.arms),
            "outcomes": dict(self.outcomes),
            "asked": self.asked,
            "used": self.used,
            "estimator_tokens": self.estimator_tokens,
            "compared": {"budget": asdict(treated), "control": asdict(control)},
            "saved": {"share": share, "low": low, "high": high},
            "saved_tokens": share and round(share * control.mean * treated.count),
            "first_byte": {name: times[int(len(times) * at)] for name, at in (("median", 0.5), ("p99", 0.99)) if times},
            "last": [{name: getattr(row, name) for name in COLUMNS} for row in self.last],
        }
