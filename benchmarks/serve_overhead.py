"""What the proxy adds before the first byte, and the memory of idle streams, beside LiteLLM's proxy where it is given.

    python benchmarks/serve_overhead.py [litellm=/path/to/bin/litellm] [streams=1,16,64] [requests=30] [rounds=3]
        [events=10] [rate=20] [idle=1000]

A server on loopback answers each chat completion by a stream of `events` events, the first at once and then `rate` a
second. Clients ask it directly and through each proxy: `streams` at the same time, which begin at random moments and
ask again as soon as their stream has ended, `requests` times each, in `rounds` that take turns. Upstream and clients
are one process, each proxy is another. This proxy estimates each budget by a regression, states and enforces it, and
writes its log; LiteLLM passes on. Prints the median and the 99th percentile of the milliseconds to the first event,
what a proxy adds to the direct ones, and the ratio of what LiteLLM's median adds to this one's; the milliseconds of an
estimate; and the memory (RSS) of the proxies before and with `idle` streams that are open and silent. Writes them to
runs/benchmarks.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy
from report import publish
from words import only

from tale.cli import guarded
from tale.data.prompts import vanilla
from tale.data.question import Question
from tale.estimators.regression import fit
from tale.estimators.saved import EstimatorCard, load_estimator, save_estimator
from tale.tasks import load

ROOT = Path(__file__).resolve().parents[1]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-1234\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
NO_KEY = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"  # on loopback, for the length of the benchmark
PATIENCE = 30  # seconds for idle streams to begin
WAIT = 120  # seconds for a proxy to start
IDLE = "Wait."


def main() -> None:
    own = only(
        {
            "litellm": "",
            "streams": "1,16,64",
            "requests": "30",
            "rounds": "3",
            "events": "10",
            "rate": "20",
            "idle": "1000",
        }
    )
    numbers = {name: int(own[name]) for name in ("requests", "rounds", "events", "rate", "idle")}
    questions = load("problems", None, "train", 600, 0)
    allow_open_files()
    with TemporaryDirectory() as folder:
        estimator = trained(questions[:300], Path(folder))
        report: dict[str, Any] = numbers | {"estimate, ms": timed(estimator, questions[300:])}
        report |= asyncio.run(measured(own, numbers, questions[300:], Path(folder), estimator))
    print(publish("serve_overhead", report))


async def measured(
    own: dict[str, str], numbers: dict[str, int], asked: list[Question], folder: Path, estimator: Path
) -> dict[str, Any]:
    """All proxies in front of one server: times by the number of streams, and memory."""
    upstream = await asyncio.start_server(
        Upstream(numbers["events"], 1 / numbers["rate"]), "127.0.0.1", 0, backlog=2048
    )
    port = upstream.sockets[0].getsockname()[1]
    with ExitStack() as running:
        proxies = {"tale": running.enter_context(tale(port, folder, estimator))}
        if own["litellm"]:
            proxies["litellm"] = running.enter_context(litellm(port, folder, own["litellm"]))
        for each in proxies.values():
            await each.started()
        ports = {"direct": port} | {name: each.port for name, each in proxies.items()}
        prompts = (vanilla(asked[i % len(asked)]) for i in count())
        times: dict[str, Any] = {}
        spread = numbers["events"] / numbers["rate"]
        for streams in map(int, own["streams"].split(",")):
            waits: dict[str, list[float]] = {name: [] for name in ports}
            for at in ports.values():  # so that all connections are there
                await clients(at, streams, 1, prompts, spread)
            for _ in range(numbers["rounds"]):
                for name, at in ports.items():
                    waits[name] += await clients(at, streams, numbers["requests"] // numbers["rounds"], prompts, spread)
            times[f"{streams} streams"] = compared(waits)
            print(f"{streams} streams: {times[f'{streams} streams']}", file=sys.stderr)
        memory = {
            name: await idle_memory(each.port, each.process.pid, numbers["idle"]) for name, each in proxies.items()
        }
    upstream.close()
    return {"to the first event, ms": times, "memory, MB": memory}


def compared(waits: dict[str, list[float]]) -> dict[str, Any]:
    """Median and 99th percentile of each way, what a proxy adds, and the ratio of what LiteLLM adds to tale's."""
    quantiles = {
        name: [1000 * float(q) for q in numpy.quantile(seconds, (0.5, 0.99))] for name, seconds in waits.items()
    }
    added = {name: [q - d for q, d in zip(of, quantiles["direct"], strict=True)] for name, of in quantiles.items()}
    found: dict[str, Any] = {name: [round(q, 2) for q in of] for name, of in quantiles.items()}
    found |= {f"added by {name}": [round(q, 2) for q in of] for name, of in added.items() if name != "direct"}
    if "litellm" in added:
        found["litellm / tale, median added"] = round(added["litellm"][0] / added["tale"][0], 1)
    return found


# --- The server -------------------------------------------------------------------------------------------------------


class Upstream:
    """Answers every request by a stream of events; one that asks to wait, by the first one alone."""

    def __init__(self, events: int, gap: float):
        self.gap = gap
        whole = [{"delta": {"content": " so"}, "finish_reason": None}] * (events - 1)
        ends = [*whole, {"delta": {}, "finish_reason": "stop"}]
        self.events = [
            event(
                {
                    "id": "x",
                    "object": "chat.completion.chunk",
                    "created": 0,
                    "model": "m",
                    "choices": [{"index": 0, **of}],
                }
            )
            for of in ends
        ]

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while body := await request(reader):
                writer.write(HEAD + self.events[0])
                if IDLE.encode() in body:
                    await reader.read()
                    break
                for each in self.events[1:]:
                    await asyncio.sleep(self.gap)
                    writer.write(each)
                writer.write(event("[DONE]") + b"0\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client, or the benchmark, has ended
        finally:
            writer.close()


def event(of: dict[str, Any] | str) -> bytes:
    """An event of a stream, as a chunk."""
    data = f"data: {of if isinstance(of, str) else json.dumps(of)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


async def request(reader: asyncio.StreamReader) -> bytes:
    """The body of the next request; empty at the connection's end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return await reader.readexactly(int(lengths[0].partition(b":")[2])) if lengths else head


# --- The clients ------------------------------------------------------------------------------------------------------


async def clients(port: int, streams: int, requests: int, prompts: Iterator[str], spread: float) -> list[float]:
    """Seconds to the first event of each request: `streams` clients, with a connection each, make `requests` each.

    They begin within `spread` seconds, at random moments.
    """
    waits: list[float] = []

    async def client(start: float) -> None:
        await asyncio.sleep(start)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(requests):
            waits.append(await ask(reader, writer, next(prompts)))
            while not (await reader.readuntil(b"\r\n")).startswith(b"0\r\n"):
                pass
            await reader.readuntil(b"\r\n")
        writer.close()

    draw = Random(0)
    await asyncio.gather(*(client(draw.uniform(0, spread)) for _ in range(streams)))
    return waits


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prompt: str) -> float:
    """Send a request; seconds until its answer's first event."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": True}).encode()
    began = time.perf_counter()
    writer.write(ASK % len(body) + body)
    status = await reader.readuntil(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 200"), status
    await reader.readuntil(b"data:")
    return time.perf_counter() - began


async def idle_memory(port: int, pid: int, streams: int) -> dict[str, float]:
    """The memory of a proxy before and with silent streams; fewer than `streams` if no more of them begin."""
    before, begun = memory(pid), 0
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    while begun == len(connections) < streams:
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(min(50, streams - begun))]
        tasks = [asyncio.create_task(ask(*each, IDLE)) for each in opened]
        done, waiting = await asyncio.wait(tasks, timeout=PATIENCE)
        connections, begun = connections + opened, begun + len(done)
        for task in waiting:
            task.cancel()
    found = {"before": round(before), "with idle streams": round(memory(pid)), "streams": begun}
    for _, writer in connections:
        writer.close()
    return found


def memory(pid: int) -> float:
    """Resident memory of a process and its children, in MB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 + sum(memory(int(child)) for child in children)


# --- The proxies ------------------------------------------------------------------------------------------------------


def tale(port: int, folder: Path, estimator: Path) -> Process:
    """This proxy, by its script, without a control group."""
    words = ["recipe=serve", f"upstream=http://127.0.0.1:{port}/v1", f"output={folder / 'serve'}", "control_share=0"]
    own = free_port()
    command = [sys.executable, str(ROOT / "scripts" / "serve.py"), *words, f"port={own}", f"estimator={estimator}"]
    return Process(own, command, {"PYTHONPATH": str(ROOT)}, folder / "tale.log")


def litellm(port: int, folder: Path, command: str) -> Process:
    """LiteLLM's proxy with one worker, and without a key, a data base or telemetry."""
    parameters = {"model": "openai/m", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "sk-1234"}
    config = {"model_list": [{"model_name": "m", "litellm_params": parameters}]}
    (folder / "litellm.yaml").write_text(json.dumps(config))
    own = free_port()
    words = [
        "--config",
        str(folder / "litellm.yaml"),
        "--port",
        str(own),
        "--host",
        "127.0.0.1",
        "--telemetry",
        "False",
    ]
    environment = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", NO_KEY: "true"}
    return Process(own, [command, *words], environment, folder / "litellm.log")


class Process:
    """A proxy's process, ended with a `with` block."""

    def __init__(self, port: int, command: list[str], environment: dict[str, str], log: Path):
        self.port, self.log = port, log
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:  # it waits for streams that are silent
            self.process.kill()
            self.process.wait()

    async def started(self) -> None:
        """Wait until it accepts connections."""
        end = time.monotonic() + WAIT
        while True:
            try:
                (await asyncio.open_connection("127.0.0.1", self.port))[1].close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()  # noqa: PT018
                await asyncio.sleep(0.1)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- The estimator ----------------------------------------------------------------------------------------------------


def trained(questions: list[Question], folder: Path) -> Path:
    """A regression on the questions' lengths: its weights do not matter here, its size does."""
    place = folder / "regression"
    save_estimator(fit(questions, [len(q.text) for q in questions], ridge=1.0), EstimatorCard("none", [], []), place)
    return place


def timed(estimator: Path, questions: list[Question]) -> dict[str, float]:
    """Milliseconds of one estimate: median and 99th percentile."""
    model, times = load_estimator(estimator)[0], []
    model.estimate(questions[:1])
    for question in questions:
        began = time.perf_counter()
        model.estimate([question])
        times.append(1000 * (time.perf_counter() - began))
    return {"median": round(float(numpy.median(times)), 3), "p99": round(float(numpy.quantile(times, 0.99)), 3)}


def allow_open_files() -> None:
    """As many as the system lets: each stream takes two of each process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    guarded(main, __doc__)
