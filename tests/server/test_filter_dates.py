"""Date math on the real server, whose clock it is: against calendar arithmetic on the documents."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector.fields import FieldType, field_types
from esvector.search.filters import compile_filter

VALUES = [
    *[
        "now",
        "now-1s",
        "now-30d",
        "now+2h",
        "now-1M",
        "now-1y+1M-2w",
        "now-12H-30m",
        "now/d",
        "now/h",
        "now/H",
        "now/m",
    ],
    *["now/w", "now/M", "now/y", "now/s", "now-1M/M", "now-1w/w", "now+1d/d", "now-2y/y", "now-36h/d", "now+1M/M"],
]
OPERATORS = ["=", "!=", "<", "<=", ">", ">="]
MAPPINGS = {"properties": {"on": {"type": "date"}, "at": {"type": "date_nanos"}}}
MILLI = 10**6
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


def moved(moment: datetime, number: int, unit: str) -> datetime:
    if unit in "yM":
        months = moment.year * 12 + moment.month - 1 + number * (12 if unit == "y" else 1)
        year, month = divmod(months, 12)
        return moment.replace(year=year, month=month + 1, day=min(moment.day, monthrange(year, month + 1)[1]))
    hours = {"w": 168, "d": 24, "h": 1, "H": 1, "m": 1 / 60, "s": 1 / 3600}[unit]
    return moment + timedelta(seconds=round(number * hours * 3600))


def start_of(moment: datetime, unit: str) -> datetime:
    units = ["y", "M", "d", "h", "m", "s"]
    kept = units.index({"H": "h", "w": "d"}.get(unit, unit))
    day = moment.replace(microsecond=0)
    fields: list[dict[str, Any]] = [{"month": 1}, {"day": 1}, {"hour": 0}, {"minute": 0}, {"second": 0}]
    for lowest in fields[kept:]:
        day = day.replace(**lowest)
    return day - timedelta(days=day.weekday()) if unit == "w" else day


def span(text: str, now: datetime) -> tuple[int, int]:
    """The nanoseconds that ``text`` covers: from the first to before the second."""
    moment = now
    for number, unit in re.findall(r"([+-]\d+)([yMwdhHms])", text):
        moment = moved(moment, int(number), unit)
    if "/" not in text:
        return nanoseconds(moment), nanoseconds(moment) + 1
    start = start_of(moment, text[-1])
    return nanoseconds(start), nanoseconds(moved(start, 1, text[-1]))


def holds(value: int, operator: str, first: int, end: int) -> bool:
    return {
        "=": first <= value < end,
        "!=": not first <= value < end,
        "<": value < first,
        "<=": value < end,
        ">": value >= end,
        ">=": value >= first,
    }[operator]


def moments(now: datetime) -> list[int]:
    """Edges of every span, a nanosecond and a millisecond beside them, and what is far from any."""
    made = {nanoseconds(now + timedelta(days=days, hours=5)) for days in (-2000, -400, -45, -8, 8, 45, 400, 2000)}
    for text in VALUES:
        if "/" in text:
            for edge in span(text, now):
                made |= {edge - MILLI, edge - 1, edge, edge + 1, edge + MILLI}
    return sorted(made)


def written(value: int) -> str:
    seconds, rest = divmod(value, 10**9)
    return f"{(EPOCH + timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%S')}.{rest:09d}Z"


@pytest.fixture
def fields(es: Elasticsearch, alias: str) -> dict[str, FieldType]:
    es.indices.create(index=alias, mappings=MAPPINGS, settings={"number_of_replicas": 0})
    return field_types(MAPPINGS)


@pytest.mark.parametrize("name", ["on", "at"])
def test_date_math_finds_what_the_calendar_says(
    es: Elasticsearch, alias: str, fields: dict[str, FieldType], name: str
) -> None:
    grain = MILLI if name == "on" else 1
    stored = moments(datetime.now(UTC))
    lines: list[dict[str, Any]] = []
    for number, value in enumerate(stored):
        lines += [{"index": {"_id": str(number)}}, {name: written(value)}]
    assert not es.bulk(index=alias, operations=lines, refresh=True)["errors"]
    cases = [(operator, text) for text in VALUES for operator in OPERATORS]
    searches: list[dict[str, Any]] = []
    for operator, text in cases:
        clause = compile_filter(f"{name} {operator} {text}", fields)
        searches += [{}, {"query": {"bool": {"filter": [clause]}}, "size": len(stored), "_source": False}]
    before = datetime.now(UTC)
    answers = es.msearch(index=alias, searches=searches)["responses"]
    after = datetime.now(UTC)
    ran = 0
    for (operator, text), answer in zip(cases, answers, strict=True):
        assert "error" not in answer, (operator, text, answer["error"])
        found = {hit["_id"] for hit in answer["hits"]["hits"]}
        # The server read its clock somewhere between the two; where that matters, there is nothing to compare with.
        earliest, latest = (expected(stored, operator, text, now, grain) for now in (before, after))
        if earliest == latest:
            assert found == earliest, (operator, text, sorted(found ^ earliest))
            ran += 1
    assert ran > len(cases) / 2


def expected(stored: list[int], operator: str, text: str, now: datetime, grain: int) -> set[str]:
    first, end = span(text, now)
    return {str(n) for n, value in enumerate(stored) if holds(value // grain * grain, operator, first, end)}
