"""Reading and grading: what the paper's code gets wrong, then every gold answer there is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale.data.question import Question
from tale.errors import UserError
from tale.grading import Reading, equal, grade, incomparable, number, read
from tale.tasks import load
from tale.tasks.mathbench import FILES
from tests import ROOT


def question(gold: str, kind: str = "number", language: str = "en") -> Question:
    return Question("q", "?", gold, kind, language)


def correct(reply: str, gold: str, kind: str = "number") -> bool:
    return grade(reply, question(gold, kind), truncated=False).correct


# --- Brackets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "gold", "right"),
    [
        ("The format is [[50]]. So Answer: [[18]]", "18", True),
        ("The format is [[50]]. So Answer: [[18]]", "50", False),
        ("I would say [[18]], but no: [[50]]", "18", False),
        ("for example: Answer: [[50]]. 25 + 25 = 50. Answer: [[50]].", "50", True),
        ("Answer: [[50]]. Hm. Answer: [[]]", "50", False),
        ("Answer: [[50]]. Hm. Answer: [[answer]] 50", "50", False),
        ("Answer: [[\n $2,125.00 ]]", "2125", True),
        ("[[[18]]]", "18", True),
        (r"\[[[18]]\]", "18", True),
        (r"[[\boxed{\frac{3}{4}}]]", "0.75", True),
        ("［［１，０００］］", "1000", True),
        ("Answer: [[18]", "18", True),  # no whole brackets: the last number
    ],
)
def test_the_last_brackets_decide(reply: str, gold: str, right: bool) -> None:
    assert correct(reply, gold) is right


def test_an_empty_bracket_is_a_reading_of_nothing() -> None:
    assert read("18 [[ ]]", "number") == Reading("", "brackets")


def test_gold_in_brackets_anywhere_is_not_enough() -> None:
    """§7 of the notes on the official code, error 7: `[[gold]] in reply`, the prompt's own example included."""
    reply = "Q: … format: [[answer]], for example: Answer: [[50]].\n6 times 7 is 42.\nAnswer: [[42]]"
    assert correct(reply, "42")
    assert not correct(reply, "50")


def test_numbers_are_not_cut_at_their_comma() -> None:
    """§7, error 6: "2,125" read as 2."""
    assert not correct("[[2]]", "2,125")
    assert not correct("[[2,125]]", "2")
    assert not correct("[[125]]", "2,125")
    assert correct("[[2125]]", "2,125")
    assert correct("It is 2,125.", "2125")
    assert not correct("[[12]]", "12.5")


def test_a_truncated_reply_is_read_by_marked_only() -> None:
    assert grade("First, 16 - 3 = 13, then 18", question("18"), truncated=True).via == "none"
    assert not grade("First, 16 - 3 = 13, then 18", question("18"), truncated=True).correct
    assert not grade("The answer is B", question("B", "choice"), truncated=True).correct
    assert grade("[[18]] To check this, 5", question("18"), truncated=True).correct


def test_nothing_to_read() -> None:
    assert read("", "number") == Reading(None, "none")
    assert read("I cannot tell.", "number") == Reading(None, "none")
    assert not correct("", "0")


# --- Numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2,125", 2125),
        ("2125.0", 2125),
        ("１，０００", 1000),
        ("1{,}000", 1000),
        (r"1\,000", 1000),
        ("1\u202f000", 1000),
        ("$18", 18),
        (r"\$18", 18),
        ("-$5", -5),
        ("$-5", -5),
        ("−5", -5),
        ("+5", 5),
        (".5", Fraction(1, 2)),
        ("50%", 50),
        (r"12.5\%", Fraction(25, 2)),
        ("1/2", Fraction(1, 2)),
        ("-31/3", Fraction(-31, 3)),
        ("1 1/2", Fraction(3, 2)),
        ("-1½", Fraction(-3, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        (r"\frac{-1}{2}", Fraction(-1, 2)),
        (r"2\frac12", Fraction(5, 2)),
        (r"$\boxed{18}$", 18),
        (r"\boxed{\text{18}}", 18),
        (r"\(18\)", 18),
        ("**18**", 18),
        ("18.", 18),
        ("18 dollars", 18),
        ("18.50 dollars per hour", Fraction(37, 2)),
        (r"18\text{ cm}", 18),
        ("18cm", 18),
        ("24 m^2", 24),
        ("24 cm²", 24),
        ("5 m", 5),
        ("5元", 5),
        ("5 个", 5),
        ("3万", 30000),
        ("1.5 million", 1500000),
        ("$16.8 million dollars", 16800000),
        ("1e3", 1000),
        (r"6.5\times10^{-6}", Fraction(13, 2000000)),
        ("6.5 × 10^-6", Fraction(13, 2000000)),
        ("x = 5", 5),
        ("16 - 3 = 13", 13),
        ("Answer: 18", 18),
        ("The answer is 18.", 18),
        ("9" * 100, int("9" * 100)),
    ],
)
def test_number(text: str, value: Fraction | int) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *["", "answer", "5 to 6", "3 and a half", "5 pm", "300 K", "三角形", "x = 2 or x = 3", "2 hours 30 minutes"],
        *["1,2,3", "12,34", "3:4", "1/0", "5x", "2ab", "5x^2", "5 - 3", "x >= 3", "10²", "5!", "1e99999", "9" * 5000],
    ],
)
def test_no_number(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    ("value", "gold", "same"),
    [
        ("2,125", "2125.0", True),
        ("1/2", "0.5", True),
        ("0.333333333333333333", "1/3", False),
        ("0.1000000000000000000000001", "0.1", False),
        ("9007199254740993", "9007199254740992", False),  # equal as floats
        ("50%", "50", True),
        ("50", "50%", True),
        ("50%", "0.5", False),
        ("0.5", "50%", False),
        ("18 dollars", "18 cents", True),  # units do not count
        *[
            (f"5 {unit}", "5", True)
            for unit in ("oranges", "tons", "toys", "marbles", "decks", "total", "times", "a day")
        ],
        *[(f"5 {unit}", "5", True) for unit in ("J", "N", "N·m", "kg·m/s", "quarters", "overcoats")],
        *[
            (f"5 {more}", "5", False)
            for more in ("or 6", "times x", "and a half", "squared", "tenths", "pi", "sqrt x", "March", "pm")
        ],
        ("5¢", "5", True),
        ("exactly 5", "5", True),
        ("一共5个", "5", True),
        ("negative 7", "-7", True),
        ("minus 7", "-7", True),
        ("10 minus 3", "-3", False),
        ("2 and 1/2 hours", "2.5", True),
        ("2 and 1/2", "2, 1/2", True),
        ("03:30 PM", "3:30 pm", True),
        ("12:05", "12:5", False),
        ("2021-5-4", "2021-05-04", True),
        ("5x", "5", False),
        ("5", "5x", False),
        (r"2\sqrt{3}", r"\sqrt{12}", True),
        (r"2\sqrt{3}", r"\sqrt{13}", False),
        (r"\sqrt{16}", "4", True),
        ("100 - 20", "80", True),
        ("0.1+0.2", "0.3", True),
        ("0.30000000000000001+0", "0.3", False),
        ("10^{20}+1", "100000000000000000000", False),
        ("x+1", "1+x", True),
        ("y=2x+1", "y = 1+2x", True),
        ("[1,2)", "[1, 2)", True),
        ("answer", "5", False),
        ("3 apples and 2 pears", "3", False),
        ("", "5", False),
    ],
)
def test_equal(value: str, gold: str, same: bool) -> None:
    assert equal(value, gold, "number") is same


integers = st.integers(-(10**30), 10**30)


@given(integers, st.integers(0, 6), st.sampled_from(["{}", "${}", "{} dollars", "{}%", "[[{}]]", "so {}.", "**{}**"]))
def test_every_way_to_write_a_decimal_is_the_same_number(digits: int, places: int, frame: str) -> None:
    value = Fraction(digits, 10**places)
    whole, rest = divmod(abs(digits), 10**places)
    written = ("-" if digits < 0 else "") + f"{whole:,}" + (f".{rest:0{places}}" if places else "")
    text = read(frame.format(written), "number").value
    assert text is not None
    assert number(text) == value
    assert equal(text, str(value), "number")
    assert not equal(text, str(value + Fraction(1, 10**places)), "number")


@given(integers, st.integers(1, 10**9))
def test_latex_and_plain_fractions_are_the_same_number(top: int, bottom: int) -> None:
    assert number(rf"\frac{{{top}}}{{{bottom}}}") == number(f"{top}/{bottom}") == Fraction(top, bottom)
    value = read(rf"It is $\frac{{{top}}}{{{bottom}}}$ of it.", "number").value
    assert value is not None
    assert number(value) == Fraction(top, bottom)


PIECES = [
    *[
        "1",
        "10",
        ".5",
        "1,000",
        "x",
        "y",
        r"\pi",
        r"\frac",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "+",
        "-",
        "*",
        "/",
        "^",
        "=",
        "<",
    ],
    *[
        "|",
        r"\sqrt",
        r"\log",
        "_2",
        ",",
        " ",
        "and",
        r"\pm",
        r"\cup",
        "一",
        "百",
        "点",
        "分之",
        "负",
        "%",
        "°",
        "K",
        "million",
    ],
    *[
        "cm",
        "May",
        "pm",
        ":",
        "–",
        "½",
        "²",
        "e5",
        r"\text{",
        "answer is",
        "####",
        r"\boxed{",
        "[[",
        "]]",
        "**",
        "\n",
        "~",
        "!",
    ],
]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join), st.lists(st.sampled_from(PIECES), max_size=6))
def test_no_reply_and_no_gold_break_the_comparison(reply: str, gold: list[str]) -> None:
    text = "".join(gold)
    for read_from in (reply, f"[[{reply}]]"):
        assert isinstance(grade(read_from, question(text), truncated=False).correct, bool)
    if incomparable(text, "number") is None:
        assert correct(f"[[{text}]]", text)


@given(
    st.text(alphabet="0123456789.,-/%$^*=+()[]{}\\ \n¼×abxAB万frac", max_size=60), st.sampled_from(["number", "choice"])
)
def test_no_reply_breaks_the_reader(reply: str, kind: str) -> None:
    whole, cut = (grade(reply, question("7", kind), truncated) for truncated in (False, True))
    assert (whole.value is None) == (whole.via == "none")
    assert cut == whole if whole.via in ("brackets", "boxed") else cut.via == "none"


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("He drives 60 miles in 1,450,000 seconds.", "1,450,000"),
        ("so 16-3", "3"),
        ("so 16 - 3", "3"),
        ("so it is -3", "-3"),
        ("so it is –3", "-3"),
        ("所以一共是1，000个。", "1,000"),
        ("That is 50% of them", "50%"),
        ("It made $192 million in all", "192 million"),
        ("一共3千元", "3千"),
        ("The area is 24 cm^2.", "24"),
        ("The area is 24 m²", "24"),
        ("one of H2O and x1: none but 4", "4"),
        ("Step 3\n1/2 of it", "1/2"),
        ("18, I think.", "18"),
        ("The answer is not 5, it is 6", "6"),
        ("The train arrives at 12:45.", "12:45"),
        ("They meet at 3:45 pm.", "3:45 pm"),
    ],
)
def test_the_last_number_in_prose(reply: str, value: str) -> None:
    assert read(reply, "number") == Reading(value, "number")
    assert read(reply, "number", marked_only=True) == Reading(None, "none")


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", "18"),
        ("答案是-3元。", "-3"),
        ("答：一共三千五百元，分3次", "3500"),
        ("The answer is...18", "18"),
        ("The answer is 5. No, wait: the answer is 8, not 9.", "8"),
        ("The final answer is: $\\frac{1}{2}$ of 3", r"\frac{1}{2}"),
        ("Answer: 2, 3 and 5.", "2, 3 and 5"),
        ("The answer is 24, 8 of them red.", "24"),
        ("The answer is 3, 5, and 7.", "3, 5, and 7"),
        ("The answer is x = 5, for 3 of them.", "x = 5"),
        ("Answer: 3:45 pm, 2 hours later", "3:45 pm"),
        ("The answer is May 4, 2021.", "May 4, 2021"),
        ("The answer to the 2 questions is the number 7, not 8.", "7"),
        ("The answer is Paris.\n1 of 3", "Paris"),
        ("Answer: [[18", "18"),
        ("Final answer:\n- 18", "18"),
        (r"\text{Answer: } 18", "18"),
        ("The answer is <b>18</b>.", "18"),
    ],
)
def test_what_is_named_as_the_answer(reply: str, value: str) -> None:
    found = read(reply, "number")
    assert found.via == "named"
    assert found.value == value or number(found.value) == number(value) is not None
    assert read(reply, "number", marked_only=True) == Reading(None, "none")


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (r"thus \boxed{2\frac{1}{2}}, not 3", r"2\frac{1}{2}"),
        (r"\boxed{5}, no, \boxed{ 6 }. The answer is 7", "6"),
        (r"\boxed{\text{\boxed{5}}}", r"\text{\boxed{5}}"),
        (r"\boxed{5} and \boxed{6", "5"),
        (r"\boxed{\{2, 3\}}", r"\{2, 3\}"),
        (r"\boxed{}", ""),
    ],
)
def test_without_brackets_the_last_box_decides(reply: str, value: str) -> None:
    """In a reply that was cut off, too."""
    assert read(reply, "number") == read(reply, "number", marked_only=True) == Reading(value, "boxed")
    assert read(f"{reply} [[1]]", "number") == Reading("1", "brackets")


# --- Choices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "language", "letter", "via"),
    [
        ("Choice: B", "en", "B", "named"),
        ("The answer is B", "en", "B", "named"),
        ("The correct answer is option (B), since A is too small.", "en", "B", "named"),
        ("Answer:\n\n**B) 12**", "en", "B", "named"),
        ("I compared all four.\n(B)", "en", "B", "letter"),
        ("Thus **C**.", "en", "C", "letter"),
        (r"Thus \boxed{D}", "en", "D", "boxed"),
        ("B", "en", "B", "whole-reply"),
        ("B. 12", "en", "B", "whole-reply"),
        ("Option A looks good. The answer is C.", "en", "C", "named"),
        ("Option C is right. Option A is wrong.", "en", "C", "named"),
        ("The answer is A because 3 < 4", "en", "A", "named"),
        ("(A) 3 (B) 4 (C) 5 (D) 6. The answer is B", "en", "B", "named"),
        ("The correct answer is B) 12. Option D is close, but does not fit.", "en", "B", "named"),
        ("Option A is 3, and option C is 5, so B is the right answer.", "en", "B", "named"),
        ("If B is correct, 3 is 4. So the answer is therefore A.", "en", "A", "named"),
        ("We choose B.", "en", "B", "named"),
        ("So D is the answer, and A is not the answer.", "en", "D", "named"),
        ("The answer has to be B.", "en", "B", "named"),
        (r"The answer is $\textbf{(B)}$ 12.", "en", "B", "named"),
        ("所以答案是B", "zh", "B", "named"),
        ("A选项错误；C选项正确；选项D也错。", "zh", "C", "named"),
        ("正确选项是C，选项D不对。", "zh", "C", "named"),
        ("故选B（A对应3）。", "zh", "B", "named"),
        ("答案：（C）", "zh", "C", "named"),
        ("综上，故选D。", "zh", "D", "named"),
        ("应该选择B，不选A", "zh", "B", "named"),
        ("The answer is A number of things", "en", None, "none"),
        ("A good start is to add 3 and 4.", "en", None, "none"),
        ("Choose As many as you like: I would.", "en", None, "none"),
        ("**A key insight** is that both are even.", "en", None, "none"),
        ("The answer is not A", "en", None, "none"),
        ("Let us see. B. Then 4.\nNo idea.", "en", None, "none"),
        ("所以答案是B", "en", None, "none"),
        ("12", "en", None, "none"),
    ],
)
def test_the_choice_in_prose(reply: str, language: str, letter: str | None, via: str) -> None:
    assert read(reply, "choice", language) == Reading(letter, via)


@pytest.mark.parametrize(
    "value", ["B", "b", "(B)", "B.", "B. 12", "B) A rectangle", "Choice: B", "选项B", "$B$", "**B**"]
)
def test_a_choice_is_its_letter(value: str) -> None:
    assert equal(value, "B", "choice")
    assert not equal(value, "A", "choice")
    assert not equal(value, "C", "choice")


@pytest.mark.parametrize("value", ["", "choice", "A or B", "A) or B)", "AB", "B A", "12", "Bad", "I"])
def test_no_choice(value: str) -> None:
    assert not any(equal(value, letter, "choice") for letter in "ABCDEFGH")


# --- Rows of our own ------------------------------------------------------------------------------------------------


def rows() -> list[dict[str, Any]]:
    """What is read and compared how, with both verdicts: gold, reply, the right verdict and why."""
    return [json.loads(line) for line in Path(__file__).with_name("cases.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("why", list(dict.fromkeys(row["why"] for row in rows())))
def test_the_verdict_is_right(why: str) -> None:
    for row in rows():
        if row["why"] == why:
            assert correct(row["reply"], row["gold"]) is row["correct"], row


def test_every_gold_equals_itself_in_brackets_and_in_a_box() -> None:
    for gold in {row["gold"] for row in rows()}:
        assert incomparable(gold, "number") is None, gold
        assert correct(f"[[{gold}]]", gold), gold
        assert correct(rf"\boxed{{{gold}}}", gold), gold


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        ("***", "nothing but punctuation"),
        ("9" * 201, "longer than 200 characters"),
        ("9^{9^{9^9}}", "no expression that can be evaluated"),
        (r"\int_0^1 x dx", "no expression that can be evaluated"),
        (r"\begin{pmatrix}1\end{pmatrix}", "no expression that can be evaluated"),
        (r"\frac{1}{0}", "no expression that can be evaluated"),
        ("x + ", "no expression that can be evaluated"),
        ("y = x + (", "'x + (' is no expression that can be evaluated"),
        ("2 hours 30 minutes", "several quantities in one"),
        ("a [[b]] c", "not to be told from the brackets"),
    ],
)
def test_a_gold_that_cannot_be_compared_says_why(gold: str, reason: str) -> None:
    assert (incomparable(gold, "number") or "").startswith(reason)


def test_such_a_gold_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text("".join(json.dumps({"question": "?", "answer": gold}) + "\n" for gold in ("1", "2", "9^{9^{9^9}}")))
    with pytest.raises(UserError, match=rf"^{file}:3: gold answer '9\^.*': no expression .*; write it more plainly"):
        load("jsonl", str(file), "test")


# --- Every gold answer ----------------------------------------------------------------------------------------------

GOLDS = {"gsm8k/train": "gsm8k", "gsm8k/test": "gsm8k", "gsm8k_zero/dev": "gsm8k_zero"} | {
    f"mathbench/{file}": name for name, file in FILES.items()
}


@pytest.mark.parametrize("file", GOLDS)
def test_every_gold_answers_itself_and_no_other(file: str, shared_data: Path) -> None:
    """The other is the next gold of the file; every tenth one in other forms too, and against a neighbour."""
    rows = load(GOLDS[file], str(shared_data / f"{file}.jsonl"), "test")
    asked = list({q.gold: q for q in rows}.values())
    for i, (q, other) in enumerate(zip(asked, [*asked[1:], asked[0]], strict=True)):
        forms, wrong = {"[[{}]]": "brackets"}, {other.gold}
        if i % 10 == 0:
            forms |= {r"\boxed{{{}}}": "boxed", "The answer is {}.": "named"}
            if q.kind == "number":
                forms |= {"So 3 of them cost ${} in total.": "number", "Thus it is {} apples": "number"}
            wrong.add(str((number(q.gold) or 0) + 1) if q.kind == "number" else chr(ord(q.gold) + 1))
        for form, via in forms.items():
            verdict = grade(form.format(q.gold), q, truncated=False)
            assert (verdict.correct, verdict.via) == (True, via), (q.id, form)
            assert not any(grade(form.format(gold), q, truncated=False).correct for gold in wrong), (q.id, form)


def test_every_shared_file_is_in_that_test(shared_data: Path) -> None:
    files = {str(file.relative_to(shared_data).with_suffix("")) for file in shared_data.rglob("*.jsonl")}
    assert files == set(GOLDS)


# --- How it is done -------------------------------------------------------------------------------------------------


def test_expressions_are_compared_in_any_thread() -> None:
    verdicts: list[bool] = []
    thread = threading.Thread(target=lambda: verdicts.append(equal(r"\sqrt{50}", r"5\sqrt{2}", "number")))
    thread.start()
    thread.join()
    assert verdicts == [True]


HARD = [
    *["5" + " am" * 30 + "0", "5 " + "ab½" * 30 + "=", "5 (a)" * 30],
    *["9^{9^{9^9}}", "9^9^9^9", "10000000!", "((9^{99})^{99})^{99}", "(" * 90, r"\ln 9^{10}", "1" + "+x^{99}" * 30],
    *[r"(1+\sqrt{2}+\sqrt{3}+\sqrt{5}+\sqrt{7}+\sqrt{11})^{99}", r"\sin(10^{399})", "e^{e^{e^{e^9}}}", "1e999^{9999}"],
]


@pytest.mark.parametrize("value", HARD)
def test_no_expression_stalls(value: str) -> None:
    started = time.process_time()
    assert not equal(value, "5", "number")
    assert not equal(value, "x+5", "number")
    assert time.process_time() - started < 1


REPEATED = ["1,111", "00,", "[[1", "answer is ", "**A", "\\boxed{", "选", "½", " "]


@pytest.mark.parametrize("unit", REPEATED)
def test_a_repetitive_reply_of_100_kb_is_read_in_no_time(unit: str) -> None:
    """The second one begins as a box would."""
    repeated = unit * (100_000 // len(unit.encode()))
    for reply in (repeated, r"\boxed{" + repeated):
        for asked in (question("5"), question("B", "choice", "zh")):
            started = time.process_time()
            grade(reply, asked, truncated=False)
            assert time.process_time() - started < 1


def test_what_takes_long_to_import_is_imported_late() -> None:
    """And never for words against a number, the common failure of a weak model."""
    code = (
        "import sys, tale.grading as a; a.equal('18', '18', 'number'); a.equal('the answer', '18', 'number'); "
        "assert not {'mpmath', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
