"""Adapting estimates to the tokens that answers use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tale.errors import UserError
from tale.estimators.online import FIRST, RANGES, WINDOW, UsageQuantile
from tale.storage.files import write_atomic
from tale.storage.strict_json import read_json


def test_the_factor_is_the_quantile_of_its_range_alone() -> None:
    """Estimates from 32 to 63 are one range: of the ratios 0.5, 0.51, …, 1.5 the median is 1, the 0.9 quantile 1.4."""
    median, high = UsageQuantile(0.5), UsageQuantile(0.9)
    for each in (median, high):
        for i in range(101):
            each.note(50, 25 + i / 2)  # type: ignore[arg-type]
    assert [median.factor(32), median.factor(63)] == pytest.approx([1, 1])
    assert [high.factor(40), high.factor(31), high.factor(64)] == pytest.approx([1.4, 1, 1])


def test_few_answers_change_nothing_and_none_changes_much() -> None:
    found = UsageQuantile(0.5)
    for _ in range(FIRST - 1):
        found.note(10, 10**9)
    assert found.factor(10) == 1
    found.note(10, 10**9)
    assert found.factor(10) == 4
    for _ in range(WINDOW):
        found.note(10, 1)
    assert found.factor(10) == 0.25
    assert [len(ratios) for ratios in found.ratios if ratios] == [WINDOW]
    found.note(2**40, 1)
    assert len(found.ratios[RANGES - 1]) == 1


def test_it_is_saved_as_plain_numbers(tmp_path: Path) -> None:
    found = UsageQuantile(0.9)
    for i in range(40):
        found.note(10, i)
    write_atomic(tmp_path / "online.json", json.dumps(vars(found)))
    assert read_json(tmp_path / "online.json", UsageQuantile, "quantiles", "remove it") == found
    write_atomic(tmp_path / "online.json", json.dumps({"quantile": 0.9, "ratios": [[1.0]]}))
    with pytest.raises(UserError, match="24 lists"):
        read_json(tmp_path / "online.json", UsageQuantile, "quantiles", "remove it")
