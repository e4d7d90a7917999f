"""Writing a page of sections: one self-contained HTML file, with its tables as CSV and its figures as PNG files."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tale.output.tables import Table
from tale.results.blocks import Block, Figure, Picker, Section
from tale.storage.files import write_atomic
from tale.text import printable_lines


def _written(value: Any) -> Any:
    """Make control characters visible: HTML must not have them, escaped or not."""
    return type(value)(printable_lines(value)) if isinstance(value, str) else value


# The only script that the page's policy allows.
SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    finalize=_written,
    undefined=StrictUndefined,
    trim_blocks=True,
)


def outputs_of(sections: Sequence[Section]) -> list[str]:
    """The names of the files that `write_page` writes."""
    kinds = [(block, "csv" if isinstance(block, Table) else "png") for block in _blocks(sections)]
    return ["report.html", *(f"{b.name}.{kind}" for b, kind in kinds if isinstance(b, Table | Figure))]


def write_page(title: str, sections: Sequence[Section], folder: Path) -> Path:
    """Write all files, `report.html` last; returns its path."""
    for block in _blocks(sections):
        if isinstance(block, Table):
            write_atomic(folder / f"{block.name}.csv", block.csv())
        if isinstance(block, Figure):
            write_atomic(folder / f"{block.name}.png", block.png)
    page = folder / "report.html"
    picked = any(isinstance(block, Picker) for block in _blocks(sections))
    script = {"script": SCRIPT if picked else "", "script_hash": b64encode(sha256(SCRIPT.encode()).digest()).decode()}
    write_atomic(page, TEMPLATES.get_template("page.html").render(title=title, sections=sections, **script))
    return page


def _blocks(sections: Sequence[Section]) -> Iterator[Block]:
    for section in sections:
        yield from section.blocks
        yield from _blocks(section.parts)
