"""Every example of docs/filters.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from esvector.errors import FilterError
from esvector.fields import field_types
from esvector.search.filters import compile_filter

PAGE = Path(__file__).parents[2] / "docs" / "filters.md"
FIELDS = field_types(
    {
        "properties": {
            **{name: {"type": "keyword"} for name in ("venue", "kind", "lang", "doi")},
            **{name: {"type": "integer"} for name in ("year", "page count")},
            "title": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}},
            "abstract": {"type": "text"},
            "deprecated": {"type": "boolean"},
            "published": {"type": "date"},
            "seen": {"type": "date_nanos"},
            "host": {"type": "ip"},
            "meta": {"properties": {"source": {"type": "keyword"}}},
        }
    }
)


def query(expression: str) -> dict[str, Any]:
    return compile_filter(expression, FIELDS)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def lines(language: str) -> list[str]:
    return [line for block in blocks(language) for line in block.splitlines()]


@pytest.mark.parametrize("expression", lines("filter"))
def test_the_examples_of_the_page(expression: str) -> None:
    assert query(expression)


@pytest.mark.parametrize("expression", lines("error"))
def test_the_errors_of_the_page(expression: str) -> None:
    with pytest.raises(FilterError):
        query(expression)


def test_the_python_of_the_page() -> None:
    (block,) = blocks("python")
    exec(block, {})


def test_the_page_shows_examples() -> None:
    assert (len(lines("filter")), len(lines("error"))) == (12, 5)


@pytest.mark.parametrize("inline", ["year < 2015", "year > 2015", "not year > 2000", "year > 2019.5", "year >= 2020"])
def test_filters_in_the_text_of_the_page(inline: str) -> None:
    assert f"`{inline}`" in PAGE.read_text(encoding="utf-8")
    assert query(inline)
