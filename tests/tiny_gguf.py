"""A tiny Qwen 2 as a GGUF file inside packages, and these packages as an installer would have left them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from tale.models.embedded import EmbeddedModel
from tests.tiny_llama import byte_tokenizer

CHAT = (
    "{{ '<|im_start|>system\nYou are tiny.<|im_end|>\n' }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + "
    "m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ENDS = ("<|im_end|>", "<|endoftext|>")  # ids 257 and 258
LAYERS, WIDTH, INNER, HEADS, KEY_HEADS = 2, 32, 48, 4, 2
SHAPES = {
    "attn_norm.weight": (WIDTH,),
    "attn_q.weight": (WIDTH, WIDTH),
    "attn_q.bias": (WIDTH,),
    "attn_k.weight": (WIDTH // 2, WIDTH),
    "attn_k.bias": (WIDTH // 2,),
    "attn_v.weight": (WIDTH // 2, WIDTH),
    "attn_v.bias": (WIDTH // 2,),
    "attn_output.weight": (WIDTH, WIDTH),
    "ffn_norm.weight": (WIDTH,),
    "ffn_gate.weight": (INNER, WIDTH),
    "ffn_up.weight": (INNER, WIDTH),
    "ffn_down.weight": (WIDTH, INNER),
}


def write_gguf(path: Path, tied: bool = False) -> dict[str, np.ndarray]:
    """A random Qwen 2, biases and norms too, in float16, with the byte tokenizer's ids; its tensors by their names."""
    vocabulary = [*sorted((ids := byte_tokenizer().get_vocab()), key=ids.get), "<|endoftext|>", "qq"]
    shapes = {f"blk.{i}.{name}": shape for i in range(LAYERS) for name, shape in SHAPES.items()}
    shapes |= {"token_embd.weight": (len(vocabulary), WIDTH), "output_norm.weight": (WIDTH,)}
    shapes |= {} if tied else {"output.weight": (len(vocabulary), WIDTH)}
    random = np.random.default_rng(0)
    tensors = {name: random.normal(0.0, 0.2, shape).astype(np.float16) for name, shape in shapes.items()}
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(1024)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL])
    writer.add_token_merges(["q q", "q q"])  # transformers 5.17 takes a list of one for its only item
    writer.add_eos_token_id(257)
    writer.add_pad_token_id(258)
    writer.add_chat_template(CHAT)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@dataclass(frozen=True)
class Installed:
    """A model in packages, and the folder that they are installed in."""

    model: EmbeddedModel
    site: Path

    def part(self, number: int) -> Path:
        """A part's file."""
        return self.site / self.model.file.format(number)

    def about(self, number: int) -> Path:
        """The folder that says that a package is installed."""
        name = self.model.package.format(number).replace("-", "_")
        return self.site / f"{name}-{self.model.version}.dist-info"


def install(site: Path, content: bytes, parts: int = 3, tied: bool = False) -> Installed:
    """Packages with this content, in parts; whoever imports one of them fails."""
    model = EmbeddedModel(
        hub="org/Tiny-Qwen",
        origin="org/Tiny-Qwen-GGUF/tiny.gguf",
        licence="Apache-2.0",
        package="tiny-qwen-part{}",
        version="1.0",
        file="tiny_qwen_part{0}/data/part{0:02}.bin",
        parts=parts,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        eos_tokens=ENDS,
        tied=tied,
    )
    made = Installed(model, site)
    step = -(-len(content) // parts)
    for number in range(1, parts + 1):
        file, about = made.part(number), made.about(number)
        file.parent.mkdir(parents=True)
        file.write_bytes(content[(number - 1) * step : number * step])
        (file.parents[1] / "__init__.py").write_text("raise RuntimeError('imported')")
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {model.package.format(number)}\nVersion: 1.0\n")
    return made
