"""Does every reader refuse a damaged file in one line, or read what is still a valid file of its kind?

Of each kind of file a small whole one is written and mutated at random: bytes flipped, inserted, cut off or doubled;
values at random paths replaced by others of any type, size and nesting; keys dropped, renamed and given twice. For each
mutant the reader has to end within two seconds in a `UserError` of one line that names the file, or in a value of its
own type that writes out and reads back as itself, and that every invariant of its class holds for. Any other exception,
and any other value, is a failure, whose mutant is kept.

    python benchmarks/fuzz_readers.py [count=10000] [seed=0] [only=records]

Prints a line for each kind: how many inputs, how many of them refused and read, seconds.
"""

from __future__ import annotations

import json
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from words import only

from tale.analysis.estimators.score import Score
from tale.cli import guarded
from tale.config.recipes import load, to_yaml
from tale.data.question import Question
from tale.data.records import Answer, Attempt, Confirmation, Record, read_records
from tale.errors import UserError
from tale.estimators.base import Constant
from tale.estimators.saved import EstimatorCard, load_estimator, save_estimator
from tale.evaluation.replies import Reply, read_replies
from tale.evaluation.summary import Row
from tale.grading.compare import equal
from tale.inference.journal import read_journal
from tale.inference.requests import Completion, Sampling
from tale.models.adapters import CARD, AdapterCard, PlainLora, read_card
from tale.models.tensors import hash_tensors, tensor_files
from tale.runs.stages import Stamp
from tale.search.recipe import SearchRecipe
from tale.storage.files import write_atomic, write_jsonl_atomic
from tale.storage.folder import read_run
from tale.storage.strict_json import read_json
from tale.tasks import load as load_benchmark
from tale.text import printable

SECONDS = 2
NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.5, 1e308, 1e-320, float("nan"), float("inf")]
ODD = [*NUMBERS, None, True, False, "", "\0", "\ud800", "x" * 5000, "NaN", "1", "\u2028\x1b[2J", [], {}, [[]], [{}]]


def text(value: Any) -> str:
    """As `json.dumps` writes it, numbers of any size included."""
    return json.dumps(value, ensure_ascii=random.random() < 0.5)


def mutant(content: bytes, rng: random.Random) -> bytes:
    """Another file: changed as text where it is JSON, and as bytes."""
    if rng.random() < 0.7:
        with suppress(ValueError):
            lines = content.decode().splitlines()
            whole = content.lstrip()[:1] in (b"{", b"[") and len(lines) > 1 and lines[0].strip() in ("{", "[")
            parts = [content.decode()] if whole else lines
            i = rng.randrange(len(parts))
            parts[i] = changed(json.loads(parts[i]), rng)
            return ("\n".join(parts) + "\n").encode("utf-8", "surrogatepass")
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place, length = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 8, 64])
        how = rng.randrange(5)
        if how == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[place:place] = rng.choice(
                [rng.randbytes(length), b"{" * 5000, b"[" * 5000, b'"', b"\0", b"\n", b"\xff"]
            )
        elif how == 2:
            del data[place : place + length]
        elif how == 3:
            del data[place:]
        else:
            data[place:place] = data[max(0, place - length) : place]
    return bytes(data)


def changed(value: Any, rng: random.Random) -> str:
    """The JSON text of a value, of which one part was replaced, dropped, renamed, doubled or nested."""
    places = list(paths(value))
    path = rng.choice(places)
    if not path:
        return text(odd(rng))
    parent, key = value, path[-1]
    for step in path[:-1]:
        parent = parent[step]
    how = rng.randrange(6)
    if how == 0:
        del parent[key]
    elif how == 1 and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
    elif how == 2 and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif how == 3 and isinstance(parent, dict):
        twice = {"a key that stands twice": parent[key], **parent}
        parent.clear()
        parent.update(twice)
        return text(value).replace("a key that stands twice", key, 1)
    elif how == 4:
        other = value
        for step in rng.choice(places):
            other = other[step]
        parent[key] = json.loads(text(other))
    else:
        parent[key] = odd(rng)
    return text(value)


def odd(rng: random.Random) -> Any:
    """A value that belongs nowhere."""
    value = rng.choice(ODD)
    for _ in range(rng.choice([0, 0, 0, 0, 500])):
        value = [value]
    return value


def paths(value: Any, here: tuple = ()) -> Iterator[tuple]:
    """The places in a JSON value, its own included."""
    yield here
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inner:
        yield from paths(entry, (*here, key))


def sound(value: Any) -> None:
    """What every value that was read has to be: of finite, writable content, the same when it is written and read."""
    if isinstance(value, list | tuple):
        for entry in value:
            sound(entry)
    elif is_dataclass(value):
        again = type(value)(**vars(value))  # its own checks
        assert again == value
        json.dumps(asdict(value), allow_nan=False, ensure_ascii=False, default=str).encode()
    else:
        json.dumps(value, allow_nan=False, ensure_ascii=False, default=str).encode()


def recipe_of(path: Path) -> str:
    """A recipe; what is resolved of it is a recipe again, and the same."""
    resolved = to_yaml(load(SearchRecipe, [f"recipe={path}"]))
    path.write_text(resolved, encoding="utf-8")
    assert to_yaml(load(SearchRecipe, [f"recipe={path}"])) == resolved
    return resolved


def questions_of(path: Path) -> list[Question]:
    """A benchmark's questions; each gold is one that grading takes for right."""
    questions = load_benchmark("jsonl", str(path), "test")
    assert all(q.text and equal(q.gold, q.gold, q.kind) for q in questions if q.kind != "text")
    return questions


def files(folder: Path) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """A whole file of each kind, and what reads it."""
    adapter = _adapter(folder / "adapter")
    save_estimator(Constant(40.0), EstimatorCard("m", ["0f" * 8], ["0a" * 8]), folder / "estimator")
    tables = {"summary": (Row, _row()), "scores": (Score, _score())}
    write_jsonl_atomic(folder / "records.jsonl", map(asdict, _records()))
    replies = [Reply("m", f"q/{i}", "2 + 2?", "[[4]]", True, "4", "brackets", "stop", 3, 30) for i in range(2)]
    write_jsonl_atomic(folder / "replies.jsonl", [reply.line for reply in replies])
    completion = asdict(Completion("[[4]]", 3, "stop", 30, ids=(7, 8, 9)))
    key = "0123456789ab" * 2
    journal = [{"name": "m"}, {"key": key, "key_without_limit": key, "seconds": 0.25, **completion}]
    write_jsonl_atomic(folder / "journal.jsonl", journal)
    choice = {"question": "Which?", "options": ["a", "b"], "answer": "B"}
    write_jsonl_atomic(folder / "rows.jsonl", [{"question": "What is 2 + 2?", "answer": 4.5}, choice])
    write_atomic(folder / "run" / "run.json", text(RUN))
    write_atomic(folder / "stage.json", text(vars(Stamp("0f", True))))
    write_atomic(folder / "mine.yaml", to_yaml(load(SearchRecipe, ["recipe=tiny/search"])))
    for name, (_, row) in tables.items():
        write_atomic(folder / f"{name}.json", text([row]))
    return {
        "records": (folder / "records.jsonl", read_records),
        "replies": (folder / "replies.jsonl", read_replies),
        "journal": (folder / "journal.jsonl", lambda path: [*read_journal(path).answers.values()]),
        "run.json": (folder / "run" / "run.json", lambda path: read_run(path.parent)),
        "card": (adapter / CARD, lambda path: read_card(path.parent)),
        "adapter_config": (adapter / "adapter_config.json", lambda path: PlainLora.read(path.parent)),
        "safetensors": (adapter / "adapter_model.safetensors", lambda path: hash_tensors(tensor_files([path]))),
        "estimator": (folder / "estimator" / "estimator.json", lambda path: [*load_estimator(path.parent)]),
        "stamp": (folder / "stage.json", lambda path: read_json(path, Stamp, "a stamp", "delete it")),
        "benchmark": (folder / "rows.jsonl", questions_of),
        "recipe": (folder / "mine.yaml", recipe_of),
    } | {
        name: (
            folder / f"{name}.json",
            lambda path, kind=kind: read_json(path, list[kind], "a table", "write it again"),
        )
        for name, (kind, _) in tables.items()
    }


RUN = {
    "kind": "search",
    "command": "x",
    "base": {"name": "m", "weights": "0f"},
    "questions": {"all": 2},
    "code": "0f",
    "scoring": "accuracy",
    "grading": "0f",
    "packages": {"torch": "2"},
    "outputs": {"a": None, "b": "0f"},
}


def _records() -> list[Record]:
    answer = Answer("2 + 2 is [[4]]", 3, "stop", True, "4", "brackets", ids=(1, 2, 3))
    vanilla, budgeted = Attempt(None, (answer,), False), Attempt(4, (answer,), True)
    question, reason = Question("q/0", "What is 2 + 2? 二加二", "4"), "no feasible budget"
    found = Record(
        question, vanilla, (budgeted,), 4, answer, None, Sampling(512, 0.1), "m", again=Confirmation(1, 8, 0.7)
    )
    return [found, Record(question, vanilla, (), None, None, reason, Sampling(9), "m")]


def _row() -> dict[str, Any]:
    row = dict.fromkeys(Row.__dataclass_fields__, 0.5) | {"method": "m", "questions": 2, "asked_without_budget": 0}
    return row | dict.fromkeys(("within_margin", "questions_needed", "seeds", "not_answered"))


def _score() -> dict[str, Any]:
    return dict.fromkeys(Score.__dataclass_fields__, 0.5) | {
        "estimator": "e",
        "questions": 2,
        "without_estimate": 0,
        "verdict": "better",
    }


def _adapter(folder: Path) -> Path:
    folder.mkdir()
    save_file({f"q.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    write_atomic(folder / "adapter_config.json", text(config))
    write_atomic(folder / CARD, text(asdict(AdapterCard({"name": "m", "weights": "0f"}, ["0f"], ["0a"]))))
    return folder


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """What takes longer raises TimeoutError."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(path: Path, read: Callable[[Path], Any], content: bytes) -> str:
    """How it ended: refused, read, or what is wrong with that."""
    path.write_bytes(content)
    try:
        with limited(SECONDS):
            value = read(path)
            sound(value)
    except UserError as error:
        line = str(error)
        return "refused" if printable(line) == line and path.stem in line else f"refused without its file: {line!r}"
    except Exception:
        return traceback.format_exc()
    return "read"


def fuzz(count: int, seed: int, chosen: str = "") -> dict[str, dict[str, float]]:
    """`count` mutants of each kind; its outcomes and seconds.

    Raises:
        UserError: at the first that ended otherwise; the mutant is kept.
    """
    results = {}
    with TemporaryDirectory() as place:
        for kind, (path, read) in files(Path(place)).items():
            if chosen not in ("", kind):
                continue
            whole, rng, outcomes, began = (
                path.read_bytes(),
                random.Random(f"{seed} {kind}"),
                Counter(),
                time.monotonic(),
            )
            assert tried(path, read, whole) == "read", kind
            for number in range(count):
                content = mutant(whole, rng)
                outcome = tried(path, read, content)
                if outcome not in ("refused", "read"):
                    kept = Path(f"fuzz-{kind}-{seed}-{number}")
                    kept.write_bytes(content)
                    raise UserError(f"{kind}, seed {seed}, input {number}, kept as {kept}: {outcome}")
                outcomes[outcome] += 1
            path.write_bytes(whole)
            results[kind] = {"inputs": count, **outcomes, "seconds": round(time.monotonic() - began, 1)}
    return results


def main() -> None:
    """Every kind in turn."""
    own = only({"count": "10000", "seed": "0", "only": ""})
    for kind, found in fuzz(int(own["count"]), int(own["seed"]), own["only"]).items():
        print(f"{kind:<15}", *(f"{value:>7} {name}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    guarded(main, __doc__)
