"""The majority among the answers of several calls."""

from __future__ import annotations

from dataclasses import dataclass

from tale.data.question import Question
from tale.grading import equal
from tale.solvers.base import Call


@dataclass
class Group:
    """Votes for the same answer: its value as first given, the first call that gave it, and their number."""

    value: str
    first: Call
    count: int = 1


class Votes:
    """Counts answers, which are the same if grading calls them equal.

    The leader has most votes; of several the one that reached that number first, so that a tie changes no answer.
    """

    def __init__(self, question: Question):
        self.question = question
        self.groups: list[Group] = []
        self.leader: Group | None = None
        self.given: list[Group | None] = []  # every call's, in order

    def add(self, call: Call, value: str | None) -> None:
        """Count a call's answer; None is no vote."""
        if value is None:
            self.given.append(None)
            return
        group = next((g for g in self.groups if equal(value, g.value, self.question.kind)), None)
        if group:
            group.count += 1
        else:
            group = Group(value, call)
            self.groups.append(group)
        self.given.append(group)
        if self.leader is None or group.count > self.leader.count:
            self.leader = group

    @property
    def count(self) -> int:
        """The number of votes."""
        return sum(group.count for group in self.groups)

    @property
    def share(self) -> float:
        """The leader's share of the votes; 0 without votes."""
        return self.leader.count / self.count if self.leader else 0.0
