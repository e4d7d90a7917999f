"""Do two checkouts do the same? Prompts, a search, two trainings and an evaluation, run in both and compared.

    git worktree add ../before <commit>
    python benchmarks/compare_checkouts.py before=../before [after=.] [model=embedded:qwen2.5-coder-0.5b-instruct]
                                           [records=<file>: train on these]

For a change that is to change no behaviour. In each checkout, in float32 on one thread: the ids of every method's
prompt for generated questions; a search of `questions` of them (24), every answer whole; SFT and DPO of five steps on
its targets, or on those of `records`; direct answering, vanilla CoT, TALE-EP and the trained model on others. Compared
are ids, records, the adapters' bytes, replies and summary; a key that one of them lacks or leaves empty does not count.
Where a key of a recipe has another name before, it is tried under both. Ten minutes on one core; prints what differs,
and writes runs/benchmarks/compare_checkouts.json. Ends with 1 where anything does.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from checkout import python, script
from report import publish
from words import only

from tale.cli import guarded
from tale.errors import UserError

PROMPTS = """
import json, sys
from importlib import import_module

def first(name, *modules):
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except ImportError:
            pass
    raise SystemExit(f"{name} is in none of {modules}")

load = first("load", "tale.tasks", "tale.data.benchmarks")
resolve = first("resolve", "tale.models.base")
ModelConfig = first("ModelConfig", "tale.config.sections", "tale.config")
names = ("direct", "vanilla", "estimate", "budgeted")
prompts = {name: first(name, "tale.data.prompts", "tale.prompts") for name in names}
config = ModelConfig(sys.argv[1])
config.dtype = type(config.dtype)("float32")
chat = resolve(config).chat()
for question in load("problems", None, "test", 50, 0):
    for name, prompt in prompts.items():
        given = (question, 64) if name == "budgeted" else (question,)
        print(json.dumps([question.id, name, chat.prompt_ids(prompt(*given))]))
"""


def main() -> None:
    own = only(
        {
            "before": "",
            "after": ".",
            "model": "embedded:qwen2.5-coder-0.5b-instruct",
            "questions": "24",
            "records": "",
        }
    )
    if not own["before"]:
        raise UserError("before=<checkout> is needed")
    made = {name: run(Path(own[name]).resolve(), name, own) for name in ("before", "after")}
    report = {what: compared(made["before"][what], made["after"][what]) for what in made["before"]}
    print(publish("compare_checkouts", report))
    if any(of["different"] for of in report.values()):
        sys.exit(1)


def run(checkout: Path, name: str, own: dict[str, str]) -> dict[str, list[Any]]:
    """What a checkout makes of the same commands: each part as a list of what is compared."""
    folder = Path("runs/benchmarks/compare_checkouts", name).resolve()
    shared = {"model.name_or_path": own["model"], "model.dtype": "float32"}
    asked = {"sampling.max_tokens": "128", "engine.batch_size": "8", "engine.device": "cpu"}
    given = {"recipe": "search_qwen", "output": folder / "search", "full_answers": "true"}
    script(checkout, "search", given | {"task.limit": own["questions"]} | shared | asked)
    records = folder / "search" / "records.jsonl"
    targets = own["records"] or records
    steps = {
        "train.max_steps": "5",
        "train.global_batch_size": "4",
        "train.micro_batch_size": "2",
        "fabric.accelerator": "cpu",
    }
    for objective in ("sft", "dpo"):
        given = {"recipe": f"{objective}_qwen", "output": folder / objective, "data.records": f"[{targets}]"}
        script(checkout, "train", given | shared | steps)
    adapter = folder / "sft" / "adapter"
    methods = f"[{{kind: direct}}, {{kind: vanilla}}, {{kind: tale_ep}}, {{kind: vanilla, adapter: {adapter}}}]"
    given = {"recipe": "eval_qwen", "output": folder / "eval", "task.limit": "12", "methods": methods}
    script(checkout, "evaluate", given | shared | asked)
    return {
        "ids of prompts": python(checkout, "-c", PROMPTS, own["model"]).splitlines(),
        "records": lines(records),
        "adapters, by their bytes": [digest(folder / of / "adapter") for of in ("sft", "dpo")],
        "replies": lines(folder / "eval" / "replies.jsonl"),
        "summary": json.loads((folder / "eval" / "summary.json").read_text()),
    }


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def digest(adapter: Path) -> str:
    return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def compared(before: list[Any], after: list[Any]) -> dict[str, Any]:
    """How many entries there are and differ, with the first that does."""
    pairs = [(filled(b), filled(a)) for b, a in zip(before, after, strict=False)]
    different = [pair for pair in pairs if pair[0] != pair[1]]
    extra = abs(len(before) - len(after))
    return {"compared": len(pairs), "different": len(different) + extra, "the first": different[:1]}


def filled(value: Any) -> Any:
    """The same without empty keys."""
    if isinstance(value, dict):
        return {key: filled(of) for key, of in value.items() if of is not None}
    return [filled(of) for of in value] if isinstance(value, list) else value


if __name__ == "__main__":
    guarded(main, __doc__)
