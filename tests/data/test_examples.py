"""From ids to batches: what is predicted where, and what is not."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tale.data.examples import Example, micro_batches, pack
from tests.factories import END_ID, examples


def test_answers_are_predicted_and_nothing_else() -> None:
    batch = pack([Example("a", [1, 2, 3], ([4, END_ID],)), Example("b", [5, 6], ([7, 8, 9, END_ID],))])
    assert batch.input_ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert (batch.layout.lengths, batch.layout.order_S, batch.layout.places_T) == ((4, 5), None, None)
    assert batch.sources.tolist() == [2, 3, 5, 6, 7, 8]
    assert batch.targets.tolist() == [4, END_ID, 7, 8, 9, END_ID]
    assert batch.answers.tolist() == [0, 0, 1, 1, 1, 1]
    assert batch.lengths.tolist() == [2, 4]
    assert (batch.ids, batch.examples, batch.target_tokens, batch.tokens) == (("a", "b"), 2, 6, 9)


def test_two_answers_share_a_prompt_and_chosen_ones_come_first() -> None:
    batch = pack([Example("a", [1, 2], ([3], [4, 5])), Example("b", [6], ([7, 8], [9]))])
    assert batch.input_ids.tolist() == [1, 2, 4, 6, 7]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1]
    # Sequences: 1 2 | 1 2 4 | 6 7 | 6
    assert batch.layout.lengths == (2, 3, 2, 1)
    assert batch.layout.order_S is not None
    assert batch.layout.order_S.tolist() == [0, 1, 0, 1, 2, 3, 4, 3]
    # Chosen: 3 after the 2, 7 after the 6, 8 after the 7. Rejected: 4 after the 2, 5 after the 4, 9 after the 6.
    assert batch.sources.tolist() == [1, 3, 4, 1, 2, 3]
    assert batch.targets.tolist() == [3, 7, 8, 4, 5, 9]
    assert batch.answers.tolist() == [0, 1, 1, 2, 2, 3]
    assert (batch.ids, batch.examples, batch.target_tokens, batch.tokens) == (("a", "b"), 2, 6, 5)


def test_what_all_prompts_begin_with_stands_once() -> None:
    batch = pack([Example("a", [1, 2, 3], ([4, 5],)), Example("b", [1, 2], ([6, 7],))])
    assert batch.input_ids.tolist() == [1, 2, 3, 4, 6]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 2]
    # Sequences: 1 2 3 4 | 1 2 6
    assert batch.layout.lengths == (4, 3)
    assert batch.layout.order_S is not None
    assert batch.layout.order_S.tolist() == [0, 1, 2, 3, 0, 1, 4]
    assert batch.sources.tolist() == [2, 3, 1, 4]
    assert batch.targets.tolist() == [4, 5, 6, 7]


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
        assert len(batch.lengths) == len(named)
        own_tokens = sum(len(e.prompt) + sum(len(a) - 1 for a in e.answers) for e, side in named if not side)
        begins = [{(*e.prompt[:n],) for e, _ in named} for n in range(1 + min(len(e.prompt) for e, _ in named))]
        alike = max(n for n, different in enumerate(begins) if len(different) == 1)
        assert batch.tokens == own_tokens - (batch.examples - 1) * alike
        order = torch.arange(batch.tokens) if batch.layout.order_S is None else batch.layout.order_S
        sequences = order.split(batch.layout.lengths)
        for number, (example, side) in enumerate(named):
            own = batch.answers == number
            assert batch.targets[own].tolist() == example.answers[side]
            # The sequence that ends in the answer: its ids, its positions, and each target the id that follows.
            sequence = sequences[batch.ids.index(example.id) * sides + side]
            assert batch.input_ids[sequence].tolist() == (example.prompt + example.answers[side])[:-1]
            assert batch.position_ids[sequence].tolist() == list(range(len(sequence)))
            assert batch.sources[own].tolist() == sequence[len(example.prompt) - 1 :].tolist()
        if batch.layout.places_T is not None:
            assert torch.equal(order[batch.layout.places_T], torch.arange(batch.tokens))


def test_micro_batches_are_dealt_out_by_length() -> None:
    made = [Example(str(n), [1] * n, ([2],)) for n in (3, 9, 4, 8, 5)]
    assert [batch.ids for batch in micro_batches(made, 2)] == [("9", "4"), ("8", "3"), ("5",)]
