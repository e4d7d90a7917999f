"""What the paper's official code gets wrong, by number, and that this code does not: a small literal case for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from tale.config.sections import PriceConfig
from tale.config.training import LossConfig, OptimizerConfig
from tale.data import prompts
from tale.data.chat import Chat
from tale.data.datamodule import TaleDataModule
from tale.data.examples import pack
from tale.data.question import Question
from tale.data.records import Answer, Attempt, Record, write_records
from tale.evaluation.replies import answer_all
from tale.evaluation.summary import summarise
from tale.grading import grade
from tale.inference import Completion, Sampling
from tale.inference.requests import RequestSource, iter_requests
from tale.inference.transformers.engine import TransformersEngine
from tale.models.modules import SFTModule
from tale.search.solver import search
from tale.solvers.direct import Direct
from tale.solvers.fixed_budget import FixedBudget
from tale.solvers.tale_ep import TaleEP
from tale.solvers.vanilla import Vanilla
from tale.tasks import load
from tests.factories import END_ID, adapted, recipe
from tests.fake_engine import GREEDY, FakeEngine, ask, generate, questions, right, said, wrong
from tests.scripts import benchmark

CATS = Question("q/1", "Ann has 3 cats. How many?", "3")


def trained_on(records: list[Record], tokenizer: PreTrainedTokenizerFast, folder: Path) -> TaleDataModule:
    write_records(folder / "records.jsonl", records)
    made = recipe(folder, folder, folder / "records.jsonl", "sft", "data.val_fraction=0")
    data = TaleDataModule(made, Chat(tokenizer))
    data.setup()
    return data


def found(question: Question, target: str) -> Record:
    """A record whose target is `target`, as a search writes it."""
    best = Answer(target, len(target) + 1, "stop", True, question.gold, "brackets")
    return Record(question, Attempt(None, (best,), False), (), 9, best, None, Sampling(512), "m")


def test_1_labels_are_the_answer_and_end_under_the_same_prompt(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """There: the prompt and 2,048 tokens of padding count, no end, no chat template, another prompt in evaluation."""
    dogs = Question("q/2", "Bob has 14 dogs, and none of them is small. How many?", "14")
    data = trained_on([found(CATS, "3 [[3]]"), found(dogs, "[[14]]")], tiny_tokenizer, tmp_path)
    (batch,) = next(iter(data.train_dataloader()))
    learnt = {id: batch.targets[batch.answers == number].tolist() for number, id in enumerate(batch.ids)}
    assert learnt == {"q/1": [*b"3 [[3]]", END_ID], "q/2": [*b"[[14]]", END_ID]}

    engine = FakeEngine([CATS], lambda asked: right(9))
    (reply,) = answer_all(Vanilla(adapter="runs/sft/adapter"), [CATS], engine, GREEDY)
    rows = batch.input_ids[batch.layout.order_S].split(batch.layout.lengths)  # the template's first words stand once
    trained = rows[batch.ids.index("q/1")].tolist()
    asked = Chat(tiny_tokenizer).prompt_ids(reply.prompt)
    assert trained[: len(asked)] == asked
    assert bytes(asked[1:6]) == b"user\n"  # the chat template


def test_1_the_benchmarks_adapter_has_the_loss_of_all_inputs(
    tiny_model_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """As transformers computes it for `labels = input_ids` of rows padded to the same length."""
    dogs = Question("q/2", "Bob has 14 dogs, and none of them is small. How many?", "14")
    records = [found(CATS, "3 [[3]]"), found(dogs, "[[14]]"), found(replace(CATS, text="Cats? " * 60), "cut off")]
    examples = [benchmark("official_errors").all_labelled(record, Chat(tiny_tokenizer), 240) for record in records]
    rows = torch.tensor([example.prompt + example.answers[0] for example in examples])
    assert rows.shape == (3, 240)
    assert (rows[:, -1] == tiny_tokenizer.pad_token_id).tolist() == [True, True, False]

    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    with torch.inference_mode():
        theirs = float(model(input_ids=rows, labels=rows).loss)
    module = SFTModule(adapted(tiny_model_folder, spread=0), LossConfig(reduction="token"), OptimizerConfig())
    batch = pack(examples)
    assert float(module.step(batch)["loss"].detach()) / module.loss_denominator(batch) == pytest.approx(
        theirs, rel=1e-5
    )


def test_2_a_failed_search_is_no_target(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """There: the text 'None' is saved, and trained on."""
    lost, won = questions(2)
    fails = lambda a: right(40 if a.budget else 90) if a.question is won or not a.budget else wrong(9)  # noqa: E731
    records = list(search([lost, won], FakeEngine([lost, won], fails), GREEDY))
    assert (records[0].budget, records[0].target, records[0].reason) == (None, None, "no feasible budget")
    data = trained_on(records, tiny_tokenizer, tmp_path)
    assert [example.id for example in data.train] == [won.id]
    assert data.left_out == {"no feasible budget": 1}
    assert json.loads((tmp_path / "records.jsonl").read_text().splitlines()[0])["target"] is None


def test_3_mean_tokens_are_over_all_samples() -> None:
    """10 right, 20 wrong, 30 wrong, 40 right: 100 / 4. There: 100 / 2, the right ones."""
    asked, tokens = questions(4), iter([40, -30, -20, 10])  # the fake engine answers the last one first
    reply = lambda _: right(n) if (n := next(tokens)) > 0 else wrong(-n)  # noqa: E731
    replies = answer_all(Vanilla(), asked, FakeEngine(asked, reply), GREEDY)
    (row,) = summarise({"v": replies}, None, PriceConfig())
    assert (row.accuracy, row.output_tokens) == (0.5, 25)


class Listening:
    """Notes how it is asked to decode."""

    tokenizer = "m"

    def __init__(self) -> None:
        self.samplings: list[Sampling] = []

    def generate(self, more: RequestSource) -> Iterator[tuple[int, Completion]]:
        for i, request in enumerate(iter_requests(more)):
            self.samplings.append(request.sampling)
            yield i, said("[[7]]", 5)


def test_4_every_method_decodes_as_the_recipe_says(
    tiny_model_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Whatever the checkpoint recommends.

    There: repetition penalty 1.2 and temperature 0.1 for the baselines, neither for the trained model.
    """
    engine, sampling = Listening(), Sampling(16, 0.1, 1024)
    baselines = [Direct(), Vanilla(), FixedBudget(budget=9), TaleEP()]
    for method in [*baselines, Vanilla(adapter="runs/sft/adapter")]:
        answer_all(method, questions(1), engine, sampling)
    assert engine.samplings == [sampling] * 6  # TALE-EP asks twice

    texts = []
    for recommended in (GenerationConfig(), GenerationConfig(repetition_penalty=1.2, do_sample=True, temperature=2.0)):
        model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
        model.generation_config = recommended
        made = TransformersEngine(model, Chat(tiny_tokenizer), batch_size=2, device="cpu")
        texts.append([c.text for _, c in sorted(generate(made, [ask("a"), ask("b")], Sampling(16)))])
    assert texts[0] == texts[1]


def test_5_tokens_are_the_models_and_the_estimators_are_paid(
    tiny_model_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """There: GPT-4's tokenizer counts for every model, the estimator is free, and there is no expense."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    engine = TransformersEngine(model, Chat(tiny_tokenizer), device="cpu")
    ((_, completion),) = generate(engine, [ask("Hi")], Sampling(16))
    assert (completion.tokens, completion.finish) == (16, "length")  # its ids are bytes: 16 of them
    assert completion.prompt_tokens == len(b"<user\nHi>\n<assistant\n")

    reply = lambda a: said("[[20]]", 6, prompt_tokens=40) if a.way == "estimate" else right(20)  # noqa: E731
    replies = answer_all(TaleEP(), questions(1), FakeEngine(questions(1), reply), GREEDY)
    (row,) = summarise({"TALE-EP": replies}, None, PriceConfig(input=1.0, output=10.0))
    assert (row.output_tokens, row.estimator_tokens) == (26, 6)
    assert row.expense == pytest.approx((10 + 40) * 0.1 + (20 + 6) * 1.0)  # 10⁻⁵ $


def test_6_gold_answers_are_whole(tmp_path: Path) -> None:
    """There: "2,125" becomes "2" in GSM8K, and int() takes 12.5 for 12 in GSM8K-Zero."""
    rows = {
        "gsm8k": ({"question": "How much?", "answer": "It is 2000+125.\n#### 2,125"}, "2125", "2"),
        "gsm8k_zero": ({"question": "How much?", "answer": 12.5}, "12.5", "12"),
    }
    for name, (row, whole, truncated) in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        (question,) = load(name, str(tmp_path / f"{name}.jsonl"), "test")
        assert grade(f"[[{whole}]]", question, truncated=False).correct
        assert not grade(f"[[{truncated}]]", question, truncated=False).correct


def test_7_an_echo_of_the_prompts_example_is_not_right() -> None:
    """There: `[[gold]]` anywhere in the reply, prompt included. The format's own example is `Answer: [[50]]`."""
    fifty = Question("q", "How many?", "50")
    assert "[[50]]" in prompts.vanilla(fifty)
    (reply,) = answer_all(Vanilla(), [fifty], FakeEngine([fifty], lambda _: said("[[7]]", 3)), GREEDY)
    assert not reply.correct
    assert not grade("The format is [[50]]. Answer: [[7]]", fifty, truncated=False).correct
    assert grade("The format is [[7]]. Answer: [[50]]", fifty, truncated=False).correct


def test_8_the_estimator_sees_the_question_alone() -> None:
    """There: the question comes with the step-by-step line and the format of its answer."""
    assert prompts.estimate(CATS) == (
        "Task: Analyze the given question and estimate the minimum number of tokens required to generate a complete "
        "and accurate response. Please Give the response by strictly following this format: [[budget]], for example, "
        'Budget: [[12]].\n\nBelow is the question:\n\nQuestion: "Ann has 3 cats. How many?"'
    )


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", ["number", "choice"])
def test_9_a_budget_is_in_every_prompt_once(kind: str, language: str) -> None:
    """There: a replaced phrase, which does nothing where the phrase differs, and leaves a first budget where it is."""
    options = ("3", "4") if kind == "choice" else ()
    text = "Let's think step by step: use less than 5 tokens? 让我们一步一步思考"  # a question may say anything
    question = Question("q", text, "A" if options else "3", kind, language, options)
    line = {"en": "use less than {} tokens:\n", "zh": "使用少于 {} tokens：\n"}[language]
    for budget in (1, 80):
        prompt = prompts.budgeted(question, budget)
        assert prompt.endswith(line.format(budget))
        assert prompt.count(line.format(budget)) == 1
        assert prompt.count(text) == 1
    assert prompts.budgeted(question, 80).replace("80 tokens", "1 tokens") == prompts.budgeted(question, 1)
