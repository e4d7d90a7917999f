"""A search in parts, by hand or in several processes, is the undivided one; parts that do not belong are refused."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tale.config.recipes import load
from tale.data.records import read_records
from tale.errors import UserError
from tale.inference import Sampling
from tale.inference.journal import JournaledEngine
from tale.runs.run import finish_run
from tale.search import run as search_run
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tale.tasks import load as load_benchmark
from tests.fake_engine import FakeEngine
from tests.fake_search import drawn
from tests.tiny_search import answerable, command

COUNT = 8
Search = Callable[..., Path]


class Drawn(FakeEngine):
    """`drawn` answers at temperature 1, a gold in each that is right."""

    def __init__(self, dies_after: int | None = None):
        asked = [q for seed in (0, 1) for q in load_benchmark("problems", None, "train", 2 * COUNT, seed)]
        super().__init__(asked, self._answer, dies_after)

    @staticmethod
    def _answer(asked):
        completion = drawn(asked, Sampling(512, 1.0))
        text = completion.text.replace("[[7]]", f"[[{asked.question.gold}]]").replace("[[8]]", "[[none]]")
        return type(completion)(**{**vars(completion), "text": text})


@pytest.fixture(scope="module")
def searched(tiny_model_folder: Path) -> Search:
    """`searched(folder, …)` runs a search there with a fake engine; `dies_after` so many it is killed."""

    def call(folder: Path, *given: str, dies_after: int | None = None) -> Path:
        arguments = ["recipe=tiny/search", f"model.name_or_path={tiny_model_folder}", f"output={folder}"]
        arguments += [
            "samples=2",
            "sampling.temperature=1",
            "sampling.max_tokens=512",
            f"task.limit={COUNT}",
            *given,
        ]
        with pytest.MonkeyPatch.context() as patch:
            fake = Drawn(dies_after)
            patch.setattr(
                search_run,
                "engines",
                lambda _config, _model, folder: [JournaledEngine(fake, folder / "journal.jsonl", {"name": "drawn"})],
            )
            return run_search(load(SearchRecipe, arguments))

    return call


@pytest.fixture(scope="module")
def made(searched: Search, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undivided search in `whole`, and in `parts` three parts that are not yet joined."""
    folder = tmp_path_factory.mktemp("made")
    searched(folder / "whole")
    for number in (1, 2, 3):
        searched(folder / "parts", f"shard={number}/3")
    return folder


@pytest.fixture
def parts(made: Path, tmp_path: Path) -> Path:
    """Three parts, to do with as a test likes."""
    return shutil.copytree(made / "parts", tmp_path / "parts")


def joined(searched: Search, parts: Path, *given: str) -> bytes:
    return searched(parts, "shard=join", *given).read_bytes()


def refused(searched: Search, parts: Path, *given: str) -> str:
    """Why the parts are not joined; nothing is written."""
    before = sorted(parts.rglob("*"))
    with pytest.raises(UserError) as error:
        searched(parts, "shard=join", *given)
    assert sorted(parts.rglob("*")) == before
    return str(error.value)


# --- Joined ---------------------------------------------------------------------------------------------------------


def test_the_fake_search_is_one_worth_dividing(made: Path) -> None:
    records = read_records(made / "whole" / "records.jsonl")
    assert len(records) == COUNT
    assert len({len(r.attempts) for r in records}) > 2
    assert {len(r.vanilla.answers) for r in records} == {2}
    assert len({r.target.tokens for r in records if r.target}) > 2


def test_three_parts_joined_are_the_undivided_searchs_bytes(searched: Search, made: Path, parts: Path) -> None:
    shares = [len(read_records(parts / f"shard-{number}-of-3" / "records.jsonl")) for number in (1, 2, 3)]
    assert shares == [3, 3, 2]
    assert joined(searched, parts) == (made / "whole" / "records.jsonl").read_bytes()


@pytest.mark.parametrize("count", [2, COUNT, COUNT + 3])
def test_any_number_of_parts_joined_is_the_undivided_search(
    count: int, searched: Search, made: Path, tmp_path: Path
) -> None:
    """Even more parts than questions."""
    for number in reversed(range(1, count + 1)):
        searched(tmp_path, f"shard={number}/{count}")
    assert joined(searched, tmp_path) == (made / "whole" / "records.jsonl").read_bytes()


def test_one_part_of_one_is_the_undivided_search(searched: Search, made: Path, tmp_path: Path) -> None:
    file = searched(tmp_path, "shard=1/1")
    assert file == tmp_path / "records.jsonl"
    assert file.read_bytes() == (made / "whole" / "records.jsonl").read_bytes()


def test_parts_may_differ_in_device_batch_size_and_price(searched: Search, made: Path, parts: Path) -> None:
    shutil.rmtree(parts / "shard-2-of-3")
    other = [
        "engine.device=cpu",
        "engine.batch_size=7",
        "engine.vllm.gpu_memory_utilization=0.5",
        "max_in_flight=2",
        "prices.output=9",
    ]
    searched(parts, "shard=2/3", *other)
    assert joined(searched, parts) == (made / "whole" / "records.jsonl").read_bytes()


def test_a_killed_part_resumes_from_its_own_journal(searched: Search, made: Path, parts: Path) -> None:
    folder = parts / "shard-2-of-3"
    shutil.rmtree(folder)
    with pytest.raises(KeyboardInterrupt):
        searched(parts, "shard=2/3", dies_after=4)
    assert len((folder / "journal.jsonl").read_text().splitlines()) == 1 + 4
    assert "not finished: shard=2/3;" in refused(searched, parts)
    searched(parts, "shard=2/3")
    assert joined(searched, parts) == (made / "whole" / "records.jsonl").read_bytes()


# --- Refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["0/3", "4/3", "x", "3", "1/0", "-1/3", "1/2/3", "join/3", "1 / 3"])
def test_no_such_shard(shard: str, searched: Search, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^shard={shard}: the second of eight parts is 2/8; join merges all parts"):
        searched(tmp_path / "none", f"shard={shard}")
    assert not (tmp_path / "none").exists()


def test_no_part_at_all(searched: Search, tmp_path: Path) -> None:
    assert refused(searched, tmp_path) == f"{tmp_path}: no part of a search here; create them with shard=1/2, shard=2/2"


@pytest.mark.parametrize("name", [".", "records.jsonl", "run.json", "recipe.yaml"])
def test_missing_and_unfinished_parts_are_named_all_at_once(name: str, searched: Search, parts: Path) -> None:
    for number in (1, 3):
        file = parts / f"shard-{number}-of-3" / name
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    said = f"{parts}: parts missing or not finished: shard=1/3, shard=3/3; run the search with each of them"
    assert refused(searched, parts) == said


def test_two_divisions_in_one_folder(searched: Search, parts: Path) -> None:
    searched(parts, "shard=1/2")
    said = f"{parts}: parts overlap: 1/2, 1/3, 2/3, 3/3; remove those of one division"
    assert refused(searched, parts) == said


@pytest.mark.parametrize(
    ("given", "made_with"),
    [
        ("sampling.temperature=0.5", "sampling.temperature=0.5, but 1.0 is wanted"),
        ("sampling.seed=7", "sampling.seed=7, but 1024 is wanted"),
        ("sampling.max_tokens=17", "sampling.max_tokens=17, but 512 is wanted"),
        ("samples=3", "samples=3, but 2 is wanted"),
        ("strategy=shortest_correct", "strategy=shortest_correct, but greedy is wanted"),
        ("acceptance=majority", "acceptance=majority, but any is wanted"),
        ("model.dtype=bfloat16", "model.dtype=bfloat16, but float32 is wanted"),
        ("task.limit=9", "task.limit=9, but 8 is wanted"),
        ("task.seed=1", "task.seed=1, but 0 is wanted"),
    ],
)
def test_a_part_of_other_settings_is_refused_by_folder_and_key(
    given: str, made_with: str, searched: Search, parts: Path
) -> None:
    searched(parts, "shard=2/3", given)
    mend = "run this part again (answers in its journal are reused)"
    assert refused(searched, parts) == f"{parts / 'shard-2-of-3'}: made with {made_with}; {mend}"


def test_parts_that_all_differ_from_the_command_are_refused(searched: Search, parts: Path) -> None:
    said = refused(searched, parts, "strategy=shortest_correct")
    assert said.startswith(f"{parts / 'shard-1-of-3'}: made with strategy=greedy, but shortest_correct is wanted; ")


def test_a_part_made_by_another_model_of_the_same_name(
    searched: Search, parts: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_model_folder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    searched(parts, "shard=3/3", f"model.name_or_path={other}")
    bases = [json.loads((parts / f"shard-{n}-of-3" / "run.json").read_text())["base"] for n in (1, 3)]
    assert bases[0]["name"] == bases[1]["name"] == "tiny-llama"
    said = refused(searched, parts)
    assert said.startswith(f"{parts / 'shard-3-of-3'}: made with run.base={bases[1]}, but {bases[0]} is wanted; run th")


def test_a_model_that_only_lies_elsewhere_is_the_same(
    searched: Search, made: Path, parts: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    searched(parts, "shard=3/3", f"model.name_or_path={shutil.copytree(tiny_model_folder, tmp_path / 'elsewhere')}")
    assert joined(searched, parts) == (made / "whole" / "records.jsonl").read_bytes()


def test_a_part_begun_again_under_other_settings_is_unfinished(searched: Search, parts: Path) -> None:
    """Its records of before are no longer what its recipe says."""
    searched(parts, "shard=1/3", "acceptance=majority")
    searched(parts, "shard=3/3", "acceptance=majority")
    with pytest.raises(KeyboardInterrupt):
        searched(parts, "shard=2/3", "acceptance=majority", "samples=4", dies_after=1)
    assert "not finished: shard=2/3;" in refused(searched, parts, "acceptance=majority")


def test_a_part_of_another_file_with_the_same_ids(searched: Search, tmp_path: Path) -> None:
    """A file's questions are known by their numbers: only the texts tell that the file has changed."""
    stories = load_benchmark("problems", None, "train", 4, 0)
    rows = [{"question": q.text, "answer": q.gold} for q in stories]
    file = tmp_path / "questions.jsonl"
    given = ["task.name=jsonl", f"task.path={file}", "task.limit=null"]
    for number, order in ((1, rows), (2, [rows[0], rows[3], rows[2], rows[1]])):
        file.write_text("".join(json.dumps(row) + "\n" for row in order))
        searched(tmp_path / "run", f"shard={number}/2", *given)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = refused(searched, tmp_path / "run", *given)
    assert said.startswith(f"{tmp_path / 'run' / 'shard-2-of-2'}: has question ")
    assert f"({stories[3].text[:40]!r}) where question " in said
    assert f"({stories[1].text[:40]!r}) belongs: other questions were searched, or not all of them; run this" in said


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_part_without_its_last_line(number: int, searched: Search, parts: Path) -> None:
    file = parts / f"shard-{number}-of-3" / "records.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    finish_run(file.parent)
    lost = json.loads(lines[-1])["question"]["id"]
    assert f"{file.parent}: has no question where question {lost} (" in refused(searched, parts)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_part_with_a_line_too_many(number: int, searched: Search, parts: Path) -> None:
    file = parts / f"shard-{number}-of-3" / "records.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines, lines[-1]]))
    finish_run(file.parent)
    assert " where no question belongs: other questions were searched" in refused(searched, parts)


def test_two_lines_that_changed_places(searched: Search, parts: Path) -> None:
    file = parts / "shard-1-of-3" / "records.jsonl"
    first, second, third = file.read_text().splitlines(keepends=True)
    file.write_text(second + first + third)
    assert "records.jsonl: changed since the run in" in refused(searched, parts)
    finish_run(file.parent)
    ids = [json.loads(line)["question"]["id"] for line in (first, second)]
    assert f"{file.parent}: has question {ids[1]} (" in refused(searched, parts)


def test_a_refused_join_leaves_the_records_of_the_last_one(searched: Search, parts: Path) -> None:
    before = joined(searched, parts)
    file = parts / "shard-3-of-3" / "records.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    refused(searched, parts)
    assert (parts / "records.jsonl").read_bytes() == before


# --- Several processes ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_are_one(tiny_model_folder: Path, tmp_path: Path) -> None:
    """The real engine, float32: the batches are others, and no byte differs."""
    given = answerable(tiny_model_folder, tmp_path, 7)
    whole = run_search(load(SearchRecipe, [*given, f"output={tmp_path / 'one'}"]))
    with command(*given, f"output={tmp_path / 'two'}", "fabric.devices=2") as process:
        said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert (tmp_path / "two" / "records.jsonl").read_bytes() == whole.read_bytes()
    parts = [read_records(tmp_path / "two" / f"shard-{number}-of-2" / "records.jsonl") for number in (1, 2)]
    assert [len(part) for part in parts] == [4, 3]
    assert any(record.attempts for record in read_records(whole))
    with command(*given, f"output={tmp_path / 'two'}", "shard=join") as process:
        process.communicate(timeout=600)
    assert (tmp_path / "two" / "records.jsonl").read_bytes() == whole.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("failing", [1, 2])
def test_one_of_two_processes_fails_and_the_command_with_it(
    failing: int, tiny_model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / f"shard-{failing}-of-2"
    folder.touch()
    given = ["recipe=tiny/search", f"model.name_or_path={tiny_model_folder}", "engine.device=cpu", f"output={tmp_path}"]
    with command(*given, "fabric.devices=2") as process:
        said, _ = process.communicate(timeout=600)  # both have ended when their output has
    assert process.returncode in (2, -signal.SIGKILL), said  # Lightning's watch kills the first when another has failed
    assert f"error: {folder}: cannot be written (File exists)" in said
    assert "Traceback" not in said
    assert not (tmp_path / "records.jsonl").exists()
    assert not [*tmp_path.rglob("records.jsonl")]
