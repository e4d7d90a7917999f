"""Tests: a folder for each package of `tale/`; beside them what several of them use."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
