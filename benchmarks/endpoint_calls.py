"""How many calls to an endpoint are in flight while a search runs, and how long it takes.

    python benchmarks/endpoint_calls.py [before=../before] [after=.] [questions=200] [concurrency=16] [slow=2]

A server on loopback answers the calls of `scripts/search.py` for generated questions, each after a delay that its
prompt alone decides: nine in ten after 0.05 s, the others after `slow` seconds. Which budget is answered right, and
how long, its prompt decides, too, so every run makes the same calls. Where a checkout of an earlier commit is given as
`before`, its search is run first, with its own code. Prints seconds, calls, the mean of the calls in flight while any
are left to ask, and the shortest time possible (all delays over `concurrency`); writes them, and the calls in flight
over time as a PNG, to runs/benchmarks.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from checkout import script
from report import publish
from words import only

from tale.cli import guarded
from tale.data.question import Question
from tale.output.figures import plt, save
from tale.tasks import load

BUDGET = re.compile(r"less than (\d+) tokens")
FAST = 0.05  # seconds


def main() -> None:
    own = only({"before": "", "after": ".", "questions": "200", "concurrency": "16", "slow": "2"})
    concurrency = int(own["concurrency"])
    checkouts = {name: own[name] for name in ("before", "after") if own[name]}
    report, curves = {"concurrency": concurrency}, {}
    for name, checkout in checkouts.items():
        served = Served(load("problems", None, "train", int(own["questions"]), 0), float(own["slow"]))
        seconds = searched(Path(checkout).resolve(), served, own["questions"], concurrency)
        curves[name] = served.curve()
        report[name] = {
            "seconds": round(seconds, 1),
            "calls": len(served.began),
            "mean in flight": round(sum(served.delays) / seconds, 1),
            "seconds at least": round(sum(served.delays) / concurrency, 1),
        }
    if own["before"]:
        report["times faster"] = round(report["before"]["seconds"] / report["after"]["seconds"], 2)
    print(publish("endpoint_calls", report))
    draw(curves, concurrency, Path("runs/benchmarks/endpoint_calls.png"))


class Served:
    """A server for one search, with the moments at which its calls began and ended."""

    def __init__(self, questions: Sequence[Question], slow: float):
        self.questions, self.slow = questions, slow
        self.began: list[float] = []
        self.ended: list[float] = []
        self.delays: list[float] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
                served.began.append(time.monotonic())
                body, seconds = served.reply(prompt)
                served.delays.append(seconds)
                time.sleep(seconds)
                served.ended.append(time.monotonic())
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, prompt: str) -> tuple[bytes, float]:
        """The body of the answer to a prompt, and after how many seconds it comes."""
        draw = hashlib.sha256(prompt.encode()).digest()
        question = next(q for q in self.questions if q.text in prompt)
        whole = 100 + hashlib.sha256(question.text.encode()).digest()[0]
        budget = int(match[1]) if (match := BUDGET.search(prompt)) else None
        right = budget is None or draw[1] < 200
        text = f"[[{question.gold if right else 'none'}]]"
        usage = {"prompt_tokens": 100, "completion_tokens": whole if budget is None else min(whole - 1, budget)}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        return json.dumps(body).encode(), self.slow if draw[0] < 26 else FAST

    def curve(self) -> tuple[list[float], list[int]]:
        """Seconds since the first call, and the calls in flight from there on."""
        steps = sorted([(moment, 1) for moment in self.began] + [(moment, -1) for moment in self.ended])
        times, counts = [], []
        for moment, step in steps:
            times.append(moment - steps[0][0])
            counts.append((counts[-1] if counts else 0) + step)
        return times, counts


def searched(checkout: Path, served: Served, questions: str, concurrency: int) -> float:
    """Run a checkout's search against the server; seconds from its first call to its last answer."""
    with TemporaryDirectory() as folder:
        given = {"recipe": "search_qwen", "output": f"{folder}/run", "task.limit": questions, "search_wrong": "false"}
        given |= {"engine.kind": "openai", "model.name_or_path": "m", "max_in_flight": "64"}
        given |= {"engine.endpoint.base_url": f"http://127.0.0.1:{served.server.server_port}/v1"}
        script(checkout, "search", given | {"engine.endpoint.max_concurrency": concurrency})
    served.server.shutdown()
    return served.ended[-1] - served.began[0]


def draw(curves: dict[str, tuple[list[float], list[int]]], concurrency: int, file: Path) -> None:
    """The calls in flight over time, a panel for each run."""
    figure, panels = plt.subplots(
        len(curves), 1, sharex=True, squeeze=False, figsize=(8, 1 + 2 * len(curves)), layout="constrained"
    )
    for axes, (name, (times, counts)) in zip(panels[:, 0], curves.items(), strict=True):
        axes.step(times, counts, where="post", lw=0.8)
        axes.axhline(concurrency, ls="--", lw=0.8, color="gray")
        axes.set(title=f"{name}: {times[-1]:.1f} s", ylabel="calls in flight", ylim=(0, concurrency + 1))
        axes.grid(alpha=0.3)
    panels[-1, 0].set_xlabel("seconds since the first call")
    save(figure, file)


if __name__ == "__main__":
    guarded(main, __doc__)
