"""Rollouts of the live policy through a run: current, in whole groups, resumable to the byte, refused where broken."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import PreTrainedTokenizerFast

from tale.config.recipes import load
from tale.config.training import TrainRecipe
from tale.errors import UserError
from tale.inference import Completion
from tale.inference.requests import iter_requests
from tale.inference.transformers.engine import TransformersEngine
from tale.models.base import BaseModel
from tale.rewards import REWARDS
from tale.training import loop
from tale.training.rollouts import Rollouts
from tale.training.run import check, train
from tale.training.throughput import MEASURED
from tests import ROOT
from tests.fake_engine import questions
from tests.tiny_llama import END_ID, saved, tiny_llama

# Answers of the model below end at any of 33 of its 258 ids, so lengths and with them rewards differ.
SHORT = [
    *["grpo.reward_funcs=[lcpo_exact]", "grpo.budget_range=[2, 6]", "grpo.length_penalty=0.01"],
    *["grpo.max_completion_length=8", "grpo.temperature=0.8", "lora.lora_dropout=0", "optimizer.lr=0.05"],
    *["train.max_steps=3", "train.eval_steps=3"],
]


@pytest.fixture(scope="module")
def folder(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, whose answers end soon."""
    model = tiny_llama()
    model.generation_config.eos_token_id = [*range(32), END_ID]
    return saved(model, tiny_tokenizer, tmp_path_factory)


def recipe(source: Path, output: Path, *options: str) -> TrainRecipe:
    return load(TrainRecipe, ["recipe=tiny/grpo", f"model.name_or_path={source}", f"output={output}", *options])


def adapter(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def scalars(folder: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def journals(folder: Path) -> dict[str, list[dict]]:
    files = sorted((folder / "rollouts").iterdir())
    return {file.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(recipe(folder, run, *SHORT))
    return run


class Killed(BaseException):
    """In place of a signal: nothing catches it."""


def kill_in_rollout(patch: pytest.MonkeyPatch, after: int) -> None:
    """So many answers have been yielded."""
    left, completion = iter(range(after)), TransformersEngine._completion

    def dying(*arguments: object) -> Completion | None:
        found = completion(*arguments)
        if found and next(left, None) is None:
            raise Killed
        return found

    patch.setattr(TransformersEngine, "_completion", dying)


def kill_in_update(patch: pytest.MonkeyPatch, after: int) -> None:
    """So many steps have been computed."""
    left, train_step = iter(range(after)), loop.train_step

    def dying(*arguments: object) -> dict[str, float]:
        metrics = train_step(*arguments)
        if next(left, None) is None:
            raise Killed
        return metrics

    patch.setattr(loop, "train_step", dying)


@pytest.mark.parametrize(("kill", "after"), [(kill_in_rollout, 13), (kill_in_update, 1)])
def test_a_killed_run_resumes_to_the_byte(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path, kill, after: int
) -> None:
    made = recipe(folder, tmp_path / "cut", *SHORT, "resume=auto")
    with monkeypatch.context() as patch:
        kill(patch, after)
        with pytest.raises(Killed):
            train(made)
    assert not (tmp_path / "cut" / "adapter").exists()
    train(made)
    assert adapter(tmp_path / "cut") == adapter(whole)


def test_a_whole_journal_answers_and_half_of_one_does_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    """Killed after the update of the second step, its answers are not sampled again; those of a cut journal are."""
    made = recipe(folder, tmp_path / "cut", *SHORT, "resume=auto", "train.save_steps=3")
    with monkeypatch.context() as patch:
        kill_in_update(patch, 1)
        with pytest.raises(Killed):
            train(made)
    sampled: list[int] = []
    generate = TransformersEngine.generate

    def counted(self, more):
        for answer in generate(self, more):
            sampled.append(1)
            yield answer

    held_out = len(journals(tmp_path / "cut")["val-000000-rank-0-of-1.jsonl"]) - 1
    half = tmp_path / "cut" / "rollouts" / "train-000001-rank-0-of-1.jsonl"
    lines = half.read_text().splitlines(keepends=True)
    half.write_text("".join(lines[:5]))
    monkeypatch.setattr(TransformersEngine, "generate", counted)
    train(made)
    assert len(sampled) == 8 + 8 + held_out  # the second step, the third, and the last validation
    assert half.read_text().count("\n") == len(lines) == 1 + 8
    assert adapter(tmp_path / "cut") == adapter(whole)


def test_a_journal_holds_whole_groups_of_its_step(whole: Path) -> None:
    """Two prompts of four answers each, sampled once; settings name the policy's version."""
    found = journals(whole)
    assert [name for name in found if name.startswith("train")] == [
        "train-000001-rank-0-of-1.jsonl",
        "train-000002-rank-0-of-1.jsonl",
    ]
    first, *answers = found["train-000002-rank-0-of-1.jsonl"]
    assert first["step"] == 2
    assert len({entry["key"] for entry in answers}) == 8
    assert {len(entry["logprobs"]) == len(entry["ids"]) == entry["tokens"] for entry in answers} == {True}


def test_tensorboard_shows_rewards_lengths_and_spread(whole: Path) -> None:
    seen = scalars(whole)
    parts = {"reward", "reward/lcpo_exact", "accuracy", "answer_tokens", "wrong_tokens", "truncated", "over_budget"}
    parts |= {"budget_error", "groups_without_spread", "entropy", "logprob_gap", "grad_norm", "unanswered", "empty"}
    parts |= {"rollout_tokens_per_second", "tokens_per_second", "loading_share"}
    assert {f"train/{name}" for name in parts} <= seen.keys()
    assert {"val/accuracy", "val/accuracy_at_length", "val/answer_tokens"} <= seen.keys()
    assert "train/right_tokens" not in seen  # no answer of the random model is right
    assert all(1 < value < 8 for value in seen["train/answer_tokens"])
    logged = {tag.partition("/")[2] for tag in seen}
    named = {*re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "concepts.md").read_text())}
    assert logged - {"lr", "tokens", "reward/lcpo_exact", *MEASURED} <= named


def test_the_policy_that_samples_is_the_one_that_trains(whole: Path) -> None:
    """Their log-probabilities are the same at every step, whatever the adapter has become."""
    seen = scalars(whole)
    assert max(seen["train/logprob_gap"]) < 1e-4
    assert sum(norm > 0 for norm in seen["train/grad_norm"]) >= 2


def test_the_loss_and_rewards_are_those_of_the_journal(whole: Path) -> None:
    """Of the first step: −|budget − n| / 100 where the prompt states the budget, in groups of four; loss by hand."""
    (_, *entries), made = journals(whole)["train-000001-rank-0-of-1.jsonl"], scalars(whole)
    rewards = made["train/reward"][1]
    assert -0.06 <= rewards < 0
    assert made["train/answer_tokens"][1] == pytest.approx(sum(entry["tokens"] for entry in entries) / 8)
    assert made["train/entropy"][1] == pytest.approx(
        -sum(sum(entry["logprobs"]) for entry in entries) / sum(entry["tokens"] for entry in entries), rel=1e-4
    )
    assert made["train/rollout_completion_tokens"][1] == sum(entry["tokens"] for entry in entries)
    assert made["train/rollout_prompt_tokens"][1] == sum(entry["prompt_tokens"] for entry in entries)


def test_steps_that_share_a_rollout_share_its_tokens(folder: Path, tmp_path: Path) -> None:
    train(recipe(folder, tmp_path / "run", *SHORT, "grpo.num_iterations=3", "train.save_steps=3"))
    (_, *entries), made = journals(tmp_path / "run")["train-000000-rank-0-of-1.jsonl"], scalars(tmp_path / "run")
    tokens = sum(entry["tokens"] for entry in entries)
    assert sum(made["train/rollout_completion_tokens"]) == pytest.approx(tokens)  # float32 thirds


class Fixed:
    """Every answer is right and has 5 tokens."""

    tokenizer = "fixed"

    def generate(self, more):
        for i, _ in enumerate(iter_requests(more)):
            yield i, Completion("[[7]]", 5, "stop", 3, ids=(1, 2, 3, 4, 5))


@pytest.mark.parametrize(
    ("options", "within"),
    [
        ([], 1),  # of max_completion_length, 16
        (["grpo.budget_range=[4, 4]"], 0),
        (["grpo.budget_range=[5, 5]"], 1),
        (["grpo.budget_range=[4, 4]", "grpo.eval_length=5"], 1),
        (["grpo.budget_range=[5, 5]", "grpo.eval_length=4"], 0),
    ],
)
def test_the_length_of_a_held_out_answer_is_the_first_given(options, within, tmp_path) -> None:
    held_out, fabric = SimpleNamespace(held_out=questions(1), chat=None), SimpleNamespace(global_rank=0, world_size=1)
    policy = SimpleNamespace(engine=lambda stack, step: Fixed())
    (batch,) = Rollouts(fabric, recipe(tmp_path, tmp_path, *options), held_out, policy, {}).validation_batches()
    assert (batch.sums["accuracy"], batch.sums["accuracy_at_length"], batch.examples) == (1, within, 1)


def test_two_steps_on_the_same_answers_clip_the_second(folder: Path, tmp_path: Path) -> None:
    options = ["grpo.num_iterations=2", "grpo.epsilon=0.01", "train.save_steps=2", "train.max_steps=4"]
    train(recipe(folder, tmp_path / "run", *SHORT, *options, "grpo.beta=0.1", "optimizer.lr_scheduler=constant"))
    seen = scalars(tmp_path / "run")
    assert seen["train/reward"][0] == seen["train/reward"][1] != seen["train/reward"][2]
    assert seen["train/clipped"][0] == seen["train/clipped"][2] == 0
    assert seen["train/clipped"][1] > 0
    assert seen["train/kl"][0] == pytest.approx(0, abs=1e-6)
    assert seen["train/kl"][1] > 0


def test_without_spread_and_progress_both_are_said(folder: Path, tmp_path: Path, capsys) -> None:
    """No answer of the random model is ever right: the third validation is the second without a better score."""
    options = ["grpo.max_completion_length=4", "grpo.reward_funcs=[correct]"]
    stop = ["train.eval_steps=1", "train.early_stopping_patience=2", "resume=auto"]
    made = recipe(folder, tmp_path / "run", *options, *stop)
    train(made)
    said = capsys.readouterr().out
    assert "warning: step 0: the rewards of every group are equal, so no answer has an advantage" in said
    assert "ended after step 2: 2 validations without a better score" in said
    seen, before = scalars(tmp_path / "run"), adapter(tmp_path / "run")
    assert seen["train/grad_norm"] == [0, 0]
    assert len(seen["val/accuracy_at_length"]) == 3
    train(made)
    assert adapter(tmp_path / "run") == before
    assert "there was no step left" in capsys.readouterr().out


def test_a_broken_reward_ends_the_run(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(REWARDS, "lcpo_exact", lambda group, _: [math.nan] * len(group))
    said = r"lcpo_exact gives \[nan, nan, nan, nan\] on problems/train-s0/\d+; a reward is one finite number"
    with pytest.raises(UserError, match=said):
        train(recipe(folder, tmp_path / "run", *SHORT))


@pytest.mark.parametrize("key", ["train.early_stopping_patience", "grpo.eval_length"])
def test_what_only_a_validation_reads_needs_something_held_out(folder, tmp_path, key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}=2: data\.val_fraction=0\.0 holds nothing out to validate on; raise"):
        train(recipe(folder, tmp_path / "run", *SHORT, "data.val_fraction=0", f"{key}=2"))


def test_a_step_of_empty_answers_ends_the_run(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(TransformersEngine, "_completion", lambda *_: Completion("", 0, "stop", 3, ids=(), logprobs=()))
    with pytest.raises(UserError, match="step 0: no answer has a token to train on: all are empty"):
        train(recipe(folder, tmp_path / "run", *SHORT))


def test_failed_requests_are_a_share_of_all_in_no_other_mean(folder, tmp_path, monkeypatch) -> None:
    """Every fourth sample fails, one of each group's."""
    completion = TransformersEngine._completion

    def failing(engine, prompt, *of) -> Completion | None:
        found = completion(engine, prompt, *of)
        return Completion.failed("too long") if found and prompt.request.sample == 3 else found

    monkeypatch.setattr(TransformersEngine, "_completion", failing)
    train(recipe(folder, tmp_path / "run", *SHORT, "train.max_steps=1", "data.val_fraction=0"))
    seen, (_, *entries) = scalars(tmp_path / "run"), journals(tmp_path / "run")["train-000000-rank-0-of-1.jsonl"]
    assert seen["train/unanswered"] == [1 / 4]
    assert seen["train/answer_tokens"] == [pytest.approx(sum(entry["tokens"] for entry in entries) / 6)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["task={name: ''}"], r"^task\.name: not given; objective=grpo samples answers to questions"),
        (["train.global_batch_size=6"], r"train\.global_batch_size=6: counts answers, .* a multiple of .*=4"),
        (["data.max_length=16"], r"data\.max_length=16: holds a prompt and an answer, .*max_completion_length=16"),
        (["grpo.num_iterations=2"], r"train\.save_steps=1, train\.max_steps=None: must be multiples of .*=2"),
        (["engine.kind=openai"], r"engine\.kind=openai: an endpoint has no weights to train"),
        (["engine.device=cpu"], r"engine\.device=cpu: answers are sampled on the training's device"),
        (["fabric.strategy=fsdp2"], r"fabric\.strategy=fsdp2: answers cannot be sampled from sharded weights"),
        (["engine.kind=vllm", "fabric.devices=2"], r"engine\.kind=vllm, fabric\.devices=2: vLLM distributes"),
        (["grpo.reward_funcs=[]"], r"grpo\.reward_funcs=\[\]: must be different names, at least one"),
        (["grpo.reward_weights=[1]"], r"grpo\.reward_weights: 1 weights for 2 reward_funcs"),
        (["grpo.budget_range=[9, 5]"], r"grpo\.budget_range=\[9, 5\]: must be \[least, most\]"),
        (["grpo.reward_weights=[0, 0]"], r"grpo\.reward_weights=\[0\.0, 0\.0\]: every reward would be 0"),
        (
            ["grpo.budget_range=[5, 17]"],
            r"budget_range=\[5, 17\]: an answer as long .* cut off at .*max_completion_length=16; raise that",
        ),
        (
            ["grpo.reward_funcs=[correct, soft_overlong]"],
            r"soft_punish_cache=64: .* at most .*_length=16",
        ),
        (
            ["engine.kind=vllm", "model.quantization=nf4"],
            r"engine\.kind=vllm, model\.quantization=nf4: .* another policy .* set grpo\.importance_sampling_clip_max",
        ),
        (["grpo.reward_funcs=[lcpo_max]"], r"need the budget of a prompt; set grpo\.budget_range"),
        (["grpo.epsilon=0.1"], r"grpo\.epsilon=0\.1: is not read with these reward_funcs, .* leave it out"),
        (["loss.beta=0.5"], r"loss\.beta=0\.5: objective=grpo does not read it; leave it out"),
        (["data.limit=5"], r"data\.limit=5: objective=grpo does not read it"),
        (["objective=sft"], r"task\.name=problems: objective=sft does not read it; leave it out"),
        (
            ["grpo.num_iterations=2", "train.save_steps=2", "grpo.importance_sampling_clip_max=2"],
            r"importance_sampling_clip_max=2\.0: with num_iterations above 1 .* leave it out",
        ),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(options: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        check(recipe(tmp_path, tmp_path / "run", *options))


def test_a_reward_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grpo\.reward_funcs=speed: one of correct, format, lcpo_exact"):
        recipe(tmp_path, tmp_path / "run", "grpo.reward_funcs=[correct, speed]")


def test_without_vllm_nothing_is_loaded(folder, tmp_path, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "vllm" else find(name, *of))
    monkeypatch.setattr(BaseModel, "load", lambda *_: pytest.fail("weights are loaded"))
    with pytest.raises(UserError, match="vLLM is not installed"):
        train(recipe(folder, tmp_path / "run", "engine.kind=vllm"))


def test_the_prompts_must_fit_beside_the_longest_answer(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"problems: no example to train on; left out: .*longer than data\.max_length=40"
    ):
        train(recipe(folder, tmp_path / "run", "data.max_length=40"))
    with pytest.raises(UserError, match=r"data\.max_length=2048: the model has 1024 tokens"):
        train(recipe(folder, tmp_path / "run", "data.max_length=2048"))


def test_the_card_names_the_questions_but_those_held_out(whole: Path) -> None:
    card = json.loads((whole / "adapter" / "tale.json").read_text())
    held_out = journals(whole)["val-000003-rank-0-of-1.jsonl"][1:]
    assert len(card["questions"]) + len(held_out) == 12
