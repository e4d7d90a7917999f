"""Tokens saved and accuracy kept through the proxy, against the same questions asked directly, paired.

    transformers serve <model> --port 8000 --device cpu
    python benchmarks/serve_questions.py upstream=http://localhost:8000/v1 recipe=gsm8k_zero/eval_qwen \\
        model.name_or_path=<model> task.limit=200 [task.path=dev.jsonl] \\
        [port=8090] [engine.endpoint.max_concurrency=4]

An evaluation of the recipe's questions asks the server for vanilla CoT and for TALE-EP. Then two proxies stand before
it, one that states each budget (`slack=null`), and one that enforces it, too; the same evaluation asks each of them for
vanilla CoT. So each proxy is compared with its control, the same questions passed unchanged, and the first one with
TALE-EP, whose answers it must give: it has the same estimates, and makes the same prompts. Prints accuracy, mean output
tokens with the estimator's, the difference of accuracy in points and the share of tokens saved, with 95 % intervals,
and how many answers equal TALE-EP's; writes them to runs/benchmarks. Run again, it resumes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
from report import publish
from words import options

from tale.cli import guarded
from tale.config.recipes import load
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.replies import Reply, read_replies
from tale.evaluation.run import evaluate
from tale.statistics import bootstrap_rows, compare_paired

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("runs/benchmarks/serve_questions")
PROXIES = {"stated": ["slack=null"], "enforced": []}


def main() -> None:
    own, words = options({"upstream": "http://localhost:8000/v1", "port": "8090"})
    direct = asked("direct", own["upstream"], words, "[{kind: vanilla}, {kind: tale_ep}]")
    control, tale_ep = direct.values()
    report: dict[str, Any] = {
        "questions": len(control),
        "vanilla CoT": alone(control),
        "TALE-EP": beside(tale_ep, control),
    }
    most = load(EvaluateRecipe, words).sampling.max_tokens
    for port, (name, settings) in enumerate(PROXIES.items(), int(own["port"])):  # in each run the same, to resume
        given = [*settings, f"upstream={own['upstream']}", f"port={port}", f"estimator_max_tokens={most}"]
        with proxy(FOLDER / name / "proxy", given) as url:
            (replies,) = asked(name, url, words, "[{kind: vanilla}]").values()
        same = sum(a.text == b.text for a, b in zip(replies, tale_ep, strict=True))
        report[f"proxy, {name}"] = beside(replies, control) | {"answers equal to TALE-EP's": same}
    print(publish("serve_questions", report))


def asked(name: str, url: str, words: Sequence[str], methods: str) -> dict[str, list[Reply]]:
    """An evaluation at a server; the replies of each method, in the questions' order."""
    folder = FOLDER / name
    engine = ["engine.kind=openai", f"engine.endpoint.base_url={url}"]
    evaluate(load(EvaluateRecipe, [*words, *engine, f"methods={methods}", f"output={folder}"]))
    return read_replies(folder / "replies.jsonl")


def spent(reply: Reply) -> int:
    """Output tokens with the estimator's; a proxy's usage has them in it."""
    return reply.tokens + reply.estimator_tokens


def alone(replies: Sequence[Reply]) -> dict[str, float]:
    """Accuracy in %, and mean output tokens."""
    right = [bool(reply.correct) for reply in replies]
    return {
        "accuracy": round(100 * sum(right) / len(right), 2),
        "tokens": round(float(numpy.mean([*map(spent, replies)])), 2),
    }


def beside(ours: Sequence[Reply], control: Sequence[Reply]) -> dict[str, Any]:
    """The same, with the difference of accuracy and the tokens saved against the control, with their intervals."""
    accuracy = compare_paired(*([float(bool(reply.correct)) for reply in of] for of in (ours, control)))
    tokens = numpy.array([[spent(a), spent(b)] for a, b in zip(ours, control, strict=True)], dtype=float)
    saved = bootstrap_rows(tokens, lambda means: 1 - means[..., 0] / means[..., 1])
    difference = (accuracy.difference, *accuracy.interval())
    return alone(ours) | {
        "difference of accuracy, points": [round(100 * each, 1) for each in difference],
        "tokens saved, %": [round(100 * each, 1) for each in saved if each is not None],
    }


@contextmanager
def proxy(folder: Path, given: Sequence[str]) -> Iterator[str]:
    """A proxy without a control group; its URL."""
    words = ["recipe=serve", f"output={folder}", "control_share=0", *given]
    command = [sys.executable, str(ROOT / "scripts" / "serve.py"), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert " is served at " in line, line + process.stdout.read()
        yield line.split(" is served at ")[1].split(";")[0]
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    guarded(main, __doc__)
