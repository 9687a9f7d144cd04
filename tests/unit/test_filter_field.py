"""Filters as Python objects are the trees that expressions are read into."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from fractions import Fraction
from typing import Any

import pytest

from esvector import Field
from esvector.errors import FilterError
from esvector.fields import field_types
from esvector.search.filters import And, Filter, compile_filter, parse

YEAR, LANG = Field("year"), Field("lang")


def given(value: Any) -> Any:
    """What mypy would refuse."""
    return value


@pytest.mark.parametrize(
    ("built", "expression"),
    [
        (YEAR >= 2020, "year >= 2020"),
        (YEAR == 2020, "year = 2020"),
        (YEAR != 2020, "year != 2020"),
        (YEAR < 1.5, "year < 1.5"),
        (YEAR <= 2020, "year <= 2020"),
        (2020 < YEAR, "year > 2020"),  # noqa: SIM300  # the reflected operator
        (Field("on") == date(2020, 1, 31), "on = 2020-01-31"),
        (Field("on") > "now-30d", "on > now-30d"),
        (Field("open") == True, "open = true"),  # noqa: E712
        (LANG.isin(["en", "fr"]), "lang in (en, fr)"),
        (~LANG.isin({"en": 1}), "lang not in (en)"),
        (LANG.has_all(("en", "fr")), "lang has all (en, fr)"),
        (LANG.has_all(["en"]), "lang has all (en)"),
        (LANG.startswith("a*"), "lang startswith 'a*'"),
        (LANG.exists(), "exists lang"),
        (LANG.missing(), "missing lang"),
        ((YEAR >= 2020) & (LANG == "en") & LANG.exists(), "year >= 2020 and lang = en and exists lang"),
        ((YEAR >= 2020) & (LANG == "en") | LANG.missing(), "year >= 2020 and lang = en or missing lang"),
        (((YEAR > 1) | (YEAR < 0)) & ~(LANG == "en"), "(year > 1 or year < 0) and not lang = en"),
        (Field("authors").any((Field("name") == "X") & (Field("at") != "de")), "any authors (name = X and at != de)"),
        (Field("my field") == "it's", "`my field` = 'it\\'s'"),
    ],
)
def test_a_comparison_is_what_its_expression_is_read_into(built: Filter, expression: str) -> None:
    assert built == parse(expression)


def test_a_search_takes_either() -> None:
    fields = field_types({"properties": {"year": {"type": "integer"}, "lang": {"type": "keyword"}}})
    built = (YEAR >= 2020) & LANG.isin(["en", "fr"])
    assert compile_filter(built, fields) == compile_filter("year >= 2020 and lang in (en, fr)", fields)
    with pytest.raises(FilterError, match="no field 'lnag'") as caught:
        compile_filter(Field("lnag") == "en", fields)
    assert "lang" in caught.value.remedy


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: YEAR == 1 and LANG == 2,
        lambda: YEAR == 1 or LANG == 2,
        lambda: not YEAR == 1,  # noqa: SIM201
        lambda: 2000 < YEAR < 2020,
        lambda: 1 if LANG.exists() else 2,
        lambda: YEAR == 1 & LANG == 2,
        lambda: YEAR & (LANG == 2),
        lambda: not YEAR,
        lambda: ~YEAR,
        lambda: bool(YEAR),
        lambda: (YEAR == 1) & given(True),
        lambda: given("x") | (YEAR == 1),
    ],
)
def test_what_python_would_read_otherwise_is_an_error_that_says_how_to_write_it(misuse: Callable[[], Any]) -> None:
    with pytest.raises(FilterError) as caught:
        misuse()
    assert "&" in str(caught.value)
    assert 'Field("' in caught.value.remedy


@pytest.mark.parametrize(
    ("misuse", "message", "remedy"),
    [
        (lambda: YEAR == None, "NoneType", "missing()"),  # noqa: E711
        (lambda: YEAR == [1], "type list", "Membership"),
        (lambda: YEAR in [LANG], "type Field", "a string"),
        (lambda: YEAR == 10**5000, "so many digits", "1e308"),
        (lambda: YEAR.isin([given(Fraction(10**400))]), "so many digits", "1e308"),
        (lambda: YEAR.isin("abc"), "a str is not a list", "isin(["),
        (lambda: YEAR.isin(given(5)), "a int is not a list", "isin(["),
        (lambda: YEAR.isin([given({})]), "type dict", "string"),
        (lambda: YEAR.has_all([]), "has no values", "at least one"),
        (lambda: LANG.startswith(given(None)), "NoneType", "missing()"),
        (lambda: Field(""), "'' is not the name", 'Field("year")'),
        (lambda: Field(5), "5 is not the name", 'Field("year")'),  # type: ignore[arg-type]
    ],
)
def test_what_can_never_be_a_value_is_refused_where_it_is_written(
    misuse: Callable[[], Any], message: str, remedy: str
) -> None:
    with pytest.raises(FilterError) as caught:
        misuse()
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_fields_cannot_be_hashed_and_trees_can() -> None:
    with pytest.raises(TypeError):
        hash(YEAR)
    assert len({YEAR == 1, YEAR == 1, YEAR == 2}) == 2


def test_long_chains_are_flat() -> None:
    built: Filter = YEAR == 0
    for n in range(1, 900):
        built = built & YEAR.isin([n])
    assert isinstance(built, And)
    assert len(built.parts) == 900
