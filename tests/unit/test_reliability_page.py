"""docs/reliability.md: every fault has its row, and every test that a row names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from esvector.index.outcomes import Outcome
from esvector.index.retries import RetryPolicy

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
_TIMES_OF_DAY = {"time", "time_ns", "now", "utcnow", "today", "localtime", "gmtime"}


def test_every_fault_has_a_row_and_every_row_a_test_that_exists() -> None:
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert rows == list(range(1, 51))
    tests = {
        f"{path.name}::{test}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for test in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    for row in re.findall(r"^\| \d+ \|.*$", PAGE, re.MULTILINE):
        named = set(re.findall(r"`(test_\w+\.py::test_\w+)`", row))
        assert named, row
        assert named <= tests, named - tests


def test_the_deadlines_are_those_of_the_policy() -> None:
    policy = RetryPolicy()
    for outcome in Outcome:
        if outcome.patience:
            assert f"`{outcome.patience}`, {policy.deadline(outcome):,.0f} s |" in PAGE, outcome


def test_no_decision_of_a_load_asks_for_the_time_of_day() -> None:
    """A clock that is set back or forth, by days, changes nothing: waits are by the monotonic clock."""
    for path in (ROOT / "esvector" / "index").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                asks = node.value.id in ("time", "datetime", "date") and node.attr in _TIMES_OF_DAY
                assert not asks, f"{path.name}:{node.lineno} asks for {node.value.id}.{node.attr}"
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                assert not _TIMES_OF_DAY & {name.name for name in node.names}, path.name
