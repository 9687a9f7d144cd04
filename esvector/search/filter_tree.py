"""The tree of a filter: what an expression says, before a mapping gives its values their types."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from numbers import Integral, Real
from typing import TypeAlias

from esvector.errors import FilterError

__all__ = [
    "OPERATORS",
    "And",
    "Comparison",
    "Exists",
    "Filter",
    "Literal",
    "Membership",
    "Nested",
    "Node",
    "Not",
    "Or",
    "Prefix",
    "Value",
    "flat",
    "literal",
]

OPERATORS = ("=", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it was written (quotes and escapes undone); the mapping decides what it means.

    ``position`` counts characters of the expression from 0, here and in the rest of the tree; it is None in a tree that
    was not parsed, and plays no part in equality.
    """

    text: str
    position: int | None = dataclasses.field(default=None, compare=False)


# bool is an int and datetime a date. A str stands for what the same characters would mean in an expression.
Value: TypeAlias = Literal | str | int | float | Decimal | date


class Node:
    """What every part of a tree can do: ``a & b``, ``a | b``, ``~a``, with each condition in parentheses."""

    __slots__ = ()

    def __and__(self, other: Filter) -> And:
        return And((*flat(And, _filter(self)), *flat(And, _filter(other))))

    def __or__(self, other: Filter) -> Or:
        return Or((*flat(Or, _filter(self)), *flat(Or, _filter(other))))

    def __invert__(self) -> Not:
        return Not(_filter(self))

    # Read from right to left where the left side is no condition, which ``_filter`` then refuses.
    __rand__ = __and__
    __ror__ = __or__

    def __bool__(self) -> bool:
        raise FilterError(
            "a condition is not true or false by itself, so Python's and, or, not, if and 1 < x < 2 cannot use it",
            "Write & for and, | for or, ~ for not, each condition in parentheses: "
            '(Field("year") >= 2020) & (Field("lang") == "en").',
        )


@dataclass(frozen=True, slots=True)
class Comparison(Node):
    """``field operator value``; ``operator`` is one of OPERATORS, ``position`` is that of the field."""

    field: str
    operator: str
    value: Value
    position: int | None = dataclasses.field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Membership(Node):
    """``field in (values)``: equal to any of them. Without values it is true for no document."""

    field: str
    values: tuple[Value, ...]
    position: int | None = dataclasses.field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Exists(Node):
    """The document has at least one value in the field."""

    field: str
    position: int | None = dataclasses.field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Prefix(Node):
    """Some value of the field begins with ``value``, character for character: nothing in it is a wildcard."""

    field: str
    value: Value
    position: int | None = dataclasses.field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Nested(Node):
    """One object of the nested field satisfies all of ``part``, whose fields are named as they are inside it."""

    field: str
    part: Filter
    position: int | None = dataclasses.field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class And(Node):
    """Every part is true; there is at least one."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or(Node):
    """Some part is true; there is at least one."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not(Node):
    """The part is not true: the exact complement, so documents without the field are included."""

    part: Filter


Filter: TypeAlias = Comparison | Membership | Prefix | Exists | Nested | And | Or | Not


def literal(value: Value) -> Literal:
    """``value`` as it would be written in an expression.

    Raises FilterError for anything but a string, number, boolean, date or datetime: an object is never a value.
    """
    # Wider than the annotation: numpy's numbers are registered as Integral and Real, and callers may pass anything.
    given: object = value
    match given:
        case Literal(str(), _):
            return Literal(str.__str__(given.text), given.position)
        case str():
            return Literal(str.__str__(given))
        case bool():
            return Literal("true" if given else "false")
        case Integral() | Real() | Decimal():
            return Literal(_number(given))
        case date():
            return Literal(given.isoformat())
        case None:
            raise FilterError(
                "a filter cannot compare with a value of type NoneType, which no document has",
                'Ask whether there is a value: Field("doi").exists() or Field("doi").missing().',
            )
        case _:
            raise FilterError(
                f"a filter cannot compare with a value of type {type(given).__name__}",
                "A value is a string, a number, true or false, a date or a datetime; for several, use a Membership.",
            )


def _number(given: Integral | Real | Decimal) -> str:
    try:
        match given:
            case Decimal():
                return Decimal.__str__(given)
            case Integral():
                return int.__repr__(int(given))
            case _:
                return float.__repr__(float(given))
    except (OverflowError, ValueError):
        raise FilterError(
            f"a filter cannot compare with a {type(given).__name__} of so many digits",
            "Numbers up to about 1e308 can be written.",
        ) from None


def flat(kind: type[And] | type[Or], tree: Filter) -> Iterator[Filter]:
    """The parts of ``tree`` in order, with nodes of the same ``kind`` opened; ``tree`` itself if it is another kind.

    Raises FilterError for a node without parts, whose meaning would depend on what is around it.
    """
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, kind):
            if not isinstance(node.parts, tuple) or not node.parts:
                raise FilterError(f"{kind.__name__} has no parts", "Give it at least one, or leave the filter out.")
            waiting.extend(reversed(node.parts))
        else:
            yield node


def _filter(given: object) -> Filter:
    if isinstance(given, Filter):
        return given
    raise FilterError(
        f"&, | and ~ join conditions, and {type(given).__name__} is none",
        'Put each condition in parentheses: (Field("year") >= 2020) & (Field("lang") == "en").',
    )
