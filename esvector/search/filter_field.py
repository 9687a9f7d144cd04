"""Filters as Python objects: ``Field("year") >= 2020`` is the tree that ``year >= 2020`` is read into."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from esvector.errors import FilterError
from esvector.search.filter_tree import And, Comparison, Exists, Filter, Membership, Nested, Not, Prefix, Value, literal

__all__ = ["Field"]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field of the index, to be compared: each comparison is a filter, and ``&``, ``|`` and ``~`` join them.

    ::

        (Field("year") >= 2020) & Field("venue").isin(["ACL", "EMNLP"]) & ~Field("title").startswith("Erratum")

    Values are strings, numbers, booleans, dates and datetimes, and mean what they mean in an expression. Whether the
    field exists and the values fit is known when a search looks at the mapping. Raises FilterError for what can never
    be a value, and where ``and``, ``or`` and ``not`` are used, which Python does not let a filter redefine.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise FilterError(f"{self.name!r} is not the name of a field", 'Write it like Field("year").')

    def __eq__(self, value: Value) -> Comparison:  # type: ignore[override]  # a condition, as in other query builders
        return self._compared("=", value)

    def __ne__(self, value: Value) -> Comparison:  # type: ignore[override]
        return self._compared("!=", value)

    def __lt__(self, value: Value) -> Comparison:
        return self._compared("<", value)

    def __le__(self, value: Value) -> Comparison:
        return self._compared("<=", value)

    def __gt__(self, value: Value) -> Comparison:
        return self._compared(">", value)

    def __ge__(self, value: Value) -> Comparison:
        return self._compared(">=", value)

    # Equal fields would have to be told by ==, which makes a condition.
    __hash__ = None  # type: ignore[assignment]

    def isin(self, values: Iterable[Value]) -> Membership:
        """Equal to any of ``values``; without any it is true for no document."""
        return Membership(self.name, tuple(literal(value) for value in _several(values)))

    def has_all(self, values: Iterable[Value]) -> Filter:
        """Equal to each of ``values``, of a field that has several. Raises FilterError for no values."""
        parts = tuple(self == value for value in _several(values))
        if not parts:
            raise FilterError(f"has_all of {self.name!r} has no values", "Give it at least one.")
        return parts[0] if len(parts) == 1 else And(parts)

    def startswith(self, text: str) -> Prefix:
        """Begins with ``text``, character for character."""
        return Prefix(self.name, literal(text))

    def exists(self) -> Exists:
        """Has a value."""
        return Exists(self.name)

    def missing(self) -> Not:
        """Has no value."""
        return Not(Exists(self.name))

    def any(self, condition: Filter) -> Nested:
        """One object of this nested field satisfies ``condition``, whose fields are named as they are inside it."""
        return Nested(self.name, condition)

    def _compared(self, operator: str, value: Value) -> Comparison:
        return Comparison(self.name, operator, literal(value))

    def _joined(self, _: object = None) -> NoReturn:
        raise FilterError(
            f"the field {self.name!r} is not a condition, which &, |, ~, and, or and not need",
            f'Compare it, in parentheses: (Field("{self.name}") == 1) & (Field("lang") == "en").',
        )

    __and__ = __rand__ = __or__ = __ror__ = __invert__ = __bool__ = _joined


def _several(values: Iterable[Value]) -> Iterable[Value]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise FilterError(
            f"a {type(values).__name__} is not a list of values", 'Write it like Field("venue").isin(["ACL", "EMNLP"]).'
        )
    return values
