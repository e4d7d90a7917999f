"""From search to report with secrets at every place for one, and with names, texts and errors that try to be more."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tale.analysis.estimators.recipe import EstimateRecipe
from tale.analysis.estimators.run import run_estimate
from tale.analysis.recipe import AnalyseRecipe
from tale.analysis.run import analyse
from tale.config.recipes import load
from tale.evaluation.recipe import EvaluateRecipe
from tale.evaluation.run import evaluate
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tests.fake_endpoint import FakeEndpoint, Reply, answer, refusal, used
from tests.results.test_report import Page
from tests.run_factories import evaluation_run, train_run

pytest.importorskip("openai", reason="pip install -e '.[openai]' brings the client")

SECRETS = {"MY_KEY": "Zx9bearerQ7", "MY_PASSWORD": "Zx9p@ss/wordQ7", "QUERY_KEY": "Zx9&query=Q7"}
EVIL = "=cmd|' /C calc'!A0 [/PT] $\\frac{$ </pre><script>alert(1)</script> \x1b[2J\x1b]0;t\x07\x9b31m\u202e\r--> _"
TEXT = f"{EVIL}\0\n@SUM(A1)\n"  # where a newline and a NUL may be, too
FOLDER = "runs/=1+1 [/b] $\\frac{{$ <i>'\"&\x1b[31m{} " + "long " * 40
STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]")
BUDGET_LINE = f"{EVIL} Use less than {{budget}} tokens:"
TELLS = re.compile(r"Use less than (\d+) tokens:\s*\Z")


def script(call: dict, number: int) -> Reply:
    """Right answers, as long as the budget asks; question 3 is refused with everything secret in the words."""
    prompt = call["messages"][0]["content"]
    if "Story 3 " in prompt:
        return refusal(400, f"{TEXT} {' '.join(SECRETS.values())} {' '.join(map(quote, SECRETS.values()))}")
    if prompt.startswith("Task: Analyze"):
        return answer(f"{TEXT} [[30]]", usage=used(50, 5))
    story = int(re.search(r"Story (\d+) ", prompt)[1])
    asked = TELLS.search(prompt)
    right = asked is None or int(asked[1]) >= 10 + story
    return answer(f"{TEXT} [[{7 if right else 8}]]", usage=used(50, min(int(asked[1]), 90) if asked else 100 + story))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable:
    """`given(kind, *arguments)` is the recipe of a command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    def call(kind: type, *arguments: str) -> object:
        monkeypatch.setattr(sys, "argv", ["scripts/command.py", *arguments])
        return load(kind, list(arguments))

    return call


def questions(name: str, numbers: range) -> str:
    lines = [{"question": f"Story {i} of {name}: {TEXT} how many?", "answer": "7"} for i in numbers]
    Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"{name}.jsonl"


def test_no_secret_is_kept_and_no_name_is_more_than_a_name(
    given: Callable, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    listed = lambda key, *paths: f"{key}={json.dumps(paths)}"  # noqa: E731
    with FakeEndpoint(script) as endpoint:
        url = endpoint.url.replace("//", "//me:$MY_PASSWORD@") + "?api-version=1&api-key=$QUERY_KEY"
        asking = (f"engine.endpoint.base_url={url}", "engine.endpoint.api_key_env=MY_KEY", "engine.kind=openai",
                  "engine.endpoint.max_retries=0", f"model.name_or_path={EVIL}", "task.name=jsonl",
                  "task.limit=null", "sampling.max_tokens=256")  # fmt: skip
        searches = []
        for name, strategy in (("train", "greedy"), ("=grid [x] $\x1b", "grid")):
            output, path = (
                FOLDER.format(strategy),
                questions(name, range(40) if strategy == "greedy" else range(40, 50)),
            )
            asked = (f"strategy={strategy}", "budget_fractions=[0.1, 0.3, 1]", f"budget_line={BUDGET_LINE}")
            recipe = given(SearchRecipe, "recipe=tiny/search", *asking, f"task.path={path}", f"output={output}", *asked)
            searches.append(str(run_search(recipe)))
        train, grid = searches
        budgets = FOLDER.format("budgets")
        run_estimate(
            given(
                EstimateRecipe,
                listed("train_records", train),
                listed("grid_records", grid),
                f"output={budgets}",
                "ridge=1",
            )
        )
        methods = [
            {"kind": "vanilla", "label": EVIL},
            {"kind": "tale_ep", "label": f"_{EVIL}"},
            {"kind": "tale_ep", "label": "-1", "estimator": f"{budgets}/regression", "budget_line": BUDGET_LINE},
        ]
        evaluated = FOLDER.format("eval")
        path = questions("test", range(60, 66))
        evaluate(given(EvaluateRecipe, "recipe=tiny/eval", *asking, f"task.path={path}",
                       f"methods={json.dumps(methods)}", f"output={evaluated}"))  # fmt: skip
    analysis = FOLDER.format("analysis")
    analyse(given(AnalyseRecipe, listed("records", train, grid), f"output={analysis}"))
    adapter = FOLDER.format("sft")
    train_run(adapter)
    settings = (f"methods[2].adapter={adapter}/adapter", "sampling.max_tokens=256")
    adapted = evaluation_run(FOLDER.format("adapted"), *settings, extra=TEXT, trained=EVIL)
    runs = [str(Path(train).parent), budgets, evaluated, analysis, adapter, str(adapted)]
    page = report(given(ReportRecipe, listed("runs", *runs), "output=runs/report"))

    shown = "".join(capfd.readouterr())
    kept = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    hidden = [form for value in SECRETS.values() for form in {value, quote(value), quote(value, safe="")}]
    for secret in hidden:
        assert secret not in shown + caplog.text
        assert [file for file, content in kept.items() if secret.encode() in content] == []
    assert "$MY_PASSWORD" in (Path(evaluated) / "recipe.yaml").read_text()

    written = re.sub(r"\r|\x1b\[A", "", shown)  # a progress bar's own
    assert STEERING.findall(written) == []
    assert "[/PT]" in written
    text = page.read_text(encoding="utf-8")
    assert STEERING.findall(text.replace("\r", "\0")) == []
    assert "<script" not in text
    taken = Page(page)  # every element is closed
    assert len(taken.ids) == len(set(taken.ids))
    assert "[/PT] $\\frac{$ </pre><script>alert(1)</script> \\x1b[2J" in taken.text

    tables = [file for file in kept if file.suffix == ".csv"]
    assert len(tables) > 15
    for file in tables:
        with file.open(newline="", encoding="utf-8") as lines:
            cells = [cell for row in csv.reader(lines) for cell in row]
        assert [cell for cell in cells if re.match(r"\s*[=+@]|\s*-(?!\d)|[\t\n]", cell)] == []
        assert STEERING.findall("".join(cells)) == []
