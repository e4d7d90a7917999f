"""Is the official `search_budget.py` any faster than the one by one run that search_speed.py measures against?

Its own function `search_budget`, grader and prompts run unchanged on a local model, after a checkout:

    git clone https://github.com/GeniusHTX/TALE ../TALE && pip install math-verify
    python benchmarks/official_search.py checkout=../TALE task.path=gsm8k_zero/dev.jsonl task.limit=16

What had to be mended, because the script does not start as it is: it reads `args.reasoning`, which it never defines;
its data sets give `gold` and `round` where it reads `ground truth` and `prediction`, so the vanilla answers it begins
with are asked for here, under its own template; `llm_models` knows only paid endpoints and a vLLM under `.cache/`, so
plain `model.generate` with one prompt answers; and its GPT-4 tokenizer is a download, so the model's own counts.

Both sides: the same questions, model, weights, dtype, greedy decoding, limit and engine (`plain.Plain`), in one
run, one after the other. The prompts differ in their wording, so compare tokens a second. Writes runs/benchmarks.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from plain import Plain, first_call
from report import publish
from search_speed import RECIPE, calls, one_by_one, tokens
from tqdm import tqdm
from words import options

from tale.cli import guarded
from tale.config.recipes import load
from tale.data.chat import Chat
from tale.data.question import Question
from tale.errors import UserError
from tale.inference import Request, Sampling
from tale.inference.requests import request_source
from tale.models.base import resolve
from tale.search.recipe import SearchRecipe
from tale.tasks.selection import select_questions

OUTPUT = Path("runs/benchmarks/official_search.jsonl")


class Local:
    """What stands in for the official `LLMModel`: one prompt, one answer; `calls` made."""

    def __init__(self, engine: Plain, sampling: Sampling):
        self.engine, self.sampling, self.calls = engine, sampling, 0

    def query(self, sample: list[dict[str, str]], key: str = "") -> list[list[str]]:
        """The official form: a list of messages in, answers at `[0]`."""
        self.calls += 1
        ((_, completion),) = self.engine.generate(request_source([Request.user(sample[0]["prompt"], self.sampling)]))
        return [[completion.text]]


def official(checkout: str, chat: Chat) -> Any:
    """The module `search_budget` of a checkout, with stand-ins for what cannot be imported or downloaded."""
    if not (Path(checkout) / "search_budget.py").is_file():
        raise UserError(f"checkout={checkout}: no search_budget.py there; see --help in the file's head")
    stand_ins = {
        "tiktoken": {"encoding_for_model": lambda _: chat.tokenizer},
        "llm_models": {"LLMModel": Local},
        "llm_datasets": {},
    }
    for name, content in stand_ins.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(content)
    sys.path.insert(0, checkout)
    return importlib.import_module("search_budget")


def their_search(module: Any, questions: list[Question], model: Local) -> list[dict[str, Any]]:
    """The loop of its `main`, from the vanilla answers on; the whole file is rewritten for each, as there."""
    evaluator, found = module.AccEvaluator(), []
    for question in tqdm(questions, desc="official loop"):
        prompt = module.gsm8k_prompts["reasoning"][0]["prompt"].replace("{question}", question.text)
        answer = model.query([{"prompt": prompt}])[0][0]
        instance = {"question": prompt, "ground truth": question.gold, "prediction": answer}
        if evaluator.evaluate_sample(instance):
            found.append(module.search_budget(instance, module.token_measure(answer), model, evaluator)[0])
            module.save_to_jsonl(found, OUTPUT)
    return found


def main() -> None:
    own, words = options({"checkout": ""})
    recipe = load(SearchRecipe, [*RECIPE, *words])
    base, sampling = resolve(recipe.model), Sampling(**vars(recipe.sampling))
    module = official(own["checkout"], base.chat())
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    questions, _ = select_questions(recipe.task)
    engine = Plain(base.load(), base.chat(), batch_size=1)
    first_call(engine)

    model, began = Local(engine, sampling), time.monotonic()
    theirs = their_search(module, questions, model)
    their_seconds, their_tokens = time.monotonic() - began, engine.tokens
    began = time.monotonic()
    ours = one_by_one(questions, engine, sampling)
    our_seconds = time.monotonic() - began
    report = {
        "questions": len(questions),
        "official loop: seconds a question": round(their_seconds / len(questions), 2),
        "official loop: calls, output tokens": [model.calls, their_tokens],
        "official loop: output tokens a second": round(their_tokens / their_seconds, 1),
        "official loop: with a budget": sum(found["question_budget"] != "None" for found in theirs),
        "one by one: seconds a question": round(our_seconds / len(questions), 2),
        "one by one: calls, output tokens": [calls(ours), tokens(ours)],
        "one by one: output tokens a second": round(tokens(ours) / our_seconds, 1),
        "one by one: with a target": sum(bool(record.target) for record in ours),
    }
    print(publish("official_search", report))


if __name__ == "__main__":
    guarded(main, __doc__)
