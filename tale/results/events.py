"""A training's curves, from its TensorBoard event files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, ScalarEvent


@dataclass(frozen=True)
class Curves:
    """What a training has logged: `points[tag]` are (step, value), `seconds` its wall time from first to last event.

    Steps that a resumed run has done again count in `seconds` alone; the time that it stood still counts nowhere.
    """

    points: dict[str, list[tuple[int, float]]]
    seconds: float

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return 1 + max((step for step, _ in self.points.get("train/loss", ())), default=-1)

    @property
    def tokens(self) -> int | None:
        """Prompt and answer tokens of all steps; None where they were not logged."""
        return self.total("train/tokens")

    def total(self, tag: str) -> int | None:
        """The sum of what was logged under a tag; None where nothing was."""
        logged = self.points.get(tag)
        return round(sum(value for _, value in logged)) if logged else None


def read_curves(folder: Path) -> Curves:
    """Every scalar of a run; empty where nothing was logged."""
    points = {tag: [(e.step, e.value) for e in events] for tag, events in _scalars(folder).items()}
    seconds = 0.0
    for file in sorted(folder.glob("events.out.tfevents.*")):  # one for each start, their names begin with the time
        events = [event for events in _scalars(file).values() for event in events]
        if min((event.step for event in events), default=1) == 0:  # a new start, which hides earlier events
            seconds = 0.0
        seconds += _span(event.wall_time for event in events)
    return Curves(points, seconds)


def _scalars(path: Path) -> dict[str, list[ScalarEvent]]:
    events = EventAccumulator(str(path), size_guidance={"scalars": 0})  # 0: all of them
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def _span(times: Iterable[float]) -> float:
    ordered = sorted(times)
    return ordered[-1] - ordered[0] if ordered else 0.0
