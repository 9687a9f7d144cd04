"""Judging: how good a search is on queries with known answers, and whether a change made it better."""

from __future__ import annotations

from esvector.evaluate.comparison import Comparison, compare
from esvector.evaluate.formats import Qrels, Queries, Run, find_beir, read_qrels, read_queries, read_run, write_run
from esvector.evaluate.judging import Counts, Evaluation, evaluate, judge

__all__ = [
    "Comparison",
    "Counts",
    "Evaluation",
    "Qrels",
    "Queries",
    "Run",
    "compare",
    "evaluate",
    "find_beir",
    "judge",
    "read_qrels",
    "read_queries",
    "read_run",
    "write_run",
]
