"""Every example of docs/filters.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from esvector.errors import FilterError
from esvector.fields import field_types
from esvector.search.filter_passages import knn_filters
from esvector.search.filters import compile_filter

PAGE = Path(__file__).parents[2] / "docs" / "filters.md"
FIELDS = field_types(
    {
        "properties": {
            **{name: {"type": "keyword"} for name in ("venue", "kind", "lang", "doi", "genres")},
            **{name: {"type": "integer"} for name in ("year", "page count")},
            "title": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}},
            "abstract": {"type": "text"},
            "deprecated": {"type": "boolean"},
            "published": {"type": "date"},
            "seen": {"type": "date_nanos"},
            "host": {"type": "ip"},
            "authors": {
                "type": "nested",
                "properties": {
                    "name": {"type": "keyword"},
                    "country": {"type": "keyword"},
                    "papers": {"type": "nested", "properties": {"year": {"type": "integer"}}},
                },
            },
            "passages": {
                "type": "nested",
                "properties": {"lang": {"type": "keyword"}, "start": {"type": "integer"}, "text": {"type": "text"}},
            },
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


@pytest.mark.parametrize("block", blocks("python"))
def test_the_python_of_the_page(block: str) -> None:
    exec(block, {})


def test_the_page_shows_examples() -> None:
    assert (len(lines("filter")), len(lines("error")), len(blocks("python"))) == (19, 6, 2)


def test_the_tables_of_nested_objects_and_passages() -> None:
    page = PAGE.read_text(encoding="utf-8")
    nested = re.findall(r"^\| `(.*?)` \|", page[page.index("### Nested") : page.index("### Passages")], re.MULTILINE)
    passages = re.findall(r"^\| `(.*?)` \|", page[page.index("### Passages") : page.index("### Long")], re.MULTILINE)
    assert (len(nested), len(passages)) == (7, 6)
    for expression in nested:
        assert query(expression)
    for expression in passages[:-1]:
        assert knn_filters(expression, FIELDS, "passages")
    with pytest.raises(FilterError, match="of a passage"):
        knn_filters(passages[-1], FIELDS, "passages")


INLINE = [
    *["year < 2015", "year > 2015", "not year > 2000", "year > 2019.5", "year >= 2020", "published >= now-30d"],
    *["genres has all (drama, comedy)", "genres = drama and genres = comedy", "any authors (any papers (year = 2020))"],
]


@pytest.mark.parametrize("inline", INLINE)
def test_filters_in_the_text_of_the_page(inline: str) -> None:
    assert f"`{inline}`" in PAGE.read_text(encoding="utf-8")
    assert query(inline)
