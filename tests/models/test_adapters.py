"""Adapters that any PEFT program can load, that know their base, and that can be folded into it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tale.config import recipes, sections
from tale.config.sections import ModelConfig
from tale.config.training import LoraConfig, TrainRecipe
from tale.data.datamodule import TaleDataModule
from tale.data.records import write_records
from tale.errors import UserError
from tale.models.adapters import check_adapter, read_card
from tale.models.base import BaseModel, resolve
from tale.models.lora import add_lora, load_adapter, save_adapter
from tale.runs.run import finish_run
from tale.training import run
from tale.training.merge import MergeRecipe, merge
from tests.factories import pairs, recipe

IDS = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(IDS).logits


def base_of(folder: Path, name: str = "tiny-llama") -> BaseModel:
    return resolve(ModelConfig(name_or_path=str(folder), name=name, dtype=sections.Dtype.float32))


class Trained:
    """A short run: its recipe, its adapter's folder and, still in memory, the model that was trained."""

    def __init__(self, made: TrainRecipe):
        self.recipe = made
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "save_adapter", self._save)
            self.adapter = run.train(made)

    def _save(self, model: PeftModel, *rest: object) -> None:
        model.get_base_model().set_attn_implementation("sdpa")  # trained on packed sequences, now asked as others are
        self.model = model
        save_adapter(model, *rest)


@pytest.fixture(scope="module")
def trained(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("runs")
    write_records(folder / "records.jsonl", pairs(30))
    return Trained(recipe(tiny_model_folder, folder / "sft", folder / "records.jsonl", "sft", "optimizer.lr=5e-2"))


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> Path:
    """The adapter's folder, to be spoilt."""
    return Path(shutil.copytree(trained.adapter, tmp_path / "adapter"))


def test_plain_peft_loads_what_was_trained(trained: Trained, tiny_model_folder: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    untrained = logits(base)
    theirs = logits(PeftModel.from_pretrained(base, trained.adapter))
    assert (theirs - untrained).abs().max() > 0.1
    torch.testing.assert_close(theirs, logits(trained.model), rtol=0, atol=0)
    ours = load_adapter(base_of(tiny_model_folder).load(), trained.adapter)
    torch.testing.assert_close(logits(ours), theirs, rtol=0, atol=0)


def test_an_adapter_names_its_base_and_no_path(trained: Trained, tiny_model_folder: Path) -> None:
    files = sorted(trained.adapter.iterdir())
    assert [file.name for file in files] == ["adapter_config.json", "adapter_model.safetensors", "tale.json"]
    assert json.loads(files[0].read_text())["base_model_name_or_path"] == "tiny-llama"
    for file in files:
        assert str(tiny_model_folder.parent).encode() not in file.read_bytes()


def test_the_card_says_what_was_trained_on(trained: Trained, tiny_model_folder: Path) -> None:
    base = base_of(tiny_model_folder)
    data = TaleDataModule(trained.recipe, base.chat())
    data.setup()
    card = json.loads((trained.adapter / "tale.json").read_text())
    assert card["base"] == {"name": "tiny-llama", "weights": base.fingerprint}
    asked = {f"q/{i}": r.question for i, r in enumerate(pairs(30))}
    assert card["questions"] == sorted(asked[e.id].question_hash for e in data.train)
    held_out = {asked[e.id].context_hash for e in data.validation}
    assert held_out
    assert not held_out & set(card["contexts"])


def test_an_adapter_fits_its_base_wherever_that_lies(trained: Trained, tiny_model_folder: Path, tmp_path) -> None:
    """Moved, and cut into other files: the same weights are the same base."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    model.save_pretrained(tmp_path / "moved", max_shard_size="30KB")
    assert len(list((tmp_path / "moved").glob("*.safetensors"))) > 1
    assert check_adapter(trained.adapter, base_of(tmp_path / "moved")) == read_card(trained.adapter)


def test_an_adapter_of_another_base_is_refused(trained: Trained, tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trained on .*'tiny-llama'.*the recipe's model is .*'other'"):
        check_adapter(trained.adapter, base_of(tiny_model_folder, "other"))

    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] += 1e-3
    model.save_pretrained(tmp_path / "tiny-llama")
    with pytest.raises(UserError, match="this adapter was trained on"):
        check_adapter(trained.adapter, base_of(tmp_path / "tiny-llama"))


def test_another_programs_adapter_goes_by_its_bases_name(copied: Path, tiny_model_folder: Path) -> None:
    (copied / "tale.json").unlink()
    assert check_adapter(copied, base_of(tiny_model_folder)) is None
    with pytest.raises(UserError, match="this adapter is for 'tiny-llama', the recipe's model is 'other'"):
        check_adapter(copied, base_of(tiny_model_folder, "other"))


def test_a_folder_without_adapter_or_valid_card_is_named(copied: Path) -> None:
    (copied / "tale.json").write_text("{")
    with pytest.raises(UserError, match=r"tale\.json: not "):
        read_card(copied)
    (copied / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="no adapter"):
        read_card(copied)


def test_an_earlier_versions_card_is_rewritten_on_resume(trained: Trained, tmp_path: Path) -> None:
    """Such a card says nothing of hashes. No step is trained again, so the weights are the same bytes."""
    shutil.copytree(Path(trained.recipe.output), tmp_path / "run")
    adapter = tmp_path / "run" / "adapter"
    weights, card = (adapter / name for name in ("adapter_model.safetensors", "tale.json"))
    saved = weights.read_bytes(), card.read_bytes()
    old = {key: value for key, value in json.loads(saved[1]).items() if key != "hashes"}
    card.write_text(json.dumps(old | {"questions": ["0123456789abcdef"]}))
    finish_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"adapter/tale\.json: has question hashes of version 1.*resume=auto"):
        read_card(adapter)
    run.train(replace(trained.recipe, output=str(tmp_path / "run"), resume="auto"))
    assert (weights.read_bytes(), card.read_bytes()) == saved


def test_an_unknown_module_is_named_with_the_known_ones(tiny_model_folder: Path) -> None:
    with pytest.raises(UserError, match=r"no linear layer named qproj; this model has down_proj, .*q_proj"):
        add_lora(base_of(tiny_model_folder).load(), LoraConfig(target_modules=["qproj", "v_proj"]), "tiny-llama")


def test_a_run_starts_from_an_adapter(trained: Trained, tiny_model_folder: Path, tmp_path: Path) -> None:
    """At a learning rate that rounds away it comes out as it went in, and has seen what both have seen."""
    asked = [replace(r, question=replace(r.question, text=f"Once. {r.question.text}")) for r in pairs(12)]
    write_records(tmp_path / "records.jsonl", asked)
    options = [f"lora.init_from={trained.adapter}", "optimizer.lr=1e-30"]
    made = recipe(tiny_model_folder, tmp_path / "more", tmp_path / "records.jsonl", "sft", *options)
    adapter = run.train(made)
    files = [folder / "adapter_model.safetensors" for folder in (trained.adapter, adapter)]
    assert files[0].read_bytes() == files[1].read_bytes()
    old, new = read_card(trained.adapter), read_card(adapter)
    assert set(old.questions) < set(new.questions)
    assert set(old.contexts) < set(new.contexts)


@pytest.mark.parametrize("change", ["lora.r=4", "lora.lora_alpha=1", "lora.target_modules=[q_proj]"])
def test_an_adapter_of_another_shape_is_no_start(trained: Trained, tiny_model_folder, tmp_path, change: str) -> None:
    write_records(tmp_path / "records.jsonl", pairs(12))
    options = [f"lora.init_from={trained.adapter}", change]
    made = recipe(tiny_model_folder, tmp_path / "more", tmp_path / "records.jsonl", "sft", *options)
    with pytest.raises(UserError, match=r"^lora\.init_from: .*adapter has .*the recipe's lora has"):
        run.train(made)
    assert not (tmp_path / "more").exists()


def test_a_merged_model_answers_the_same(trained: Trained, tiny_model_folder: Path, tmp_path: Path) -> None:
    """Its base comes from the run's own recipe."""
    made = recipes.load(MergeRecipe, [f"adapter={trained.adapter}", f"output={tmp_path / 'merged'}"])
    merge(made)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(trained.model), rtol=0, atol=1e-4)
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "merged", tiny_model_folder)]
    asked = [{"role": "user", "content": "Größe?"}]
    one, two = (tokenizer.apply_chat_template(asked, tokenize=False) for tokenizer in tokenizers)
    assert one == two
    assert tokenizers[0](one).input_ids == tokenizers[1](two).input_ids
    with pytest.raises(UserError, match="exists; give a new folder"):
        merge(made)


def test_an_adapter_of_another_base_is_not_merged(trained: Trained, tmp_path: Path) -> None:
    made = recipes.load(
        MergeRecipe, [f"adapter={trained.adapter}", f"output={tmp_path / 'merged'}", "model.name=other"]
    )
    with pytest.raises(UserError, match="this adapter was trained on"):
        merge(made)
    assert not (tmp_path / "merged").exists()


def test_training_continues_from_the_merged_adapter(trained: Trained, tiny_model_folder: Path, tmp_path) -> None:
    write_records(tmp_path / "records.jsonl", [r for i, r in enumerate(pairs(40)) if i >= 30])
    second = recipe(tiny_model_folder, tmp_path / "run", tmp_path / "records.jsonl", "sft", "train.max_steps=1")
    second.model.merge_adapter = str(trained.adapter)
    base = resolve(second.model)
    torch.testing.assert_close(logits(base.load()), logits(trained.model), rtol=0, atol=1e-4)

    card, first = read_card(run.train(second)), read_card(trained.adapter)
    assert card is not None
    assert first is not None
    assert card.base == {"name": "tiny-llama", "weights": base.fingerprint} != first.base
    # Everything that the merged adapter has seen counts as seen.
    assert set(first.questions) < set(card.questions)
    assert set(first.contexts) < set(card.contexts)
    with pytest.raises(UserError, match="this adapter was trained on"):
        check_adapter(tmp_path / "run" / "adapter", base_of(tiny_model_folder))
