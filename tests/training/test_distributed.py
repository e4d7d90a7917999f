"""Two processes over gloo, under each strategy, are one process; and where one fails, both end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tale.config.sections import DevicesConfig, Dtype, ModelConfig
from tale.data.chat import Chat
from tale.data.records import write_records
from tale.errors import UserError
from tale.inference import Sampling
from tale.inference.transformers.engine import TransformersEngine
from tale.models.base import resolve
from tale.models.lora import load_adapter
from tale.runs.devices import make_fabric
from tale.training.checkpoint import read
from tale.training.run import train
from tests import ROOT
from tests.factories import END_ID, Ids, arguments, pairs, recipe
from tests.fake_engine import ask, generate

pytestmark = pytest.mark.slow

# Ranks have 5 and 4 of nine examples, in micro-batches of 3; or 4 and 3 of seven, so that one has a micro-batch more.
# One example is held out. The last step has 5 examples of 23, or 2.
NINE = ["train.global_batch_size=9", "train.micro_batch_size=3"]
SEVEN = ["train.global_batch_size=7", "train.micro_batch_size=3", "train.max_steps=5"]
COMMON = ["lora.lora_dropout=0", "data.val_fraction=0.05", "data.seed=1", "train.save_steps=1"]
# name: what is trained, without what only says how. `loss.reduction=token` weighs examples by length.
RUNS = {
    "sft": ["sft", *NINE, "loss.reduction=token", "train.epochs=2"],
    "dpo": ["dpo", *SEVEN, "loss.length_normalized=true", "loss.use_ref_model=true"],
    # Each rank has two of the four groups; one answer in five ends before the limit, so that rewards differ.
    "grpo": [
        *["grpo", "grpo.num_generations=8", "grpo.max_completion_length=64", "train.global_batch_size=32"],
        *["grpo.reward_funcs=[lcpo_exact]", "grpo.budget_range=[9, 30]", "grpo.beta=0.1", "train.max_steps=3"],
    ],
    "nf4": ["sft", *SEVEN, "model.quantization=nf4", "lora.r=128"],
    "nf4 8bit": ["sft", *SEVEN, "model.quantization=nf4", "optimizer.name=adamw_8bit", "lora.r=128"],
}
# Shares of groups and means over right or wrong answers, of both ranks.
GRPO_TAGS = ("train/loss", "train/grad_norm", "train/reward", "train/wrong_tokens", "train/budget_error", "train/kl")
DDP, FSDP2 = "fabric.strategy=ddp", "fabric.strategy=fsdp2"
AT_ONCE, RECOMPUTED = "train.micro_batch_size=9", "train.gradient_checkpointing=true"
# Of elements that move by up to 0.05. AdamW divides a gradient by its own size, and so magnifies the rounding of one
# that is nearly 0; what it would hide, a wrong scale, shows in the gradients' norm.
CLOSE = 5e-5
# A moment held in 8 bits steps to its neighbour where rounding differs: a hundredth of what an element moves by.
CLOSE_8BIT = 5e-4
# name: the run that it must equal, and how.
CASES = {
    "ddp": ("sft", [DDP]),
    "ddp dpo recomputed": ("dpo", [DDP, RECOMPUTED]),
    "ddp nf4": ("nf4", [DDP]),
    "ddp nf4 8bit": ("nf4 8bit", [DDP]),
    "ddp grpo": ("grpo", [DDP]),
    "ddp grpo in parts": ("grpo", [DDP, "train.micro_batch_size=3"]),
    "fsdp2": ("sft", [FSDP2]),
    "fsdp2 at once": ("sft", [FSDP2, AT_ONCE]),
    "fsdp2 recomputed": ("sft", [FSDP2, RECOMPUTED]),
    "fsdp2 dpo": ("dpo", [FSDP2]),
    "fsdp2 dpo at once recomputed": ("dpo", [FSDP2, AT_ONCE, RECOMPUTED]),
    "fsdp2 resumed": ("sft", [FSDP2, "resume=auto"]),
}


def scalars(folder: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def folder(wide_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run by one process under its name, and every case by two, all started once."""
    made = tmp_path_factory.mktemp("runs")
    write_records(made / "r.jsonl", pairs(24))
    given = lambda output, kind, *options: arguments(  # noqa: E731
        wide_model_folder, made / output, made / "r.jsonl", kind, *COMMON, *options
    )
    for name, (kind, *options) in RUNS.items():
        train(recipe(wide_model_folder, made / name, made / "r.jsonl", kind, *COMMON, *options))
    # As if one process had been killed after its last step but one.
    shutil.copytree(made / "sft" / "checkpoints", made / "fsdp2 resumed" / "checkpoints")
    newest(made / "fsdp2 resumed").unlink()
    cases = {name: given(name, *RUNS[run], *how, "fabric.devices=2") for name, (run, how) in CASES.items()}
    for name in ("nan ddp", "nan fsdp2"):
        how = f"fabric.strategy={name.removeprefix('nan ')}"
        cases[name] = given(name, *RUNS["sft"], AT_ONCE, how, "fabric.devices=2")
    half = ["model.dtype=bfloat16", "fabric.precision=bf16-mixed", "fabric.devices=2"]
    for how in (DDP, FSDP2):
        cases[f"bf16 {how}"] = given(f"bf16 {how}", *RUNS["sft"], how, *half)
    (made / "cases.json").write_text(json.dumps(cases))
    done = torchrun(ROOT / "tests" / "torchrun_training.py", made / "cases.json")
    assert done.returncode == 0, done.stderr[-4000:]
    return made


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("*.ckpt"))[-1]


def close(case: str) -> float:
    """How far the adapters' elements may lie apart."""
    return CLOSE_8BIT if "8bit" in case else CLOSE


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(folder: Path, case: str) -> None:
    one, two = folder / CASES[case][0], folder / case
    assert len(scalars(one, "train/loss")) >= (3 if "grpo" in case else 5)
    torch.testing.assert_close(adapter(two), adapter(one), rtol=0, atol=close(case))
    if "resumed" not in case:  # which logged its last step alone
        for tag in GRPO_TAGS if "grpo" in case else ("train/loss", "train/grad_norm", "val/loss"):
            assert scalars(two, tag) == pytest.approx(scalars(one, tag), rel=1e-4), tag


@pytest.mark.parametrize("case", ["ddp", "fsdp2", "ddp nf4", "ddp nf4 8bit"])
def test_one_process_resumes_a_checkpoint_of_two(folder: Path, wide_model_folder: Path, case: str) -> None:
    one = CASES[case][0]
    cut = folder / f"{case} cut"
    shutil.copytree(folder / case / "checkpoints", cut / "checkpoints")
    newest(cut).unlink()
    kind, *options = RUNS[one]
    train(recipe(wide_model_folder, cut, folder / "r.jsonl", kind, *COMMON, *options, "resume=auto"))
    torch.testing.assert_close(
        adapter(cut), adapter(folder / one), rtol=0, atol=CLOSE_8BIT if "8bit" in case else CLOSE
    )
    assert scalars(cut, "train/loss") == pytest.approx(scalars(folder / one, "train/loss")[-1:], rel=1e-4)


@pytest.mark.parametrize("case", ["sft", "ddp", "fsdp2", "ddp nf4", "fsdp2 dpo"])
def test_each_strategys_adapter_answers_the_same_in_plain_peft(
    folder: Path, wide_model_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, case: str
) -> None:
    made, chat = folder / case / "adapter", Ids(tiny_tokenizer)
    base = resolve(ModelConfig(str(wide_model_folder), "tiny-llama", dtype=Dtype.float32))
    texts = ["2 + 2?", "Tom has 3 pens, Ann has 4.", "三加四等于几？"]
    engine = TransformersEngine(load_adapter(base.load(), made), chat, device="cpu")
    ours = dict(generate(engine, [ask(text) for text in texts], Sampling(16)))
    plain = AutoModelForCausalLM.from_pretrained(wide_model_folder, dtype=torch.float32)
    untrained = [alone(plain, chat, text) for text in texts]
    adapted = PeftModel.from_pretrained(plain, made)
    theirs = [alone(adapted, chat, text) for text in texts]
    assert [ours[i].text for i in range(len(texts))] == theirs
    assert theirs != untrained


def alone(model: torch.nn.Module, chat: Chat, text: str) -> str:
    """Plain `generate` of one prompt."""
    prompt = torch.tensor([chat.prompt_ids(text)])
    ids = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=16,
        eos_token_id=END_ID,
    )
    return chat.decode(ids[0, prompt.shape[1] :].tolist())


def test_a_checkpoint_is_the_same_under_each_strategy(folder: Path) -> None:
    one, ddp, fsdp2 = (read(newest(folder / run)) for run in ("sft", "ddp", "fsdp2"))
    for two in (ddp, fsdp2):
        for name in ("module", "optimizer", "scheduler"):
            torch.testing.assert_close(two.pop(name), one[name], rtol=0, atol=1e-5)
        assert two.pop("scores") == pytest.approx(one["scores"], abs=1e-4)
        assert two == {"step": 6, "fingerprint": one["fingerprint"]}


@pytest.mark.parametrize("how", [DDP, FSDP2])
def test_adapters_and_their_state_stay_in_fp32(folder: Path, how: str) -> None:
    """Of a base in bfloat16."""
    bf16 = folder / f"bf16 {how}"
    saved = read(newest(bf16))
    moments = [values[name] for values in saved["optimizer"]["state"].values() for name in ("exp_avg", "exp_avg_sq")]
    assert {tensor.dtype for tensor in [*saved["module"].values(), *moments]} == {torch.float32}
    assert len(moments) == 2 * len(saved["module"]) == 2 * 8
    assert scalars(bf16, "train/loss") == pytest.approx(scalars(folder / "sft", "train/loss"), rel=0.05)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_nan_loss_on_one_process_stops_both_before_the_update(folder: Path, strategy: str) -> None:
    name = f"nan {strategy}"
    said = [(folder / f"{name}-{rank}.txt").read_text() for rank in (0, 1)]
    assert all("loss nan, gradient norm nan, on the examples: q/" in text for text in said)
    assert newest(folder / name).name == "step-000002.ckpt"
    assert len(scalars(folder / name, "train/loss")) == 2


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent to notice does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["raises 0", "killed 1"])
def test_a_failed_process_ends_the_other_that_waits_for_it(wide_model_folder: Path, tmp_path: Path, how: str) -> None:
    """The one that Fabric started sees its parent gone; the one that started it, its child."""
    write_records(tmp_path / "r.jsonl", pairs(24))
    given = arguments(wide_model_folder, tmp_path / "run", tmp_path / "r.jsonl", "sft", *RUNS["sft"][1:], DDP)
    command = [sys.executable, ROOT / "tests" / "failing_training.py", how, *given, "fabric.devices=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=said)
    try:
        assert process.wait(300) != 0
        text = (tmp_path / "said").read_text()
        both = [int(line.removeprefix("process ")) for line in text.splitlines() if line.startswith("process ")]
        assert len(both) == 2
        deadline = time.monotonic() + 20
        while any(map(alive, both)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(alive, both))
        assert how != "raises 0" or "the disk is on fire" in text
    finally:
        process.kill()


def test_the_script_starts_two_processes_by_itself(folder: Path, wide_model_folder: Path) -> None:
    given = arguments(wide_model_folder, folder / "script", folder / "r.jsonl", *RUNS["sft"][:1], *COMMON)
    command = [sys.executable, ROOT / "scripts" / "train.py", *given, *RUNS["sft"][1:], FSDP2, "fabric.devices=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("1 held out for validation") == 1
    torch.testing.assert_close(adapter(folder / "script"), adapter(folder / "sft"), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("accelerator", ["tpu", "meta"])
def test_an_accelerator_that_is_not_here_is_refused(accelerator: str) -> None:
    with pytest.raises(UserError, match=r"^fabric: "):
        make_fabric(DevicesConfig(), accelerator)


def test_torchrun_with_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each would take itself for the only one."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match=r"^fabric\.devices, fabric\.num_nodes: they make 1 processes, but 4 were"):
        make_fabric(DevicesConfig(), "cpu")
