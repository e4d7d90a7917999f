"""What servers do, and how a search of four questions ends at each; then the same search at a healthy server.

`python -m tests.endpoint_behaviours [name …]` runs the whole command against each, in a process of its own, with its
seconds and its memory. Tests run the search itself.
"""

from __future__ import annotations

import atexit
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.fake_endpoint import FakeEndpoint, Reply, answer, refusal, used

KEY = "sk-secret-0123456789"
QUESTIONS = [
    {"question": f"Question {w}: what is {i}?", "answer": i} for i, w in enumerate(("zero", "one", "two", "3"))
]
Script = Callable[[dict, int], Reply]


@dataclass(frozen=True)
class Behaviour:
    """A server's script, and what a search comes to: questions with a target, then and in the end, and words said.

    `ends`: the run ends with an error, which has these words in it. `key` is the one that the server gets.
    """

    script: Script
    targets: int = 4
    said: str = ""
    ends: bool = False
    later: int = 4


def gold(call: dict) -> str:
    """What the prompt asks for."""
    return re.search(r"what is (\d+)\?", call["messages"][0]["content"])[1]


def budget(call: dict) -> int:
    """The budget in the prompt; of the vanilla prompt 2."""
    found = re.search(r"use less than (\d+) tokens", call["messages"][0]["content"])
    return int(found[1]) if found else 2


def healthy(call: dict, _: int) -> Reply:
    """The right answer, in as many tokens as the budget allows: 2 and 1."""
    return answer(f"So [[{gold(call)}]]", usage=used(20, budget(call)))


def changed(**message: Any) -> Script:
    """The healthy reply with something else in its message, or with `_` beside it; `...` leaves it out."""

    def script(call: dict, number: int) -> Reply:
        reply = healthy(call, number)
        (choice,) = reply.body["choices"]
        for name, value in message.items():
            part, name = (choice, name[1:]) if name.startswith("_") else (choice["message"], name)
            part[name] = value(gold(call)) if callable(value) else value
            if value is ...:
                del part[name]
        return reply

    return script


def figures(**usage: Any) -> Script:
    """The healthy reply with other figures of usage."""

    def script(call: dict, number: int) -> Reply:
        reply = healthy(call, number)
        reply.body["usage"] |= {name: (10**400 if value == "huge" else value) for name, value in usage.items()}
        return reply

    return script


def always(reply: Reply) -> Script:
    return lambda *_: reply


def once(*replies: Reply) -> Script:
    """These first, then the healthy ones."""
    return lambda call, number: replies[number] if number < len(replies) else healthy(call, number)


def on(reply: Reply | Script, which: str = "1") -> Script:
    """This for one question, the healthy one for the others."""
    bad = always(reply) if isinstance(reply, Reply) else reply
    return lambda call, number: (bad if gold(call) == which else healthy)(call, number)


def forbids(status: int, words: str, *names: str) -> Script:
    """A server that refuses options of a call, one after the other."""

    def script(call: dict, number: int) -> Reply:
        named = [name for name in names if name in call]
        return refusal(status, words.format(named[0])) if named else healthy(call, number)

    return script


def redirect(status: int, to: str) -> Reply:
    return Reply("", status, {"Location": to})


def there(call: dict, number: int) -> Reply:
    """Every other call is sent on within the server."""
    return healthy(call, number) if number % 2 else redirect(307, "/v1/chat/completions")


def compressed(body: bytes, how: str = "gzip") -> Reply:
    return Reply(body, headers={"Content-Encoding": how})


def packed(call: dict, number: int) -> Reply:
    reply = healthy(call, number)
    return compressed(gzip.compress(json.dumps(reply.body).encode()))


@cache
def bomb(size: int = 64) -> bytes:
    """So many MB of nothing, in a thousandth of them."""
    press = zlib.compressobj(9, wbits=31)
    return b"".join([*(press.compress(bytes(2**20)) for _ in range(size)), press.flush()])


def endless() -> Iterator[bytes]:
    while True:
        yield b" " * 2**16


def drops() -> Iterator[bytes]:
    """A byte now and then, each well within a call's time."""
    while True:
        yield b" "
        time.sleep(0.05)


def coded(status: int, **error: Any) -> Reply:
    """An error with a code."""
    return Reply({"error": {"message": "no", **error}}, status, {"retry-after-ms": "1"})


AZURE = coded(400, code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"})
LONG = "This model's maximum context length is 4096 tokens. However, you requested {} tokens."
NO_COUNT = "the usage is invalid, set engine.endpoint.tokenizer: "
LIMIT = 60  # seconds of a whole command
NONE = "the reply is not a chat completion"
FOUR = r", the same for every question \(4\)"

BEHAVIOURS: dict[str, Behaviour] = {
    # All is answered.
    "healthy": Behaviour(healthy),
    "500 at first": Behaviour(once(refusal(500, "oops"))),
    "503 at first": Behaviour(once(refusal(503, "starting"))),
    "408 at first": Behaviour(once(refusal(408, "slow"))),
    "429 at first": Behaviour(once(refusal(429, "slow down"))),
    "half a body at first": Behaviour(once(replace(answer("7"), cut=True))),
    "no answer at first": Behaviour(once(Reply(hang=True))),
    "an error in a 200 at first": Behaviour(once(coded(200))),
    "an error's text in a 200 at first": Behaviour(once(Reply({"error": "overloaded"}))),
    "a 429 in a 200 at first": Behaviour(once(coded(200, code=429))),
    "no choice at first": Behaviour(once(Reply({"choices": []}))),
    "null choices at first": Behaviour(once(Reply({"choices": None}))),
    "a cut document at first": Behaviour(once(Reply('{"choices": [{"ind'))),
    "a page at first": Behaviour(once(Reply("<html>Welcome</html>", headers={"Content-Type": "text/html"}))),
    "nothing at first": Behaviour(once(Reply(""))),
    "a compressed reply": Behaviour(packed),
    "a redirect within the server": Behaviour(there),
    **{f"finish_reason {word}": Behaviour(changed(_finish_reason=word))
       for word in ("eos", "eos_token", "end_turn", "end_of_turn", "stop_sequence", "STOP", "", None)},
    "no finish_reason": Behaviour(changed(_finish_reason=...)),
    "no index": Behaviour(changed(_index=...)),
    "content in parts": Behaviour(changed(content=lambda gold: [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm [[99]]"}]},
        {"type": "text", "text": f"So [[{gold}]]"}])),
    "reasoning beside the answer": Behaviour(changed(reasoning_content="hm [[99]]")),
    "half a character": Behaviour(changed(content=lambda gold: f"\ud83d [[{gold}]]")),
    "control characters": Behaviour(changed(content=lambda gold: f"\0\x1b[2J\u202e [[{gold}]]")),
    "a mark before the document": Behaviour(lambda *call: Reply(f"\ufeff{json.dumps(healthy(*call).body)}")),
    "another character set": Behaviour(lambda *call: Reply(json.dumps(healthy(*call).body).encode("utf-16"))),
    "no details": Behaviour(figures(prompt_tokens_details=None, completion_tokens_details=None)),
    "no seed": Behaviour(forbids(422, "Extra inputs are not permitted: {}", "seed"), said="refuses seed;"),
    "no temperature": Behaviour(forbids(400, "'{}' does not support 0", "temperature"), said="refuses temperature;"),
    "neither": Behaviour(forbids(400, "Unsupported parameter: {}", "seed", "temperature"), said="and temperature;"),
    "the newer limit": Behaviour(forbids(400, "no '{}', use 'max_completion_tokens'", "max_tokens")),
    # One question is not, the others are.
    "400 on one": Behaviour(on(refusal(400, "no")), 3, r"1 without: not answered[\s\S]*: status 400 \(no\)"),
    "413 on one": Behaviour(on(refusal(413, "large")), 3, r"status 413 \(large\)"),
    "422 on one": Behaviour(on(Reply({"detail": "odd"}, 422)), 3, "status 422 .*odd"),
    "one is too long": Behaviour(on(refusal(400, LONG.format(5012))), 3, "you requested 5012 tokens"),
    "a refusal that names an option": Behaviour(on(refusal(400, "no seed in it")), 3, r"status 400 \(no seed in it\)"),
    "a 400 in a 200 on one": Behaviour(on(coded(200, code=400)), 3, r"status 400 \(no\)"),
    "Azure's filter": Behaviour(on(AZURE), 3, "1 without: vanilla answer filtered", later=3),
    "OpenAI's filter": Behaviour(on(coded(400, code="content_policy_violation")), 3, "answer filtered", later=3),
    "a filter in a 200": Behaviour(on(coded(200, code="content_filter")), 3, "answer filtered", later=3),
    "finish_reason content_filter": Behaviour(on(changed(_finish_reason="content_filter")), 3, "filtered", later=3),
    "finish_reason max_tokens": Behaviour(on(changed(_finish_reason="max_tokens")), 3, "cut off", later=3),
    "an odd finish_reason": Behaviour(on(changed(_finish_reason="tool_calls")), 3, "finish_reason 'tool_calls'"),
    "a finish_reason of a MB": Behaviour(on(changed(_finish_reason=f"{KEY}\x1b" * 50_000)), 3, "unknown finish_reason"),
    "a finish_reason that is none": Behaviour(on(changed(_finish_reason={"a": [1]})), 3, "unknown finish_reason"),
    "reasoning alone": Behaviour(on(changed(content=None, reasoning_content="It is [[1]]")), 3,
                                 "1 of 7 answers consist of reasoning only", later=3),
    "500 on one": Behaviour(on(refusal(500, "oops")), 3, r"without: not answered[\s\S]*status 500 \(oops\), after 1 r"),
    "500 on the first": Behaviour(on(refusal(500, "oops"), "0"), 3, r"status 500 \(oops\)"),
    "no choice on one": Behaviour(on(Reply({"choices": []})), 3, rf"not answered[\s\S]*{NONE}"),
    "no answer to one": Behaviour(on(Reply(hang=True)), 3, "no answer within .* s, after 1 retries"),
    # The run ends.
    **{f"status {code}": Behaviour(always(refusal(code, f"no {KEY}")), 0, rf"status {code} \(no <key>\)", ends=True)
       for code in (401, 402, 403, 404, 405, 500, 429)},
    "400 on all": Behaviour(always(refusal(400, "no model")), 0, rf"status 400 \(no model\){FOUR}", ends=True),
    "422 on all": Behaviour(always(Reply({"detail": "odd"}, 422)), 0, FOUR, ends=True),
    "all are too long": Behaviour(lambda call, n: refusal(400, LONG.format(5000 + n)), 0, FOUR, ends=True),
    "no answer": Behaviour(always(Reply(hang=True)), 0, "no answer within .* s, after 1 retries", ends=True),
    "drops": Behaviour(always(Reply(chunks=drops)), 0, "no answer within .* s, after 1 retries", ends=True),
    "an endless body": Behaviour(always(Reply(chunks=endless)), 0, "larger than 8 MB, after 1 retries", ends=True),
    "an endless refusal": Behaviour(always(Reply(status=400, chunks=endless)), 0, "larger than 8 MB", ends=True),
    "a bomb": Behaviour(lambda *_: compressed(bomb()), 0, "larger than 8 MB", ends=True),
    "a broken archive": Behaviour(always(compressed(b"no archive", "gzip")), 0, "cannot be unpacked", ends=True),
    "an odd compression": Behaviour(always(compressed(b"x", "br")), 0, "compressed by br", ends=True),
    "a redirect elsewhere": Behaviour(always(redirect(307, "http://localhost:9/v1?key=1")), 0,
                                      r"redirects to http://localhost:9/v1, to which no prompts are sent", ends=True),
    "a redirect to nowhere": Behaviour(always(redirect(307, "http://[::1")), 0, "to an invalid URL", ends=True),
    "a redirect in a circle": Behaviour(always(redirect(308, "/v1/chat/completions")), 0, "redirects to", ends=True),
    "a redirect that loses the prompt": Behaviour(always(redirect(302, "/v1/x")), 0, "redirects to", ends=True),
    "an error in a 200": Behaviour(always(coded(200)), 0, r"status 500 \(no\), after 1 retries", ends=True),
    "no choice": Behaviour(always(Reply({"choices": []})), 0, NONE, ends=True),
    "a page": Behaviour(always(Reply("<html>\n\x1b[2J" + "x" * 10**6)), 0, NONE, ends=True),
    "a number for an answer": Behaviour(changed(content=7), 0, NONE, ends=True),
    "an odd part": Behaviour(changed(content=[{"type": "image_url", "image_url": {"url": "x"}}]), 0, NONE, ends=True),
    "a deep document": Behaviour(always(Reply("[" * 10**5)), 0, NONE, ends=True),
    "a long number": Behaviour(always(Reply("1" * 10**5)), 0, NONE, ends=True),
    "no usage": Behaviour(always(answer("[[0]]")), 0, "no usage; set engine.endpoint.tokenizer", ends=True),
    **{f"{value!r} tokens": Behaviour(figures(completion_tokens=value), 0, NO_COUNT, ends=True)
       for value in (0, -1, float("nan"), float("inf"), "12", 12.5, True, [12], "huge")},
    "-1 tokens of prompt": Behaviour(figures(prompt_tokens=-1), 0, NO_COUNT, ends=True),
    "more cached than prompt": Behaviour(figures(prompt_tokens_details={"cached_tokens": 99}), 0, NO_COUNT, ends=True),
    "more reasoning than answer": Behaviour(figures(completion_tokens_details={"reasoning_tokens": 99}), 0, NO_COUNT,
                                            ends=True),
    "cached tokens of text": Behaviour(figures(prompt_tokens_details={"cached_tokens": "1"}), 0, NO_COUNT, ends=True),
}  # fmt: skip


# --- The whole command -----------------------------------------------------------------------------------------------


def arguments(url: str, folder: Path) -> list[str]:
    """A search of the questions at this server."""
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return ["recipe=tiny/search", "engine.kind=openai", f"engine.endpoint.base_url={url}",
            "engine.endpoint.max_retries=1", "engine.endpoint.timeout=2", "engine.endpoint.max_concurrency=1",
            "model.name_or_path=m", "task.name=jsonl",
            f"task.path={file}", "task.limit=null", "sampling.max_tokens=64",
            f"output={folder / 'run'}"]  # fmt: skip


def each_command(lines: Iterable[str]) -> None:
    """Run each command of a list in a fork, which has all modules; print how it ended, its seconds and its memory."""
    import tale.inference.openai.client  # what the engine imports when it is first asked, too
    import tale.search.run  # noqa: F401
    from tale.cli import run

    for line in lines:
        given, output, limit = json.loads(line)
        began, child = time.monotonic(), os.fork()
        if not child:
            signal.alarm(limit)
            sys.argv[1:] = given
            os.dup2(os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 1)
            os.dup2(1, 2)
            end(lambda: run("search", ""))
        _, status, usage = os.wait4(child, 0)
        ended = os.waitstatus_to_exitcode(status), time.monotonic() - began, usage.ru_maxrss / 1024
        print(json.dumps(ended), flush=True)


def end(command: Callable[[], None]) -> None:
    """Run a command and end as an interpreter does, but for taking down all modules, which takes longer than it all."""
    code: object = 0
    try:
        command()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(int(code or 0))


def main(names: list[str]) -> int:
    """Run the command against each behaviour and then against the healthy one; how many did not end as they should."""
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "OPENAI_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.endpoint_behaviours", "--commands"]
    runner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    wrong = 0
    for name in names or BEHAVIOURS:
        expected, folder = BEHAVIOURS[name], Path(tempfile.mkdtemp())
        with FakeEndpoint(expected.script) as server:
            ends, texts, calls = [], [], []
            for script in (expected.script, healthy):
                server.script, before = script, len(server.calls)
                print(
                    json.dumps([arguments(server.url, folder), f"{folder}/out", LIMIT]), file=runner.stdin, flush=True
                )
                ends.append(json.loads(runner.stdout.readline()))
                texts.append((folder / "out").read_text())
                calls.append(len(server.calls) - before)
        journal = (folder / "run" / "journal.jsonl").read_text() if (folder / "run" / "journal.jsonl").exists() else ""
        (first, seconds, memory), (second, *_) = ends
        found = [re.search(r"4 questions, (\d) with a target", text) for text in texts]
        fits = (first == (2 if expected.ends else 0) and second == 0 and re.search(expected.said, texts[0])
                and found[1] and int(found[1][1]) == expected.later and KEY not in "".join(texts) + journal
                and (expected.ends or (found[0] and int(found[0][1]) == expected.targets)))  # fmt: skip
        last = [line for line in texts[0].splitlines() if line.strip()][-1]
        wrong += not fits
        print(f"{'as expected' if fits else 'WRONG':12} {name:32} exit {first} in {seconds:4.1f} s, {memory:4.0f} MB, "
              f"{calls[0]} calls; then exit {second}, {calls[1]} calls: {last[:110]}", flush=True)  # fmt: skip
    runner.stdin.close()
    print(f"{len(names or BEHAVIOURS)} behaviours, {wrong} not as expected")
    return wrong


if __name__ == "__main__":
    sys.exit(each_command(sys.stdin) if sys.argv[1:] == ["--commands"] else min(main(sys.argv[1:]), 1))
