from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esvector.errors import FilterError
from esvector.search.filters import And, Comparison, Exists, Filter, Literal, Membership, Nested, Not, Or, Prefix, parse


def equal(field: str, text: str) -> Comparison:
    return Comparison(field, "=", Literal(text))


A, B, C = equal("a", "1"), equal("b", "2"), equal("c", "3")


@pytest.mark.parametrize(
    ("expression", "tree"),
    [
        ("a = 1", A),
        ("a==1", A),
        ("a = '1'", A),
        ("((a=1))", A),
        ("not a = 1 and b = 2 or c = 3", Or((And((Not(A), B)), C))),
        ("a=1 or b=2 and c=3", Or((A, And((B, C))))),
        ("(a=1 or b=2) and c=3", And((Or((A, B)), C))),
        ("(a=1 and b=2) and c=3", And((A, B, C))),
        ("not (a=1 or b=2)", Not(Or((A, B)))),
        ("NOT(a=1)AND b=2", And((Not(A), B))),
        ("not not a=1", Not(Not(A))),
        ("a != 1", Comparison("a", "!=", Literal("1"))),
        ("a>-5", Comparison("a", ">", Literal("-5"))),
        ("a<=1e-3", Comparison("a", "<=", Literal("1e-3"))),
        ("a in (1)", Membership("a", (Literal("1"),))),
        ("a In ( x , 'y z' )", Membership("a", (Literal("x"), Literal("y z")))),
        ("a not in (1, 2)", Not(Membership("a", (Literal("1"), Literal("2"))))),
        ("exists a.b", Exists("a.b")),
        ("missing `a b`", Not(Exists("a b"))),
        ("a startswith 'x y'", Prefix("a", Literal("x y"))),
        ("a NOT StartsWith x", Not(Prefix("a", Literal("x")))),
        ("a has all (1, 2) and b = 2", And((A, Comparison("a", "=", Literal("2")), B))),
        ("a Has  All (1)", A),
        ("any x (a = 1 or b=2)", Nested("x", Or((A, B)))),
        ("any`x y`(any z(a=1))and b=2", And((Nested("x y", Nested("z", A)), B))),
        (
            "startswith = 1 and has = 2 and all = 3",
            And((equal("startswith", "1"), equal("has", "2"), equal("all", "3"))),
        ),
        ("`any` = 1", equal("any", "1")),
        ("anything = any", equal("anything", "any")),
        ("a >= now-1M/M", Comparison("a", ">=", Literal("now-1M/M"))),
        ("`and` = 1", equal("and", "1")),
        ("android=1", equal("android", "1")),
        ("lang = or", equal("lang", "or")),
        ("lang in (is, in, or, not)", Membership("lang", tuple(map(Literal, ("is", "in", "or", "not"))))),
        ("a = 2020-01-01T10:00:00.5+02:00", equal("a", "2020-01-01T10:00:00.5+02:00")),
        ("a = fe80::1/64", equal("a", "fe80::1/64")),
        (r"""a = 'it\'s \\ "x"\n\t'""", equal("a", 'it\'s \\ "x"\n\t')),
        ('a = "it\'s"', equal("a", "it's")),
        ("a = ''", equal("a", "")),
        ("a = 'null'", equal("a", "null")),
        ("título = 日本", equal("título", "日本")),
        ("a = 1\n  and\tb = 2", And((A, B))),
    ],
)
def test_parsing(expression: str, tree: Filter) -> None:
    assert parse(expression) == tree


def test_positions_are_kept_and_are_no_part_of_equality() -> None:
    tree = parse("  year >= 2020 and `page count` in (1, 'x') and missing doi")
    assert isinstance(tree, And)
    first, second, third = tree.parts
    assert isinstance(first, Comparison)
    assert isinstance(second, Membership)
    assert isinstance(third, Not)
    assert isinstance(third.part, Exists)
    values = [value.position for value in (first.value, *second.values) if isinstance(value, Literal)]
    assert (first.position, second.position, third.part.position, values) == (2, 19, 56, [10, 36, 39])
    assert equal("a", "1") == Comparison("a", "=", Literal("1", 7), 9)


@pytest.mark.parametrize(
    ("expression", "position", "message", "remedy"),
    [
        ("", 0, "empty", "year >= 2020"),
        (" \n ", 0, "empty", "year >= 2020"),
        ("a", 1, "expected a comparison; the filter ends here", "exists doi"),
        ("a is null", 2, "expected a comparison; found 'is'", "missing doi"),
        ("any", 3, "expected a field; the filter ends here", "backticks"),
        ("any = 1", 4, "expected a field; found '='", "backticks"),
        ("any x a = 1", 6, "expected conditions in parentheses; found 'a'", "any authors (name = 'X')"),
        ("any x (a = 1", 12, "parenthesis is not closed", "as many"),
        ("a has (1)", 2, "expected a comparison; found 'has'", "has all (...)"),
        ("a has all 1", 10, "expected a list", "('ACL', 'EMNLP')"),
        ("a startswith", 12, "expected a value; the filter ends here", "Quote"),
        ("a startswith x*", 14, "found '*'", "Quote"),
        ("a =", 3, "expected a value; the filter ends here", "Quote"),
        ("a = = 1", 4, "expected a value; found '='", "Quote"),
        ("a = [1]", 4, "expected a value; found '[1]'", "Quote"),
        ("venue = New York", 12, "expected and, or, or the end; found 'York'", "'New York'"),
        ("a = 1 && b = 2", 6, "found '&&'", "and, or"),
        ("a = gra*", 7, "found '*'", "Quote"),
        ("1 < a < 3", 6, "found '<'", "and, or"),
        ("and a = 1", 0, "expected a field; found 'and'", "backticks"),
        ("a = 1 and", 9, "expected a field; the filter ends here", "backticks"),
        ("'a' = 1", 0, "expected a field", "backticks"),
        ("(a = 1", 6, "parenthesis is not closed", "as many"),
        ("a = 1)", 5, "parenthesis closes nothing", "as many"),
        ("a in 1", 5, "expected a list", "('ACL', 'EMNLP')"),
        ("a in ()", 6, "expected a value", "Quote"),
        ("a in (1 2)", 8, "expected a comma", "commas"),
        ("a in (1", 7, "parenthesis is not closed", "as many"),
        ("a = 'b", 4, "quote is not closed", "same quote"),
        (r"a = 'b\'", 4, "quote is not closed", "same quote"),
        ("`a = 1", 0, "quote is not closed", "same quote"),
        (r"a = 'b\d'", 6, r"\d is not an escape", "twice"),
        ("a = NULL", 4, "null is not a value", "missing doi"),
    ],
)
def test_a_syntax_error_says_what_where_and_what_to_do(
    expression: str, position: int, message: str, remedy: str
) -> None:
    with pytest.raises(FilterError, match=re.escape(message)) as caught:
        parse(expression)
    assert caught.value.position == position
    assert remedy in caught.value.remedy


def test_the_caret_is_under_the_place_in_its_line() -> None:
    with pytest.raises(FilterError) as caught:
        parse("year = 2020\nand\tvenue = New York or\nkind = x")
    assert caught.value.message.splitlines()[1:] == ["  and venue = New York or", "  " + " " * 16 + "^"]


@given(st.text(alphabet="ab1 ()'\"`=!<>,.\\andornti\n*é😀"))
def test_any_text_is_a_tree_or_a_filter_error(expression: str) -> None:
    try:
        parse(expression)
    except FilterError as caught:
        error = caught
    else:
        return
    assert error.position is not None
    assert 0 <= error.position <= len(expression)
    assert error.remedy


@given(st.text())
def test_any_text_in_quotes_is_itself(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    assert parse(f"a = '{escaped}'") == equal("a", text)


def test_limits_of_an_expression() -> None:
    with pytest.raises(FilterError, match="at most 100,000") as caught:
        parse("a = 1 or " * 11_112 + "a = 1")
    assert caught.value.position == 100_000
    with pytest.raises(FilterError, match="at most 10,000 are allowed") as caught:
        parse(f"a in ({','.join(['1'] * 10_001)})")
    assert caught.value.position == 6 + 2 * 10_000
    parse(f"a in ({','.join(['1'] * 10_000)})")
    parse("(" * 20_000 + "a = 1" + ")" * 20_000)
    parse("not " * 50 + "a = 1")
    for deep in (
        "not " * 51 + "a = 1",
        "not " * 20_000 + "a = 1",
        "any x (" * 51 + "a = 1" + ")" * 51,
        "(a = 1 or (b = 1 and " * 2000 + "a = 1" + "))" * 2000,
    ):
        with pytest.raises(FilterError, match="more than 50 levels") as caught:
            parse(deep)
        assert caught.value.position is not None
