"""Writing a page of sections: one HTML file with everything in it, tables as CSV and figures as PNG beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tale.output.tables import Table
from tale.results.blocks import Block, Figure, Section
from tale.storage.files import write_atomic
from tale.text import in_lines


def _written(value: Any) -> Any:
    """Control characters are shown: a page must not have them, escaped or not."""
    return type(value)(in_lines(value)) if isinstance(value, str) else value


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    finalize=_written,
    undefined=StrictUndefined,
    trim_blocks=True,
)


def outputs_of(sections: Sequence[Section]) -> list[str]:
    """The files that `write_page` writes."""
    kinds = [(block, "csv" if isinstance(block, Table) else "png") for block in _blocks(sections)]
    return ["report.html", *(f"{b.name}.{kind}" for b, kind in kinds if isinstance(b, Table | Figure))]


def write_page(title: str, sections: Sequence[Section], folder: Path) -> Path:
    """Write `report.html`, last of all, so that what it stands for is there; the file."""
    for block in _blocks(sections):
        if isinstance(block, Table):
            write_atomic(folder / f"{block.name}.csv", block.csv())
        if isinstance(block, Figure):
            write_atomic(folder / f"{block.name}.png", block.png)
    page = folder / "report.html"
    write_atomic(page, TEMPLATES.get_template("page.html").render(title=title, sections=sections))
    return page


def _blocks(sections: Sequence[Section]) -> Iterator[Block]:
    for section in sections:
        yield from section.blocks
        yield from _blocks(section.parts)
