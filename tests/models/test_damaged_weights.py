"""Adapters and bases that are not what they say: refused by file, tensor and remedy, before weights are loaded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tale.config.sections import Dtype, ModelConfig
from tale.errors import UserError
from tale.models.adapters import AdapterCard, adapter_fingerprint, check_adapter
from tale.models.base import BaseModel, resolve
from tale.models.lora import load_adapter, save_adapter
from tale.training.merge import MergeRecipe, merge
from tests.factories import adapted
from tests.tiny_llama import tiny_llama

Tensors = dict[str, Tensor]
Q, V = (f"base_model.model.model.layers.{i}.self_attn.{kind}_proj.lora_B.weight" for i, kind in ((0, "q"), (1, "v")))
UP = "model.layers.1.mlp.up_proj.weight"
BASE = "model.safetensors"
NUMBERS = "holds NaN or infinite numbers"


def model_of(folder: Path, **others: Any) -> ModelConfig:
    return ModelConfig(str(folder), "tiny-llama", dtype=Dtype.float32, **others)


@pytest.fixture(scope="module")
def base(tiny_model_folder: Path) -> BaseModel:
    return resolve(model_of(tiny_model_folder))


@pytest.fixture(scope="module")
def made(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of rank 2 and scale 4 on q_proj and v_proj of the tiny Llama, with its card."""
    folder = tmp_path_factory.mktemp("made") / "adapter"
    save_adapter(adapted(base.folder), AdapterCard(base.identity, [], []), folder)
    return folder


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(made, tmp_path / "adapter"))


def tensors(change: Callable[[Tensors], object], file: str = "adapter_model.safetensors") -> Callable[[Path], None]:
    """Reads the tensors of a folder, has them changed, and writes them."""

    def spoil(folder: Path) -> None:
        held = load_file(folder / file)
        change(held)
        save_file(held, folder / file, metadata={"format": "pt"})

    return spoil


def settings(file: str = "adapter_config.json", **changed: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) | changed
        (folder / file).write_text(json.dumps(content))

    return spoil


def filled(name: str, value: float) -> Callable[[Tensors], object]:
    return lambda held: held[name][1].fill_(value)


SPOILT_TENSORS = {
    "one missing": (lambda t: t.pop(Q), f"{Q} is missing"),
    "half missing": (lambda t: [t.pop(name) for name in list(t) if "lora_A" in name], "lora_A.weight is missing"),
    "none there": (lambda t: t.clear(), "lora_A.weight is missing"),
    "renamed": (lambda t: t.update({"x": t.pop(Q)}), f"{Q} is missing"),
    "one too many": (lambda t: t.update({"x": t[Q] + 0}), "x is unexpected"),
    "NaN": (filled(Q, torch.nan), f"{Q} {NUMBERS}"),
    "infinite": (filled(V, -torch.inf), f"{V} {NUMBERS}"),
    "another shape": (lambda t: t.update({Q: t[Q][:1].clone()}), f"{Q} is 1 × 2, wanted: 32 × 2"),
    "one that broadcasts": (lambda t: t.update({Q: t[Q][0].clone()}), f"{Q} is 2, wanted: 32 × 2"),
    "transposed": (lambda t: t.update({Q: t[Q].T.contiguous()}), f"{Q} is 2 × 32, wanted: 32 × 2"),
    "integers": (lambda t: t.update({Q: t[Q].int()}), f"{Q} is in int32, wanted: float32"),
    "the base's": (lambda t: t.update({Q.replace("lora_B", "base_layer"): t[Q] + 0}), "save_embedding_layers=False"),
}
SPOILT_SETTINGS = {
    "rank": ({"r": 4}, "lora_A.weight is 2 × 32, wanted: 4 × 32"),
    "rank of 0": ({"r": 0}, "r=0, lora_alpha=4.*: an adapter needs a rank"),
    "rank as text": ({"r": "2"}, r"not plain LoRA's \(Expected `int`, got `str` - at `\$.r`\)"),
    "rank beyond memory": ({"r": 2**50}, "wanted: 1125899906842624 × 32"),
    "no scale": ({"lora_alpha": 0}, "lora_alpha=0.*: an adapter needs a rank"),
    "scale as null": ({"lora_alpha": None}, "not plain LoRA.*lora_alpha"),
    "no layers": ({"target_modules": []}, "an adapter needs a rank, a scale and layers"),
    "unknown layers": ({"target_modules": ["qproj"]}, "does not fit tiny-llama .Target modules {'qproj'} not found"),
    "no pattern": ({"target_modules": "("}, "does not fit tiny-llama .missing ., unterminated"),
    "fewer layers": ({"target_modules": ["q_proj"]}, "v_proj.lora_A.weight is unexpected"),
    "one layer": ({"layers_to_transform": [0]}, "layers.1.self_attn.q_proj.lora_A.weight is unexpected"),
    "another kind": ({"peft_type": "LOHA"}, "not the config of a LoRA adapter"),
    "bias": ({"bias": "all"}, 'bias="all": not plain LoRA'),
    "modules": ({"modules_to_save": ["lm_head"]}, r'modules_to_save=\["lm_head"\]: not plain LoRA'),
    "DoRA": ({"use_dora": True}, "use_dora=true: not plain LoRA"),
    "rsLoRA": ({"use_rslora": True}, "use_rslora=true: not plain LoRA"),
    "ranks": ({"rank_pattern": {"q_proj": 2}}, "rank_pattern=.*: not plain LoRA"),
    "scales": ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern=.*: not plain LoRA"),
    "PiSSA": ({"init_lora_weights": "pissa"}, 'init_lora_weights="pissa": not plain LoRA'),
    "a classifier": ({"task_type": "SEQ_CLS"}, 'task_type="SEQ_CLS": not plain LoRA'),
    "what is to come": ({"quantum": 2}, "quantum=2: not plain LoRA"),
}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(tensors(change), message) for change, message in SPOILT_TENSORS.values()]
    + [(settings(**changed), message) for changed, message in SPOILT_SETTINGS.values()],
    ids=[*SPOILT_TENSORS, *SPOILT_SETTINGS],
)
def test_an_adapter_that_is_not_what_its_config_says_is_refused(
    spoil: Callable[[Path], object], message: str, adapter: Path, base: BaseModel
) -> None:
    spoil(adapter)
    with pytest.raises(UserError, match=message) as told:
        check_adapter(adapter, base)
    assert str(told.value).startswith(f"{adapter}/adapter_")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("spoil", [settings(lora_alpha=8), tensors(lambda t: t[Q].mul_(-1))], ids=["scale", "sign"])
def test_an_adapter_changed_after_its_training_is_refused(
    spoil: Callable[[Path], object], adapter: Path, tiny_model_folder: Path
) -> None:
    """In what no shape shows; and as another program's it is another adapter."""
    base, before = resolve(model_of(tiny_model_folder)), adapter_fingerprint(adapter)
    spoil(adapter)
    with pytest.raises(UserError, match=f"^{re.escape(str(adapter))}: changed since it was trained: .*train it again"):
        check_adapter(adapter, base)
    (adapter / "tale.json").unlink()
    check_adapter(adapter, base)
    assert adapter_fingerprint(adapter) != before


def test_a_merged_adapter_belongs_to_its_base_by_its_weights(
    adapter: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    """Whatever the two are called."""
    named = ModelConfig(str(tiny_model_folder), "tiny-merged", merge_adapter=str(adapter))
    before = resolve(named).fingerprint
    tensors(lambda t: t[UP].mul_(2), BASE)(Path(shutil.copytree(tiny_model_folder, tmp_path / "other")))
    with pytest.raises(UserError, match="this adapter was trained on"):
        resolve(ModelConfig(str(tmp_path / "other"), "tiny-llama", merge_adapter=str(adapter)))
    (adapter / "tale.json").unlink()
    settings(lora_alpha=8)(adapter)
    assert resolve(named).fingerprint != before  # another scale is another model


# --- Bases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (tensors(lambda t: t.pop(UP), BASE), f"{UP} is missing; fetch"),
        (
            tensors(lambda t: t.pop("model.embed_tokens.weight"), BASE),
            r"lm_head.* missing .and 1",
        ),
        (
            tensors(lambda t: t.update({UP: t[UP][:1].clone()}), BASE),
            r"is \[1, 32\], wanted: \[64, 32\]",
        ),
        (
            tensors(lambda t: t.update({"x": t[UP] + 0}), BASE),
            "x is not a part of this architecture",
        ),
        (settings("config.json", num_hidden_layers=1), r"model.layers.1.* is not a part .*\(and 8 more\)"),
        (settings("config.json", num_hidden_layers=3), r"model.layers.2.* is missing .and 8 more"),
        (settings("config.json", hidden_size=64), r"is \[.*32\], wanted: \[.*64\]"),
        (settings("config.json", tie_word_embeddings=False), "lm_head.weight is missing"),
        (settings("config.json", num_attention_heads=0), "read|loaded"),
        (tensors(filled(UP, torch.nan), BASE), f"{UP} {NUMBERS}; fetch it again"),
        (tensors(filled(UP, torch.inf), BASE), f"{UP} {NUMBERS}; fetch it again"),
    ],
)
def test_a_base_without_a_weight_of_its_architecture_is_refused(
    spoil: Callable[[Path], object], message: str, tiny_model_folder: Path, tmp_path: Path
) -> None:
    spoil(Path(shutil.copytree(tiny_model_folder, tmp_path / "base")))
    with pytest.raises(UserError, match=message):
        assert resolve(model_of(tmp_path / "base")).identity


def test_a_base_that_lacks_one_of_its_files_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "base"))
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(tiny_model_folder).save_pretrained(folder, max_shard_size="30KB")
    assert resolve(model_of(folder)).fingerprint == resolve(model_of(tiny_model_folder)).fingerprint
    sorted(folder.glob("*.safetensors"))[1].unlink()
    with pytest.raises(UserError, match=r"is missing|cannot be loaded"):
        resolve(model_of(folder))


# --- Tied heads -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def logits(model: torch.nn.Module) -> Tensor:
    return model.eval()(torch.tensor([[256, 65, 66, 67, 257]])).logits


@pytest.mark.parametrize("layers", [["q_proj", "lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head", "v_proj"]])
def test_an_adapter_on_a_tied_head_is_merged_into_it_alone(
    layers: list[str], tiny_model_folder: Path, tmp_path: Path
) -> None:
    """Or on the embeddings, into those alone.

    The same logits merged, unmerged, and from the folder that scripts/merge.py writes; the base stays tied.
    """
    model = get_peft_model(
        tiny_llama(), PeftLoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=layers)
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    base = resolve(model_of(tiny_model_folder))
    save_adapter(model, AdapterCard(base.identity, [], []), tmp_path / "adapter")
    expected = logits(model)
    assert (expected - logits(base.load())).abs().max() > 0.1
    written = merge(MergeRecipe(str(tmp_path / "merged"), str(tmp_path / "adapter"), model_of(tiny_model_folder)))
    for same in (
        load_adapter(base.load(), tmp_path / "adapter"),
        resolve(model_of(tiny_model_folder, merge_adapter=str(tmp_path / "adapter"))).load(),
        resolve(model_of(written)).load(),
    ):
        torch.testing.assert_close(logits(same), expected, rtol=0, atol=1e-5)
    assert (untouched := base.load()).lm_head.weight is untouched.model.embed_tokens.weight
