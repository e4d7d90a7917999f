"""Every benchmark from its file or its publisher, and every bad input an error that says how to mend it."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tale.data.question import Question
from tale.errors import UserError
from tale.grading import grade
from tale.storage.files import write_atomic, write_jsonl_atomic
from tale.storage.strict_json import read_jsonl
from tale.tasks import BENCHMARKS, GENERATED, NAMES, load, reasoning_gym
from tale.tasks.mathbench import FILES


def file(folder: Path, *lines: str | dict[str, Any], name: str = "rows.jsonl") -> str:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


# --- Rows -----------------------------------------------------------------------------------------------------------


def test_gsm8k_gold_is_what_follows_the_mark(tmp_path: Path) -> None:
    path = file(
        tmp_path, {"question": " How many? ", "answer": "4*2=<<4*2=8>>8 #### 9\n#### 2,125 "}, name="train.jsonl"
    )
    assert load("gsm8k", path, "test") == [Question("gsm8k/train/0", "How many?", "2,125")]


@pytest.mark.parametrize(
    ("written", "gold"),
    [
        ("1.0", "1"),
        ("1000.0", "1000"),
        ("-2.50", "-2.5"),
        ("12.5", "12.5"),
        ("7", "7"),
        ("1e3", "1000"),
        ("100", "100"),
        ("0.1000000000000000000001", "0.1000000000000000000001"),
        ("9007199254740993.0", "9007199254740993"),
    ],
)
def test_gsm8k_zero_gold_keeps_every_digit(tmp_path: Path, written: str, gold: str) -> None:
    path = file(tmp_path, f'{{"question": "How many?", "answer": {written}}}')
    assert load("gsm8k_zero", path, "test")[0].gold == gold


def test_mathbench_rows(tmp_path: Path) -> None:
    cloze = file(tmp_path, {"question": "Calculate -31/3.", "answer": "-31/3", "topic": "t"}, name="cloze_en.jsonl")
    assert load("mathbench_arithmetic", cloze, "test") == [
        Question("mathbench_arithmetic/cloze_en/0", "Calculate -31/3.", "-31/3")
    ]
    options = ["7", "11", "12", "14"]
    choice = file(tmp_path, {"question": "树有____个。", "options": options, "answer": "B"}, name="c.jsonl")
    assert load("mathbench_college_cn", choice, "test") == [
        Question("mathbench_college_cn/c/0", "树有____个。", "B", "choice", "zh", tuple(options))
    ]


def test_any_jsonl(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        {"question": "Number?", "answer": 12.50, "source": "mine"},
        "",
        {"question": "Letter?", "answer": "b", "options": ["x", "y"]},
        {"question": "Root?", "answer": "\\sqrt{2}", "options": []},
        {"question": "Who?", "reference": " A dog.\nAnd a cat. "},
    )
    assert load("jsonl", path, "test") == [
        Question("jsonl/rows/0", "Number?", "12.5"),
        Question("jsonl/rows/1", "Letter?", "B", "choice", options=("x", "y")),
        Question("jsonl/rows/2", "Root?", "\\sqrt{2}"),
        Question("jsonl/rows/3", "Who?", "A dog.\nAnd a cat.", "text"),
    ]


SUMMARISED = {"code_tokens": ["def", "f", "(", ")", ":"], "docstring_tokens": ["Does", "it", "."]}
ANSWERED = {"utterance": "I missed him.", "response": "Was he nice?"}
WRITTEN = {"text": "Write f.", "code": "def f():\r\n\tpass", "test_list": ["assert f(1)", "assert f(2)"]}


@pytest.mark.parametrize(
    ("name", "row", "asked", "reference"),
    [
        (
            "codesearchnet",
            SUMMARISED,
            "def f ( ) :\nSummarize in one sentence what this Python function does.",
            "Does it .",
        ),
        (
            "empathetic_dialogues",
            ANSWERED,
            "I missed him.\nRespond with empathy to the person who says this.",
            "Was he nice?",
        ),
        (
            "mbpp",
            WRITTEN,
            "Write f. Your code should pass these tests:\nassert f(1)\nassert f(2)",
            "def f():\r\n\tpass",
        ),
    ],
)
def test_open_ended_rows(tmp_path: Path, name: str, row: dict[str, Any], asked: str, reference: str) -> None:
    assert load(name, file(tmp_path, row), "test") == [Question(f"{name}/rows/0", asked, reference, "text")]


ROWS = {"gsm8k/train": 7473, "gsm8k/test": 1319, "gsm8k_zero/dev": 2000}


@pytest.mark.parametrize(
    ("name", "path"),
    [("gsm8k", "gsm8k/train"), ("gsm8k", "gsm8k/test"), ("gsm8k_zero", "gsm8k_zero/dev")]
    + [(name, f"mathbench/{inner}") for name, inner in FILES.items()],
)
def test_the_real_files(name: str, path: str, shared_data: Path) -> None:
    questions = load(name, str(shared_data / f"{path}.jsonl"), "test")
    assert len(questions) == ROWS.get(path, 300 if "arithmetic" in path else 150)
    assert len({q.id for q in questions}) == len(questions)
    assert {q.language for q in questions} == {"zh" if path.endswith("cn") else "en"}
    assert {q.kind for q in questions} == {"choice" if "choice" in path else "number"}
    assert all(bool(q.options) == (q.kind == "choice") for q in questions)


# --- Bad input ------------------------------------------------------------------------------------------------------

WHOLE = {"question": "How many?", "answer": "#### 5"}
CHOICE = {"question": "Which?", "answer": "B", "options": ["x", "y"]}


@pytest.mark.parametrize(
    ("name", "line", "complaint"),
    [
        ("gsm8k", '{"question": "How ma', "not a whole JSON object"),
        ("gsm8k", "[1, 2]", "not a JSON object"),
        ("gsm8k", {"problem": "How many?", "answer": "#### 5"}, "'question' is missing; the row has problem, answer"),
        ("gsm8k", {"question": "", "answer": "#### 5"}, "'question' must be a text, not ''"),
        ("gsm8k", {"question": "How many?", "answer": "5"}, "does not end with '#### <number>'"),
        ("gsm8k", {"question": "How many?", "answer": "#### five"}, "'five', not a number"),
        ("gsm8k_zero", WHOLE, "'answer' must be a number, not '#### 5'"),
        ("gsm8k_zero", '{"question": "?", "answer": NaN}', "not a whole JSON object"),
        ("gsm8k_zero", {"question": "?", "answer": True}, "'answer' must be a number"),
        ("gsm8k_zero", {"question": "?"}, "'answer' is missing; the row has question"),
        ("mathbench_primary_en", CHOICE, "single choice file"),
        ("mathbench_middle_en", {"question": "?", "answer": "5"}, "'options' is missing"),
        ("mathbench_middle_en", CHOICE | {"answer": "C"}, "'C', not a letter from A to B"),
        ("mathbench_middle_en", CHOICE | {"options": ["x", 2]}, "a list of two to eight texts"),
        ("jsonl", WHOLE, r"task\.name=gsm8k"),
        ("jsonl", {"question": "?", "answer": None}, "'answer' must be a number"),
        ("jsonl", {"question": "?", "reference": ""}, "'reference' must be a text, not ''"),
        ("codesearchnet", SUMMARISED | {"docstring_tokens": []}, "'docstring_tokens' must be a list of texts"),
        ("empathetic_dialogues", {"utterance": "?"}, "'response' is missing; the row has utterance"),
        ("mbpp", WRITTEN | {"test_list": "assert f(1)"}, "'test_list' must be a list of texts"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, name: str, line: Any, complaint: str) -> None:
    good = {
        "gsm8k_zero": {"question": "?", "answer": 5},
        "gsm8k": WHOLE,
        "mathbench_middle_en": CHOICE,
        "codesearchnet": SUMMARISED,
        "empathetic_dialogues": ANSWERED,
        "mbpp": WRITTEN,
    }.get(name, {"question": "?", "answer": "5"})
    path = file(tmp_path, good, "", line)
    with pytest.raises(UserError, match=complaint) as caught:
        load(name, path, "test")
    assert str(caught.value).startswith(f"{path}:3: ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("gms8k", None, "test"), "task.name=gms8k: unknown. Did you mean 'gsm8k'?"),
        (("mathbench_college", None, "test"), "Did you mean 'mathbench_college_en'?"),
        (("gsm8k", "/no/such/file.jsonl", "test"), "/no/such/file.jsonl: cannot be read (No such file or directory)"),
        (("gsm8k", "/", "test"), "cannot be read (Is a directory)"),
        (("jsonl", None, "test"), "task.path: not given"),
        (("gsm8k_zero", None, "train"), "task.split=train: gsm8k_zero has test"),
        (("problems", None, "test"), "task.limit: is needed"),
        (("problems", "file.jsonl", "test", 5), "task.path=file.jsonl: problems are generated"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        load(*arguments)
    assert complaint in str(caught.value)


def rows_of(path: Path, exact: type | None = None) -> list[tuple[str, dict]]:
    return list(read_jsonl(path, dict[str, Any], "an object", "fetch it again", exact=exact))


def test_a_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{}\n{"question": "\xff"}')
    with pytest.raises(UserError, match=r"rows\.jsonl:2: .*utf-8"):
        rows_of(tmp_path / "rows.jsonl")


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rows"):
        load("gsm8k", file(tmp_path, "", ""), "test")


# --- The hub --------------------------------------------------------------------------------------------------------


def hub(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> None:
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(**attributes))


def test_without_a_path_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(**arguments: str) -> list[dict[str, Any]]:
        asked.append(arguments)
        return [{"question": "?", "answer": 12.0 if "Zero" in arguments["path"] else "#### 12"}]

    hub(monkeypatch, load_dataset=load_dataset)
    assert load("gsm8k", None, "train") == [Question("gsm8k/train/0", "?", "12")]
    assert load("gsm8k_zero", None, "test") == [Question("gsm8k_zero/test/0", "?", "12")]
    assert asked == [
        {"path": "openai/gsm8k", "name": "main", "split": "train"},
        {"path": "dcml0714/GSM8K-Zero", "split": "test"},
    ]


@pytest.mark.parametrize(("name", "inner"), FILES.items())
def test_mathbench_comes_from_its_archive(
    name: str, inner: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("middle", inner.split("/")[0] + "_knowledge"):  # the archive holds more than is asked for
        (tmp_path / "mathbench_v1" / folder).mkdir(parents=True)
        file(tmp_path / "mathbench_v1" / folder, "not this one", name=f"{Path(inner).name}.jsonl")
    (tmp_path / "mathbench_v1" / inner).parent.mkdir(exist_ok=True)
    row = CHOICE if "choice" in inner else {"question": "?", "answer": "5"}
    file(tmp_path / "mathbench_v1", row, name=f"{inner}.jsonl")
    manager = SimpleNamespace(download_and_extract=lambda url: str(tmp_path))
    hub(monkeypatch, DownloadManager=lambda: manager)
    assert [q.id for q in load(name, None, "test")] == [f"{name}/test/0"]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"jsonl", *GENERATED}))
def test_no_network_is_one_clear_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the hub\nand a long trace")

    hub(monkeypatch, load_dataset=fail, DownloadManager=lambda: SimpleNamespace(download_and_extract=fail))
    with pytest.raises(UserError, match=r"cannot be fetched .*Couldn't reach the hub\); .*task\.path") as caught:
        load(name, None, BENCHMARKS[name].splits[0])
    assert "\n" not in str(caught.value)


def test_empathetic_dialogues_are_each_conversations_two_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A quote means itself, and a conversation of one turn has no answer."""
    turns = ['1,1,sad,s,7,"I missed him_comma_ so.,5,', "1,2,sad,s,8,Was he nice?,5,", "1,3,sad,s,7,Yes,5,"]
    turns += ["2,1,sad,s,7,Alone.,5,", "3,1,sad,s,7,Hm.,5,", '3,2,sad,s,8,What" is it?,5,']
    heading = "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags"
    (tmp_path / "empatheticdialogues").mkdir()
    (tmp_path / "empatheticdialogues" / "valid.csv").write_text("\n".join([heading, *turns]))
    hub(monkeypatch, DownloadManager=lambda: SimpleNamespace(download_and_extract=lambda url: str(tmp_path)))
    found = load("empathetic_dialogues", None, "valid")
    assert [(q.text.splitlines()[0], q.gold) for q in found] == [
        ('"I missed him, so.', "Was he nice?"),
        ("Hm.", 'What" is it?'),
    ]


def test_an_archive_without_the_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    manager = SimpleNamespace(download_and_extract=lambda url: str(tmp_path))
    hub(monkeypatch, DownloadManager=lambda: manager)
    with pytest.raises(UserError, match=r"no high/single_choice_cn\.jsonl in https://"):
        load("mathbench_high_cn", None, "test")


def test_problems_are_passed_through(monkeypatch: pytest.MonkeyPatch) -> None:
    import tale.tasks

    stand_in = SimpleNamespace(load=lambda split, count, seed: [(split, count, seed)])
    monkeypatch.setitem(sys.modules, "tale.tasks.problems", stand_in)
    monkeypatch.setattr(tale.tasks, "problems", stand_in, raising=False)
    assert load("problems", None, "train", 3, 9) == [("train", 3, 9)]


# --- Generated questions --------------------------------------------------------------------------------------------

SYLLOGISM = "1. All adults are fish\n2. No fish are cats\n\nDoes it logically follow that:\nNo adults are cats?"


def test_reasoning_gyms_yes_or_no_is_a_choice() -> None:
    asked = {"question": f"{SYLLOGISM}\n(Answer Yes or No)", "answer": "No"}
    expected = Question("i", SYLLOGISM, "B", "choice", options=("Yes", "No"))
    assert reasoning_gym.question(asked, "i") == expected
    row = {"question": "How many sisters does Bob have?", "answer": "5", "metadata": {}}
    assert reasoning_gym.question(row, "i") == Question("i", "How many sisters does Bob have?", "5")
    with pytest.raises(UserError, match="'answer' is 'blue', not a number"):
        reasoning_gym.question({"question": "Which colour?", "answer": "blue"}, "i")


def test_reasoning_gyms_splits_share_no_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a longer list starts with the shorter one."""

    def create_dataset(name: str, size: int, seed: int) -> list[dict]:
        assert (name, seed) == ("aiw", 3 << 32)
        return [{"question": f"How many of {i % 50}?", "answer": str(i % 50)} for i in range(size)]

    monkeypatch.setitem(sys.modules, "reasoning_gym", SimpleNamespace(create_dataset=create_dataset))
    sides = {split: load("reasoning_gym_aiw", None, split, 10, 3) for split in ("train", "test")}
    assert [q.id for q in sides["test"]] == [f"reasoning_gym_aiw/test-s3/{i}" for i in range(10)]
    assert len({q.text for of in sides.values() for q in of}) == 20
    assert load("reasoning_gym_aiw", None, "test", 5, 3) == sides["test"][:5]
    with pytest.raises(UserError, match=r"^task.limit=51: reasoning_gym_aiw has only .* different questions"):
        load("reasoning_gym_aiw", None, "train", 51, 3)
    with pytest.raises(UserError, match=r"^task.split=dev: reasoning_gym_aiw has train and test"):
        load("reasoning_gym_aiw", None, "dev", 1, 3)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"the package reasoning-gym is not installed; pip install .*reasoning"):
        load("reasoning_gym_aiw", None, "test", 1, 3)


@pytest.mark.parametrize("name", reasoning_gym.NAMES)
def test_reasoning_gyms_own_rows_can_be_graded(name: str) -> None:
    pytest.importorskip("reasoning_gym")
    questions = load(name, None, "test", 8, 0)
    assert len({q.text for q in questions}) == 8
    assert not any("Answer Yes or No" in q.text for q in questions)
    assert all(grade(f"[[{q.gold}]]", q, truncated=False).correct for q in questions)


# --- Files ----------------------------------------------------------------------------------------------------------


def test_rows_survive_a_round_trip(tmp_path: Path) -> None:
    rows = [{"text": "一\u2028二 \r\n 三", "number": 0.1}, {}, {"nested": [1, {"a": None}]}]
    write_jsonl_atomic(tmp_path / "new" / "rows.jsonl", iter(rows))
    assert [row for _, row in rows_of(tmp_path / "new" / "rows.jsonl")] == rows
    assert "一" in (tmp_path / "new" / "rows.jsonl").read_text(encoding="utf-8")


def test_numbers_are_parsed_as_asked_and_blank_lines_counted(tmp_path: Path) -> None:
    path = Path(file(tmp_path, "\ufeff" + '{"a": 0.1}', "  ", '{"a": 1}'))
    assert rows_of(path, exact=Decimal) == [(f"{path}:1", {"a": Decimal("0.1")}), (f"{path}:3", {"a": 1})]


def test_half_of_a_character_is_refused_by_file_and_line(tmp_path: Path) -> None:
    """And a whole one in two escapes is read."""
    whole, half = (rf'{{"question": "{smile} \\ud83d", "answer": 1}}' for smile in (r"\ud83d\ude00", r"\ud83d"))
    (question,) = load("jsonl", file(tmp_path, whole), "test")
    assert question.text == "\N{GRINNING FACE} \\ud83d"
    with pytest.raises(UserError, match=r":2: .*surrogate"):
        load("jsonl", file(tmp_path, whole, half), "test")


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_atomic(path, "old\n")
    with pytest.raises(TypeError):
        write_jsonl_atomic(path, [{"fine": 1}, {"not": object()}])
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_takes_the_old_one_s_place_at_once(tmp_path: Path) -> None:
    path, reader = tmp_path / "rows.jsonl", tmp_path / "reader.jsonl"
    write_atomic(path, "old\n")
    reader.hardlink_to(path)  # whoever has the old file open
    write_atomic(path, "new\n")
    assert (path.read_text(), reader.read_text()) == ("new\n", "old\n")


def test_a_write_does_not_narrow_the_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_atomic(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
