"""The report in headless Chromium: nothing stands out sideways, on a laptop or a phone, and nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tale.config.recipes import load
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tests.browser import World, chromium, needs_browser, seen
from tests.run_factories import (
    analysis_run,
    estimate_run,
    evaluation_run,
    search_run,
    serve_run,
    strategies_run,
    train_run,
)

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        search_run()
        search_run("runs/a_search_of_a_very_long_name_in_a_folder_that_nobody_would_choose_but_somebody_will")
        train_run()
        analysis_run()
        estimate_run()
        serve_run()
        evaluation_run(extra=f" {'endless' * 60} <img src='http://elsewhere.test/x.png'>")
        runs = ",".join(str(path) for path in sorted(Path("runs").iterdir()))
        return report(load(ReportRecipe, [f"runs=[{runs}]", "output=runs/report", "price_per_hour=1"])).resolve()


@pytest.fixture(scope="module")
def strategies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with strategies."""
    folder = tmp_path_factory.mktemp("strategies")
    strategies_run(folder / "eval", f" {'endless' * 60} <img src='http://elsewhere.test/x.png'>")
    return report(load(ReportRecipe, [f"runs=[{folder}/eval]", f"output={folder}/report"])).resolve()


@pytest.mark.parametrize("width", [1366, 390])
@pytest.mark.parametrize("of", ["page", "strategies"])
def test_nothing_stands_out_sideways_and_nothing_is_fetched(
    of: str, width: int, world: World, request: pytest.FixtureRequest
) -> None:
    found = seen(request.getfixturevalue(of), width, world)
    assert found["clientWidth"] == width
    assert found["scrollWidth"] <= width
    assert found["fetched"] == []


def test_what_does_stand_out_or_is_fetched_would_be_seen(page: Path, world: World) -> None:
    picture = "http://elsewhere.test/picture.png"
    found = seen(page, 390, world, f'<div style="width: 700px">x</div><img src="{picture}">')
    assert found["scrollWidth"] >= 700
    assert found["fetched"] == [picture]


def test_the_picked_question_alone_is_shown(strategies: Path) -> None:
    """By the page's own script, under its policy; another script would not run."""
    text = strategies.read_text(encoding="utf-8")
    other = strategies.with_name("other.html")
    other.write_text(text.replace("</body>", "<script>document.body.innerHTML = '';</script></body>"), encoding="utf-8")
    dom = chromium(strategies.parent, "--dump-dom", other.as_uri())
    assert text.count('<div class="picked">') == dom.count('class="picked"') == 8
    assert dom.count('<div class="picked" hidden="">') == 7


def test_it_can_be_printed(page: Path) -> None:
    file = page.with_name("report.pdf")
    chromium(page.parent, "--no-pdf-header-footer", f"--print-to-pdf={file}", page.as_uri())
    assert file.read_bytes().startswith(b"%PDF")
