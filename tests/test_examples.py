"""From ids to batches: what a row predicts, and what it does not."""

from __future__ import annotations

from handmade import END_ID, examples
from hypothesis import given
from hypothesis import strategies as st

from tale.data.examples import Example, collate, micro_batches

NO = -100


def test_a_row_predicts_its_answer_and_nothing_else() -> None:
    batch = collate([Example("a", [1, 2, 3], ([4, END_ID],)), Example("b", [5, 6], ([7, 8, 9, END_ID],))])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 0], [5, 6, 7, 8, 9]]
    assert batch.labels.tolist() == [[NO, NO, 4, END_ID, NO], [NO, 7, 8, 9, END_ID]]
    assert (batch.ids, batch.examples, batch.targets) == (("a", "b"), 2, 6)


def test_all_chosen_rows_come_before_all_rejected_ones() -> None:
    batch = collate([Example("a", [1, 2], ([3], [4, 5])), Example("b", [6], ([7, 8], [9]))])
    assert batch.input_ids.tolist() == [[1, 2, 0], [6, 7, 0], [1, 2, 4], [6, 0, 0]]
    assert batch.labels.tolist() == [[NO, 3, NO], [7, 8, NO], [NO, 4, 5], [9, NO, NO]]
    assert (batch.ids, batch.examples, batch.targets) == (("a", "b"), 2, 6)


def test_the_end_of_sequence_is_a_target_where_it_is_also_the_padding() -> None:
    short, long = Example("a", [1], ([2, END_ID],)), Example("b", [1], ([2, 3, 4, END_ID],))
    batch = collate([short, long], pad_id=END_ID)
    assert batch.input_ids.tolist() == [[1, 2, END_ID, END_ID], [1, 2, 3, 4]]
    assert batch.labels.tolist() == [[2, END_ID, NO, NO], [2, 3, 4, END_ID]]


def test_an_examples_length_is_its_longest_rows() -> None:
    assert Example("a", [1, 2], ([3], [4, 5, 6])).length == 5


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 2))
def test_micro_batches_lose_nothing_and_mix_nothing_up(count: int, size: int, sides: int) -> None:
    made = examples(count, sides)
    batches = micro_batches(made, size)
    assert max(batch.examples for batch in batches) <= size
    assert sorted(name for batch in batches for name in batch.ids) == sorted(e.id for e in made)
    by_id = {e.id: e for e in made}
    for batch in batches:
        named = [(by_id[name], side) for side in range(sides) for name in batch.ids]
        for (example, side), inputs, labels in zip(named, batch.input_ids, batch.labels, strict=True):
            answer = example.answers[side]
            assert labels[labels != NO].tolist() == answer
            assert inputs[: len(example.prompt) + len(answer) - 1].tolist() == (example.prompt + answer)[:-1]
            # Each label is the id that follows in the row's own text.
            first = len(example.prompt) - 1
            assert (labels != NO).nonzero().flatten().tolist() == list(range(first, first + len(answer)))


def test_micro_batches_put_like_lengths_together() -> None:
    made = [Example(str(n), [1] * n, ([2],)) for n in (3, 9, 4, 8)]
    assert [batch.ids for batch in micro_batches(made, 2)] == [("9", "8"), ("4", "3")]
