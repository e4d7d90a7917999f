"""The recipe of the proxy."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, budget_line_option, opt, section, seed_option

PASS, BUDGET = "pass", "budget"


@dataclass
class EffortConfig:
    """Budgets by the client's `reasoning_effort`; ours, as no server publishes its table."""

    none: int | None = opt("budget in tokens; null: estimated, 0: the request is passed on unchanged", 16, ge=0)
    minimal: int | None = opt("the same", 32, ge=0)
    low: int | None = opt("the same", 64, ge=0)
    medium: int | None = opt("the same", None, ge=0)
    high: int | None = opt("the same", 512, ge=0)
    xhigh: int | None = opt("the same", 1024, ge=0)
    max: int | None = opt("the same", 0, ge=0)


@dataclass
class PolicyConfig:
    """What is done with requests whose answer is not one free text."""

    tools: str = opt(
        "requests with tools or functions: pass them on unchanged, or budget", PASS, choices=(PASS, BUDGET)
    )
    response_format: str = opt("requests for JSON, with a schema or without: the same", PASS, choices=(PASS, BUDGET))
    n: str = opt("requests for several choices (n > 1): the same", PASS, choices=(PASS, BUDGET))


@dataclass
class ServeRecipe(Recipe):
    """Serve an OpenAI-compatible upstream with a token budget for each request (TALE-EP, §5.2)."""

    output: str = opt("folder of the request log; a restart with the same settings appends to it")
    upstream: str = opt(
        "URL of an OpenAI-compatible server, up to /v1; $NAME in it is read from the environment",
        pattern=(r"https?://[^\s@]+", "a url without user that begins with http:// or https:// and ends in /v1"),
    )
    upstream_kind: str = opt(
        "server behind the url; its limit field is max_tokens of other, else max_completion_tokens",
        "other",
        choices=("other", "openai", "openrouter", "vllm", "sglang", "llama_cpp", "gemini"),
    )
    native_budget: bool = opt("also send the native thinking budget that servers of this kind have", False)
    mode: str = opt(
        "budget: state and enforce budgets; pass: pass everything on unchanged", BUDGET, choices=(BUDGET, PASS)
    )
    host: str = opt("address to listen on", "127.0.0.1")
    port: int = opt("port to listen on; 0: any free one", 8080, ge=0, le=65535)
    api_key_env: str | None = opt(
        "environment variable with a key that the proxy requires in the header X-Tale-Key; default: none required",
        None,
        pattern=("[A-Z_][A-Z0-9_]*", "the name of an environment variable, in capitals, and not the key itself"),
    )
    estimator: str | None = opt(
        "folder of a trained estimator (scripts/estimate.py); default: zero-shot estimation by the upstream", None
    )
    estimator_max_tokens: int = opt("most tokens of a zero-shot estimate", 128, ge=1)
    cache_size: int = opt("zero-shot estimates that are kept, by model and question", 10_000, ge=0)
    online: bool = opt(
        "adapt estimates to the quantile of used / asked tokens that was observed for like budgets", False
    )
    online_quantile: float = opt("the quantile", 0.9, gt=0, lt=1)
    budget_multiplier: float = opt("factor on the estimate (A.8)", 1.0, gt=0)
    budget_line: str | None = budget_line_option()
    max_budget: int = opt("largest budget; a client's larger one is refused, an estimate is lowered to it", 8192, ge=1)
    slack: float | None = opt(
        "the limit of an answer is budget × slack + room, never more than the client's own; null: no limit", 2.0, ge=1
    )
    room: int = opt("tokens of the limit for the answer itself", 64, ge=0)
    efforts: EffortConfig = section(EffortConfig)
    policy: PolicyConfig = section(PolicyConfig)
    control_share: float = opt("share of requests that pass unchanged, to measure the saving against", 0.05, ge=0, lt=1)
    seed: int = seed_option("seed of the hash that draws the control group", 0)
    max_body_mb: float = opt("MB of a request's body; a larger one is refused", 10.0, gt=0)
    max_concurrency: int = opt("requests in flight; more are refused with status 503", 2048, ge=1)
    timeout: float = opt("seconds of a request from its body to the last byte of its answer", 600.0, gt=0)
    connect_timeout: float = opt("seconds to connect to the upstream", 10.0, gt=0)
    max_retries: int = opt("retries after a lost connection, before the first byte of an answer", 1, ge=0)
    log_texts: bool = opt("write the messages of requests and answers to the log", False)
