"""A folder is written by one command at a time, and what is in it is believed only as its own run's."""

from __future__ import annotations

import errno
import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tale.analysis.estimators.recipe import EstimateRecipe
from tale.analysis.estimators.run import run_estimate
from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.data.records import read_records, write_records
from tale.errors import UserError
from tale.estimators.saved import load_estimator
from tale.evaluation.ask import AskRecipe
from tale.evaluation.replies import read_replies
from tale.models.adapters import read_card
from tale.results.recipe import ReportRecipe
from tale.results.run import report
from tale.runs.run import finish_run, lock_output, start_run
from tale.search.recipe import SearchRecipe
from tale.storage import files
from tale.storage.files import atomic_folder
from tale.storage.folder import check_output, hash_path, is_finished, locked
from tale.training import run as training_run
from tale.training.loop import _log
from tale.training.merge import MergeRecipe, merge
from tests import concurrent_commands
from tests.factories import pairs
from tests.factories import recipe as training
from tests.run_factories import evaluation_run, search_run, train_run


def state(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- Held -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_held_once_and_left_without_a_trace() -> None:
    with (
        locked(Path("runs/a")),
        pytest.raises(UserError, match=r"^runs/a: another process is writing there; wait until it"),
        locked(Path("runs/a")),
    ):
        pass
    assert not Path("runs/a").exists()
    Path("runs/a").mkdir()
    with locked(Path("runs/a")):
        pass
    assert [*Path("runs").rglob("*")] == [Path("runs/a")]


def test_a_deleted_folder_is_not_taken_from_its_new_holder() -> None:
    with locked(Path("a")):
        shutil.rmtree("a")
        with locked(Path("a")):
            before = state(Path("a"))
            with pytest.raises(UserError, match="another process is writing there"), locked(Path("a")):
                pass
            assert state(Path("a")) == before == {".lock": b""}
    assert not Path("a").exists()


def test_a_run_whose_output_is_deleted_while_it_works_says_so() -> None:
    recipe = load(SearchRecipe, ["recipe=tiny/search", "output=run"])
    with lock_output(recipe) as folder:
        start_run(recipe, outputs=["records.jsonl"])
        shutil.rmtree(folder)
        write_records(folder / "records.jsonl", pairs(1))
        with pytest.raises(UserError, match=r"^run: was deleted while the run was writing there; run the same comm"):
            finish_run(folder)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (SearchRecipe, ["recipe=tiny/search"], r"^runs/sft: has the results of train, this is search; choose another"),
        (TrainRecipe, ["recipe=tiny/sft"], None),
        (ReportRecipe, ["runs=[runs/search]"], r"^runs/sft: has the results of train, this is report; choose another"),
    ],
)
def test_a_folder_has_one_kind_of_run(kind: type, given: list[str], said: str | None) -> None:
    run = train_run()
    before, recipe = state(run), load(kind, [*given, f"output={run}"])
    if said is None:
        with lock_output(recipe):
            return
    with pytest.raises(UserError, match=said), lock_output(recipe):
        pass
    assert state(run) == before


def test_a_run_is_not_written_into_a_result_of_another() -> None:
    run = train_run()
    Path("link").symlink_to(run / "adapter")
    before = state(run)
    for folder in (run / "adapter", Path("link")):
        recipe = load(ReportRecipe, ["runs=[runs/search]", f"output={folder}"])
        with pytest.raises(UserError, match=rf"^{folder}: is a result of the run in "), lock_output(recipe):
            pass
    assert state(run) == before


@pytest.mark.parametrize("key", ["lora.init_from", "model.merge_adapter"])
def test_training_does_not_overwrite_the_adapter_it_starts_from(key: str) -> None:
    run = train_run()
    before, given = state(run), f"{run}/../sft/adapter"
    with pytest.raises(UserError, match=rf"^{key}={given}: this run would overwrite it; choose another output"):
        training_run.train(load(TrainRecipe, ["recipe=tiny/sft", f"output={run}", f"{key}={given}"]))
    assert state(run) == before


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, concurrent_commands.Command]:
    """Every command that writes a folder, with two recipes each."""
    made = tmp_path_factory.mktemp("made")
    concurrent_commands.prepare(made)
    return concurrent_commands.commands(made)


@pytest.mark.parametrize("first", ["search", "train", "evaluate", "estimate", "merge"])
def test_a_second_command_is_refused_and_changes_no_byte(
    first: str, commands: dict[str, concurrent_commands.Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other command, and the same with another recipe, begun when the first has just written its run.json."""
    replace, refused = files.os.replace, []

    def then_the_others(draft: Path, file: Path) -> None:
        replace(draft, file)
        if file.name != "run.json" or refused:
            return
        refused.append(file)
        before = state(Path())
        for name, command in commands.items():
            with pytest.raises(
                UserError, match=r"^run: another process is writing there; wait until it ends, or choose"
            ):
                command(1)
            assert state(Path()) == before, name

    monkeypatch.setattr(files.os, "replace", then_the_others)
    commands[first](0)
    assert len(refused) == 1
    assert not [*Path().rglob(".*")]


# --- Killed at any write --------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a run as a kill would: nothing that it would still do is done."""


def killed_at(write: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """From now on the process dies before its file number `write` (from 0) stands; how many did, in the end."""
    count, replace = iter(range(1_000)), files.os.replace
    done = [0]

    def counted(*names: object) -> None:
        if next(count) == write:
            raise Killed
        done[0] += 1
        replace(*names)

    monkeypatch.setattr(files.os, "replace", counted)
    return lambda: done[0]


def test_a_killed_start_leaves_no_result_of_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimators of β* = 20 over some of β* = 10: what is taken for a run's own is its recipe's, at each moment."""
    estimators = "constant", "regression", "conformal"
    recipe = lambda star, output: load(  # noqa: E731
        EstimateRecipe, [f"train_records=[{star}/records.jsonl]", "coverage=0.5", "ridge=1", f"output={output}"]
    )
    alone = {}
    for star in (10, 20):
        searched(tmp_path / str(star), star)
        run_estimate(recipe(star, f"of-{star}"))
        alone[star] = {name: load_estimator(Path(f"of-{star}") / name)[0] for name in estimators}
        assert alone[star]["constant"].value == star
    for write in range(20):
        shutil.copytree("of-10", "run")
        with monkeypatch.context() as patch:
            written = killed_at(write, patch)
            try:
                run_estimate(recipe(20, "run"))
            except Killed:
                pass
            else:
                break
        stands = load(EstimateRecipe, ["recipe=run/recipe.yaml"]).train_records
        for name in estimators:
            try:
                believed = load_estimator(Path("run") / name)[0]
            except UserError:
                continue
            assert believed == alone[int(Path(stands[0]).parent.name)][name]
        shutil.rmtree("run")
    assert write == written() == 6  # recipe, run.json, three estimators, run.json
    assert {name: load_estimator(Path("run") / name)[0] for name in estimators} == alone[20]


def searched(folder: Path, star: int) -> None:
    recipe = load(SearchRecipe, ["recipe=tiny/search", f"output={folder}"])
    start_run(recipe, None, ["records.jsonl"])
    write_records(folder / "records.jsonl", [replace(record, budget=star) for record in pairs(40)])
    finish_run(folder)


# --- Believed -------------------------------------------------------------------------------------------------------


def test_a_run_lists_its_outputs_once_they_are_there() -> None:
    recipe = load(SearchRecipe, ["recipe=tiny/search", "output=run"])
    run = start_run(recipe, outputs=["records.jsonl", "table.csv"])
    write_records(run / "records.jsonl", pairs(1))
    assert not is_finished(run / "records.jsonl")
    with pytest.raises(UserError, match=r"^run/records.jsonl: the run in run has not finished it, or did not write it"):
        read_records(run / "records.jsonl")
    finish_run(run)
    assert is_finished(run / "records.jsonl")
    assert len(read_records(run / "records.jsonl")) == 1
    assert not is_finished(run / "table.csv")
    assert json.loads((run / "run.json").read_text())["outputs"]["table.csv"] is None
    start_run(recipe, outputs=["records.jsonl"])
    assert sorted(file.name for file in run.iterdir()) == ["recipe.yaml", "run.json"]


@pytest.mark.parametrize(
    ("make", "name", "read"),
    [
        (search_run, "records.jsonl", read_records),
        (evaluation_run, "replies.jsonl", read_replies),
        (train_run, "adapter", read_card),
    ],
)
def test_what_is_not_the_runs_own_is_refused_by_each_reader(make, name: str, read: Callable[[Path], object]) -> None:
    """Another file in its place, another recipe beside it, and the folder copied by half; alone it is as it was."""
    run = make("runs/one")
    if name == "adapter":
        (run / name / "adapter_model.safetensors").write_bytes(b"")
        finish_run(run)
    read(run / name)
    shutil.copytree(run, "runs/half")
    (Path("runs/half") / "recipe.yaml").unlink()
    with pytest.raises(UserError, match=r"^runs/half: has run.json but no recipe.yaml; copy the whole folder, or run"):
        read(Path("runs/half") / name)
    (Path("runs/half") / "run.json").unlink()
    read(Path("runs/half") / name)
    recipe = run / "recipe.yaml"
    before = recipe.read_text()
    recipe.write_text(before.replace("seed: 0", "seed: 1").replace("max_tokens: 16", "max_tokens: 17"))
    with pytest.raises(UserError, match=r"^runs/one/recipe.yaml: not the recipe of this run, see run.json; restore it"):
        read(run / name)
    recipe.write_text(before)
    with (run / name / "tale.json" if name == "adapter" else run / name).open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=rf"^runs/one/{name}: changed since the run in runs/one wrote it; restore it"):
        read(run / name)


def test_a_folder_of_an_earlier_version_is_read_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    run = search_run("runs/earlier")
    described = json.loads((run / "run.json").read_text())
    described = {name: value for name, value in described.items() if name not in ("outputs", "recipe", "kind")}
    (run / "run.json").write_text(json.dumps(described))
    assert len(read_records(run / "records.jsonl")) == 3
    said = "warning: runs/earlier: written by an earlier version without hashes; its files were not checked\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(("missing", "there"), [("run.json", "recipe.yaml"), ("recipe.yaml", "run.json")])
def test_a_run_needs_run_json_and_recipe_to_be_reported(missing: str, there: str) -> None:
    run = search_run()
    (run / missing).unlink()
    with pytest.raises(UserError, match=rf"^runs/search: has {there} but no {missing}; copy the whole folder, or run"):
        report(load(ReportRecipe, [f"runs=[{run}]", "output=report"]))


def test_a_run_with_an_emptied_recipe_is_not_another_kind() -> None:
    run = search_run()
    (run / "recipe.yaml").write_text("")
    with pytest.raises(UserError, match=r"^runs/search/recipe.yaml: not the recipe of this run"):
        report(load(ReportRecipe, [f"runs=[{run}]", "output=report"]))


@pytest.mark.parametrize(("kind", "given"), [(AskRecipe, "question=Who?"), (MergeRecipe, "output=merged")])
def test_a_base_is_taken_from_the_adapters_own_recipe_alone(kind: type, given: str) -> None:
    run = train_run()
    assert load(kind, [f"adapter={run / 'adapter'}", given]).model.name == "tiny-llama"
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("tiny-llama", "other"))
    with pytest.raises(UserError, match=r"^runs/sft/recipe.yaml: not the recipe of this run"):
        load(kind, [f"adapter={run / 'adapter'}", given])


# --- Training -------------------------------------------------------------------------------------------------------


def test_an_adapter_stays_on_resume_but_not_for_another_recipe(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "r.jsonl", pairs(8))
    made = training(tiny_model_folder, tmp_path / "run", tmp_path / "r.jsonl", "sft", "train.max_steps=2")
    training_run.train(made)
    whole = state(tmp_path / "run" / "adapter")

    def dies(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(training_run, "fit", dies)
    made.resume = "auto"
    with pytest.raises(Killed):
        training_run.train(made)
    check_output(tmp_path / "run" / "adapter")
    assert state(tmp_path / "run" / "adapter") == whole
    made.optimizer.lr, before = 0.5, state(tmp_path / "run")
    with pytest.raises(UserError, match="written with another optim"):
        training_run.train(made)
    assert state(tmp_path / "run") == before
    made.resume = None
    with pytest.raises(Killed):
        training_run.train(made)
    assert sorted(state(tmp_path / "run")) == ["recipe.yaml", "run.json"]


# --- No room --------------------------------------------------------------------------------------------------------


def test_a_merge_for_which_there_is_no_room_leaves_nothing(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "r.jsonl", pairs(8))
    training_run.train(training(tiny_model_folder, tmp_path / "run", tmp_path / "r.jsonl", "sft", "train.max_steps=1"))
    before = sorted(tmp_path.iterdir())
    given = [f"adapter={tmp_path / 'run' / 'adapter'}", f"output={tmp_path / 'merged'}"]
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(
            UserError, match=r"merged: cannot be written \(.*[Ff]ile too large.*\)\. Nothing written be"
        ):
            merge(load(MergeRecipe, given))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert sorted(tmp_path.iterdir()) == before
    merge(load(MergeRecipe, given))
    read = json.loads(Path("merged/run.json").read_text())["inputs"]
    assert read == {str(tmp_path / "run" / "adapter"): hash_path(Path("run/adapter"))}
    with (
        pytest.raises(UserError, match=r"^merged: has the results of merge, this is search; choose another output"),
        lock_output(load(SearchRecipe, ["recipe=tiny/search", "output=merged"])),
    ):
        pass
    with pytest.raises(UserError, match=r"^output: .*merged exists; give a new folder"):
        merge(load(MergeRecipe, given))


def test_a_log_for_which_there_is_no_room_names_the_runs_folder() -> None:
    class Full:
        def log_dict(self, *_: object, **__: object) -> None:
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError as error:  # as Lightning does
                raise ValueError("you tried to log 1.0 which is currently not supported") from error

    with pytest.raises(UserError, match=r"^runs/sft: cannot be written \(No space left on device\)"):
        _log(Full(), Path("runs/sft"), {"loss": 1.0}, step=0)


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def half() -> None:
        with atomic_folder(tmp_path / "new") as draft:
            (draft / "half").touch()
            raise Killed

    with pytest.raises(Killed):
        half()
    assert [*tmp_path.iterdir()] == []
    with atomic_folder(tmp_path / "new") as draft:
        (draft / "whole").touch()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["whole"]
