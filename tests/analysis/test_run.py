"""Whole analyses of a few records, their figures by hand; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from tale.analysis.paths import Iteration
from tale.analysis.plot import draw_paths
from tale.analysis.recipe import AnalyseRecipe
from tale.analysis.run import analyse
from tale.config.recipes import load
from tale.data.records import write_records
from tale.errors import UserError
from tale.inference import Completion
from tale.runs.run import finish_run, start_run
from tale.search.recipe import SearchRecipe
from tale.search.solver import search
from tale.search.strategies import STRATEGIES
from tale.storage.folder import hash_path
from tests.fake_engine import BRIEFLY, GREEDY, Asked, FakeEngine, questions, right, wrong

SHARES = [0.1, 0.25, 0.5, 1.0]
# Tokens by budget, negative where the answer is wrong; vanilla's are 100, 100, 200, and the last one's is wrong.
ANSWERS = {
    "q/0": {None: 100, 10: 120, 25: 30, 50: 40, 100: 90},  # elastic; all right
    "q/1": {None: 100, 10: -20, 25: -30, 50: 40, 100: 60},  # monotone from β* = 50 up
    "q/2": {None: 200, 20: -50, 50: -60, 100: -70, 200: -80},  # no β*
    "q/3": {None: -100},
}


def reply(asked: Asked) -> Completion:
    tokens = ANSWERS[asked.question.id][asked.budget]
    return right(tokens) if tokens > 0 else wrong(-tokens)


@pytest.fixture
def searched(tmp_path: Path) -> Callable[..., Path]:
    """`searched("name", "grid")` is the records.jsonl of a search by a fake engine in a run folder of that name."""

    def make(
        name: str,
        strategy: str,
        script: Callable[[Asked], Completion] = reply,
        sampling=GREEDY,
        line: str | None = None,
        full: bool = True,
    ) -> Path:
        folder = tmp_path / name
        given = [f"strategy={strategy}", f"budget_fractions={SHARES}", f"sampling.max_tokens={sampling.max_tokens}"]
        start_run(load(SearchRecipe, ["recipe=tiny/search", f"output={folder}", *given]), None, ["records.jsonl"])
        asked = questions(4)
        way = partial(STRATEGIES["grid"], fractions=SHARES) if strategy == "grid" else STRATEGIES[strategy]
        engine = FakeEngine(asked, script, budget_line=line)
        records = search(asked, engine, sampling, strategy=way, budget_line=line, full_answers=full)
        write_records(folder / "records.jsonl", records)
        finish_run(folder)
        return folder / "records.jsonl"

    return make


def analysed(files: Sequence[Path], folder: Path) -> Callable[[str], list[dict]]:
    """Run the analysis; read a table of it by name."""
    analyse(load(AnalyseRecipe, [f"records=[{','.join(map(str, files))}]", f"output={folder}"]))
    return lambda name: json.loads((folder / f"{name}.json").read_text())


def test_the_elasticity_curve_by_hand(searched: Callable[..., Path], tmp_path: Path) -> None:
    rows = analysed([searched("grid", "grid")], tmp_path / "out")("elasticity")
    assert [row["share"] for row in rows] == [*SHARES, None]
    assert {row["questions"] for row in rows} == {3}
    assert [row["asked"] for row in rows] == [pytest.approx(v) for v in (40 / 3, 100 / 3, 200 / 3, 400 / 3)] + [None]
    used = [190 / 3, 40, 50, 230 / 3, 400 / 3]
    assert [row["used"] for row in rows] == pytest.approx(used)
    assert [row["used_share"] for row in rows] == pytest.approx([tokens / (400 / 3) for tokens in used])
    assert [row["accuracy"] for row in rows] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])
    # used / asked: 12, 2, 2.5; 1.2, 1.2, 1.2; 0.8, 0.8, 0.7; 0.9, 0.6, 0.4
    assert [row["adherence"] for row in rows] == [2.5, 1.2, 0.8, 0.6, None]
    assert [row["within"] for row in rows] == [0, 0, 1, 1, None]
    assert all(row["used_low"] < row["used"] < row["used_high"] for row in rows)


def test_each_questions_figures_and_the_models_by_hand(searched: Callable[..., Path], tmp_path: Path) -> None:
    table = analysed([searched("grid", "grid")], tmp_path / "out")
    first, second, third = table("questions")
    # Four right budgets: k = round(4/3) = 1, the cheapest one.
    assert (first["star"], first["elasticity_point"], first["elastic"]) == (25, 25, True)
    assert (first["ideal_low"], first["ideal_high"], first["monotone"], first["threshold"]) == (25, 25, False, True)
    assert (second["star"], second["elasticity_point"], second["elastic"]) == (50, 50, False)
    assert (second["monotone"], second["threshold"]) == (True, True)
    assert {third[name] for name in ("star", "elasticity_point", "elastic", "ideal_low", "monotone")} == {None}
    (model,) = table("models")
    assert (model["questions"], model["searched"], model["with_star"]) == (4, 3, 2)
    assert (model["elasticity_point"], model["elastic"], model["median_elasticity_point"]) == (0.25, True, 37.5)
    assert (model["elastic_share"], model["monotone_share"], model["threshold_share"]) == (0.5, 0.5, 1)


def test_shares_that_fall_on_one_budget_are_each_counted(searched: Callable[..., Path], tmp_path: Path) -> None:
    """Vanilla answers of one token: every share is a budget of 1, asked once."""
    file = searched("grid", "grid", lambda asked: right(1))
    rows = analysed([file], tmp_path / "out")("elasticity")
    assert [(row["share"], row["asked"], row["used"]) for row in rows] == [(s, 1, 1) for s in SHARES] + [
        (None, None, 1)
    ]


def test_the_paths_of_a_halving_search_and_what_they_saved(searched: Callable[..., Path], tmp_path: Path) -> None:
    """Right at budgets 50 (40 tokens) and 25 (30), then wrong at 12."""
    script = lambda a: right(100) if a.budget is None else (right if a.budget > 20 else wrong)(a.budget + 5)  # noqa: E731
    table = analysed([searched("greedy", "greedy", script)], tmp_path / "out")
    path = [row for row in table("iterations") if row["question"] == "q/0"]
    assert [(row["iteration"], row["budget"], row["used"], row["feasible"]) for row in path] == [
        (0, 100, 100, True),
        (1, 50, 55, True),
        (2, 25, 30, True),
        (3, 12, 17, False),
    ]
    (saving,) = table("savings")
    assert (saving["questions"], saving["vanilla"], saving["searched"], saving["difference"]) == (4, 100, 30, -70)


def test_a_cost_above_every_budget_is_still_in_the_figure() -> None:
    asked, used = Figure().subplots(2)
    draw_paths(asked, used, [Iteration("s", "q/0", i, 100 / (i + 1), 100 * (i + 1), True) for i in range(9)])
    for axes in (asked, used):
        low, high = axes.get_ylim()
        assert low < 100 / 9
        assert high > 900


def test_several_searches_are_lines_of_their_own_with_plots(searched: Callable[..., Path], tmp_path: Path) -> None:
    files = [
        searched("a/grid", "grid"),
        searched("b/grid", "grid", lambda asked: right(9)),
        searched("c", "shortest_correct", lambda asked: right(9)),
    ]
    table = analysed(files, tmp_path / "out")
    assert [row["records"] for row in table("models")] == [str(file.parent) for file in files[:2]]
    assert {row["records"] for row in table("iterations")} == {"c"}
    for name in ("elasticity", "iterations", "savings"):
        with Image.open(tmp_path / "out" / f"{name}.png") as plot:
            assert len(plot.convert("L").getcolors()) > 2  # something is drawn


def test_each_way_to_ask_for_a_budget_has_its_elasticity_point(searched: Callable[..., Path], tmp_path: Path) -> None:
    obeyed = searched("brief", "grid", lambda asked: right(asked.budget or 100), line=BRIEFLY)
    models = analysed([searched("grid", "grid"), obeyed], tmp_path / "out")("models")
    points = {row["budget_line"]: (row["elasticity_point"], row["elastic"]) for row in models}
    assert points == {"the paper's": (0.25, True), BRIEFLY: (0.1, False)}


def test_a_joined_search_is_described_by_its_parts(searched: Callable[..., Path], tmp_path: Path) -> None:
    part = searched("grid/shard-1-of-2", "grid")
    joined = part.rename(tmp_path / "grid" / "records.jsonl")
    assert len(analysed([joined], tmp_path / "out")("questions")) == 3


def test_what_cannot_be_analysed_is_refused(searched: Callable[..., Path], tmp_path: Path) -> None:
    grid, out = searched("grid", "grid"), tmp_path / "out"
    with pytest.raises(UserError, match=r"^records: none given"):
        analysed([], out)
    with pytest.raises(UserError, match=r"^records: a file is given twice"):
        analysed([grid, grid], out)
    other = searched("other", "grid", sampling=GREEDY.__class__(max_tokens=99))
    with pytest.raises(UserError, match=r"has sampling.max_tokens=512, .* has sampling.max_tokens=99"):
        analysed([grid, other], out)
    nothing = searched("nothing", "grid", lambda asked: wrong(9))
    with pytest.raises(UserError, match="none of its 4 questions was searched"):
        analysed([nothing], out)
    recipe = grid.parent / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("- 0.25", "- 0.3"))
    with pytest.raises(UserError, match=r"grid/recipe.yaml: not the recipe of this run, see run.json; restore it, or"):
        analysed([grid], out)
    run = json.loads((grid.parent / "run.json").read_text())
    (grid.parent / "run.json").write_text(json.dumps(run | {"recipe": hash_path(recipe)}))
    with pytest.raises(UserError, match="q/0 was not asked under 30 tokens"):
        analysed([grid], out)
    recipe.unlink()
    with pytest.raises(UserError, match=r"grid: has run.json but no recipe.yaml; copy the whole folder, or run it"):
        analysed([grid], out)
    assert not list(out.glob("*.csv"))


def test_a_search_with_cut_answers_shows_savings_but_no_paths(searched, tmp_path, capsys) -> None:
    """Under 25 the answer has 100 tokens and was cut off at 29: how long it is, the records do not know."""
    reply = lambda a: {None: right(100), 50: right(30), 25: right(100)}[a.budget]  # noqa: E731
    table = analysed([searched("cut", "greedy", reply, full=False)], tmp_path / "out")
    assert [row["records"] for row in table("savings")] == ["cut"]
    assert not (tmp_path / "out" / "iterations.json").exists()
    assert "cut: not among the paths (Fig 2), as answers were cut off" in capsys.readouterr().out
