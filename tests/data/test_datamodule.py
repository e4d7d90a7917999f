"""From records to examples and steps, in literal ids: what is used, in which order, and what is left out and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tale.data.chat import Chat
from tale.data.datamodule import StepSampler, TaleDataModule
from tale.data.records import Answer, Confirmation, Record, write_records
from tale.errors import UserError
from tests.factories import END_ID, answer, pairs, prompt_bytes, recipe, record

CATS, DOGS = "Ann has 3 cats. How many?", "Bob has 4 dogs. How many?"


@pytest.fixture
def module(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    """Write records, one file for each list of them, and set up a DataModule on them."""

    def make(objective: str, *files: list[Record], **options: object) -> TaleDataModule:
        paths = [tmp_path / f"{i}.jsonl" for i in range(len(files))]
        for path, records in zip(paths, files, strict=True):
            write_records(path, records)
        made = recipe(
            tmp_path,
            tmp_path,
            tmp_path,
            objective,
            f"data.records=[{','.join(map(str, paths))}]",
            "data.val_fraction=0",
        )
        for name, value in options.items():
            setattr(made.data, name, value)
        data = TaleDataModule(made, Chat(tiny_tokenizer))
        data.setup()
        return data

    return make


def test_sft_learns_the_target_under_a_prompt_without_budget(module) -> None:
    (example,) = module("sft", [record("q/1", CATS, "[[3]]", vanilla="Ann has 3. [[3]]")]).train
    assert example.id == "q/1"
    assert example.prompt == prompt_bytes(CATS)
    assert example.answers == ([*b"[[3]]", END_ID],)


def test_dpo_prefers_the_target_to_the_vanilla_answer(module) -> None:
    (example,) = module("dpo", [record("q/1", CATS, "[[3]]", vanilla="Ann has 3. [[3]]")]).train
    assert example.prompt == prompt_bytes(CATS)
    assert example.answers == ([*b"[[3]]", END_ID], [*b"Ann has 3. [[3]]", END_ID])


def test_a_batch_has_these_ids_and_masks(module) -> None:
    data = module("sft", [record("q/1", CATS, "[[3]]"), record("q/2", DOGS, "4")])
    (batch,) = next(iter(data.train_dataloader()))
    long, short = prompt_bytes(CATS), prompt_bytes(DOGS)
    assert batch.ids == ("q/1", "q/2")
    common = len([256, *b"user\nQ: "])  # what both prompts begin with stands once
    assert (long[:common], long[common]) == (short[:common], CATS.encode()[0])
    assert batch.input_ids.tolist() == [*long, *b"[[3]]", *short[common:], *b"4"]
    assert batch.targets.tolist() == [*b"[[3]]", END_ID, *b"4", END_ID]
    first, second = len(long) - 1, len(long) + len(b"[[3]]") + len(short) - common - 1
    assert batch.sources.tolist() == [*range(first, first + 6), second, second + 1]


def test_generated_ids_are_kept_and_other_texts_retokenised(module, tiny_tokenizer) -> None:
    """A special token inside, half of a character, and a cut-off answer; then the same records of another tokenizer."""
    chat = Chat(tiny_tokenizer)
    chosen, rejected = [256, *b"3", 0xF0, 0x9F, *b"[[3]]", END_ID], [*b"Ann ", 0xF0]
    sides = [
        Answer(chat.decode(ids), len(ids), finish, True, "3", "brackets", ids=tuple(ids))
        for ids, finish in ((chosen, "stop"), (rejected, "length"))
    ]
    made = replace(record("q/1", CATS, *sides), tokenizer_hash=chat.fingerprint)
    same = module("dpo", [made])
    assert same.train[0].answers == (chosen, rejected)
    assert (same.retokenised, "retokenised" in same.summary()) == (0, False)

    half = [*"\N{REPLACEMENT CHARACTER}".encode()]
    other = module("dpo", [replace(made, tokenizer_hash="another"), record("q/2", DOGS, "4")])
    assert other.train[0].answers == ([256, *b"3", *half, *b"[[3]]", END_ID], [*b"Ann ", *half])
    assert other.summary().endswith(
        "; 4 answers retokenised: their records have no ids of this tokenizer, template and text"
    )


def test_an_edited_answer_is_trained_on_as_it_reads(module, tiny_tokenizer) -> None:
    """Ids of another text, and such as the vocabulary does not have."""
    chat = Chat(tiny_tokenizer)
    for ids in ([*b"[[4]]", END_ID], [10**6, *b"[[3]]", 10**6]):
        edited = Answer("so [[3]]", len(ids), "stop", True, "3", "brackets", ids=tuple(ids))
        data = module("sft", [replace(record("q/1", CATS, edited), tokenizer_hash=chat.fingerprint)])
        assert (data.train[0].answers, data.retokenised) == (([*b"so [[3]]", END_ID],), 1)


def test_an_answer_with_another_end_gets_the_templates(module, tiny_tokenizer) -> None:
    """Here 256, which its generation config may name as well."""
    ended = Answer("[[3]]", 6, "stop", True, "3", "brackets", ids=(*b"[[3]]", 256))
    data = module("sft", [replace(record("q/1", CATS, ended), tokenizer_hash=Chat(tiny_tokenizer).fingerprint)])
    assert (data.train[0].answers, data.retokenised) == (([*b"[[3]]", END_ID],), 0)


def test_a_rejected_answer_that_was_cut_off_teaches_no_end(module) -> None:
    (example,) = module("dpo", [record("q/1", CATS, "[[3]]", vanilla=answer("Ann ha", finish="length"))]).train
    assert example.answers[1] == list(b"Ann ha")


def test_records_without_a_target_are_left_out_and_counted(module) -> None:
    data = module(
        "sft",
        [
            record("q/1", CATS, "[[3]]"),
            record("q/2", DOGS, None, reason="no feasible budget"),
            record("q/3", "c", None, reason="vanilla answer wrong"),
            record("q/4", "d", None, reason="no feasible budget"),
        ],
    )
    assert [e.id for e in data.train] == ["q/1"]
    assert data.left_out == {"no feasible budget": 2, "vanilla answer wrong": 1}
    assert data.summary() == (
        "1 examples to train on, 0 held out for validation; 2 left out: no feasible budget; "
        "1 left out: vanilla answer wrong; 1 answers retokenised: their records have no ids of this tokenizer, "
        "template and text"
    )


def test_targets_after_a_wrong_vanilla_answer_are_counted(module) -> None:
    """In a pair the rejected answer is then the wrong one."""
    wrong = replace(answer("no [[9]]"), correct=False)
    records = [record("q/1", CATS, "[[3]]"), replace(record("q/2", DOGS, "[[4]]", wrong), vanilla_wrong=True)]
    data = module("dpo", records)
    assert [e.answers[1][:-1] for e in data.train] == [list(b"long"), list(b"no [[9]]")]
    assert data.vanilla_wrong == 1
    assert "; 1 of those to train on were answered wrong by vanilla CoT; " in data.summary()


def test_a_question_in_two_files_is_learnt_once(module) -> None:
    data = module(
        "sft",
        [record("a/1", CATS, "first")],
        [replace(record("b/1", f" {CATS}\n", "second"), vanilla_wrong=True), record("b/2", DOGS, "4")],
    )
    assert [e.id for e in data.train] == ["a/1", "b/2"]
    assert (data.left_out, data.vanilla_wrong) == ({"duplicate question": 1}, 0)


def test_records_of_one_preamble_are_trained_on_and_validated(module) -> None:
    preamble = "Solve the following word problem and give only the final number, nothing more: "
    data = module("sft", [record(f"q/{i}", f"{preamble}story {i}", f"[[{i}]]") for i in range(20)])
    assert (len(data.train), len(data.validation)) == (20, 0)
    assert data.summary().endswith(
        "; 20 of 20 questions share their first 60 characters with too many others for a story: longer openings are "
        "their contexts (20 contexts in total)"
    )
    assert len(data.contexts) == 20


@pytest.mark.parametrize(("objective", "rows"), [("sft", 5), ("dpo", 8)])
def test_the_longest_row_must_fit(module, objective: str, rows: int) -> None:
    """An example's length is prompt, answer and end: five bytes of target, or seven of the rejected answer."""
    fits = len(prompt_bytes(CATS)) + rows + (objective == "sft")
    records = [record("q/1", CATS, "[[3]]", vanilla="3 [[3]]"), record("q/2", "?", "?", vanilla="?")]
    assert len(module(objective, records, max_length=fits).train) == 2
    shorter = module(objective, records, max_length=fits - 1)
    assert [e.id for e in shorter.train] == ["q/2"]
    assert shorter.left_out == {f"longer than data.max_length={fits - 1}": 1}


def test_validation_shares_no_story_with_training(module) -> None:
    opening = "Story {}: a shepherd walks over the hills with his sheep and his dog. "
    ends = ("How many sheep?", "How many dogs?")
    records = [record(f"{i}/{j}", opening.format(i) + end, "1") for i in range(60) for j, end in enumerate(ends)]
    data = module("sft", records, val_fraction=0.25)
    trained, held_out = ({e.id.partition("/")[0] for e in side} for side in (data.train, data.validation))
    assert not trained & held_out
    assert len(data.train) + len(data.validation) == 120
    assert 8 <= len(held_out) <= 22
    # What the adapter's card will call seen is what is trained on.
    assert {q.id for q in data.questions} == {e.id for e in data.train}
    assert {e.id for e in module("sft", records, val_fraction=0.25, seed=1).validation} != {
        e.id for e in data.validation
    }


def test_every_held_out_example_is_validated_once(module) -> None:
    data = module("sft", pairs(30), val_fraction=0.4)
    for world in (1, 2, 3):
        shares = [data.validation_batches(rank, world) for rank in range(world)]
        names = Counter(name for batch in chain(*shares) for name in batch.ids)
        assert names == Counter(e.id for e in data.validation)


def test_nothing_to_train_on_is_an_error_that_says_why(module) -> None:
    with pytest.raises(UserError, match=r"no example to train on; left out: \{'no feasible budget': 1\}"):
        module("sft", [record("q/1", CATS, None, reason="no feasible budget")])
    with pytest.raises(UserError, match=r"longer than data\.max_length=10"):
        module("sft", [record("q/1", CATS, "[[3]]")], max_length=10)
    with pytest.raises(UserError, match="no example to train on; left out: nothing"):
        module("sft", [])


def test_a_missing_file_is_named(module, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl: cannot be read"):
        module("sft", records=[str(tmp_path / "nowhere.jsonl")])


def test_lucky_targets_are_left_out_where_the_recipe_says_so(module) -> None:
    """Right in 3, 4 and 8 of 8 answers: the first is under a half."""
    records = [replace(r, again=Confirmation(n, 8, 0.7)) for r, n in zip(pairs(3), (3, 4, 8), strict=True)]
    assert [e.id for e in module("sft", records).train] == ["q/0", "q/1", "q/2"]
    data = module("sft", records, min_confirmed=0.5)
    assert [e.id for e in data.train] == ["q/1", "q/2"]
    assert data.left_out == {"lucky: under data.min_confirmed=0.5 right when asked again": 1}
    with pytest.raises(
        UserError, match=r"data.min_confirmed=0.5: the target of q/0 was not asked again; .*confirm_samples=8"
    ):
        module("sft", pairs(2), min_confirmed=0.5)


def test_a_larger_draw_of_targets_contains_a_smaller_one(module) -> None:
    """A count of targets is drawn at random, by the seed."""
    drawn = [{e.id for e in module("sft", pairs(20), limit=count).train} for count in (5, 10)]
    assert ([len(ids) for ids in drawn], drawn[0] < drawn[1]) == ([5, 10], True)
    assert drawn[0] != {e.id for e in module("sft", pairs(20), limit=5, seed=1).train}
    assert module("sft", pairs(20), limit=5).left_out == {"not drawn by data.limit=5": 15}
    assert module("sft", pairs(20), limit=20).left_out == {}
    with pytest.raises(UserError, match=r"data.limit=21: only 20 examples are there"):
        module("sft", pairs(20), limit=21)


def test_without_records_there_is_nothing_to_train_on(module) -> None:
    with pytest.raises(UserError, match=r"^data\.records: none given"):
        module("sft", records=[])


# --- which examples a step takes ---------------------------------------------------------------------------------

SAMPLERS = st.builds(
    StepSampler,
    examples=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 9),
)


@given(SAMPLERS)
def test_every_epoch_takes_every_example_once(sampler: StepSampler) -> None:
    steps = list(sampler)
    assert len(steps) == len(sampler)
    for epoch in range(sampler.epochs):
        epoch_steps = steps[epoch * sampler.steps_per_epoch : (epoch + 1) * sampler.steps_per_epoch]
        assert sorted(chain(*epoch_steps)) == list(range(sampler.examples))
        assert {len(step) for step in epoch_steps[:-1]} <= {sampler.batch_size}


@given(SAMPLERS, st.integers(2, 4))
def test_the_ranks_share_each_step_out(alone: StepSampler, world: int) -> None:
    ranks = [
        list(StepSampler(alone.examples, alone.batch_size, alone.epochs, alone.seed, rank=r, world_size=world))
        for r in range(world)
    ]
    together = [sorted(chain(*shares)) for shares in zip(*ranks, strict=True)]
    # A last step with fewer examples than ranks is dropped, everywhere.
    assert together == [sorted(step) for step in alone if len(step) >= world or len(step) == alone.batch_size]


@given(SAMPLERS, st.data())
def test_a_resumed_run_continues_with_the_same_examples(sampler: StepSampler, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(sampler)))
    rest = StepSampler(sampler.examples, sampler.batch_size, sampler.epochs, sampler.seed, first)
    assert list(rest) == list(sampler)[first:]
    assert len(rest) == len(sampler) - first


def test_epochs_and_seeds_differ_in_order() -> None:
    one, two = list(StepSampler(20, 20, epochs=2, seed=0))
    (other,) = StepSampler(20, 20, epochs=1, seed=1)
    assert one != two
    assert one != other
