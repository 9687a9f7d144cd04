"""What a written value means on a field of an ordered type: a span of the values that the field can store.

An integer field stores no 2019.5, a float field no 0.1 (the nearest float32 instead), and a date field a day only as
its milliseconds. So a value becomes the first and the last storable value that it covers, and every comparison follows
from the two. The span is empty (first > last) where the field can store nothing that is equal.
"""

from __future__ import annotations

import re
import struct
from calendar import monthrange
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from math import inf
from typing import TypeAlias

__all__ = ["SCALES", "Scale", "Span", "read_address", "read_boolean"]

Point: TypeAlias = int | float


@dataclass(frozen=True, slots=True)
class Span:
    """The storable values that are equal to a written one: from ``first`` to ``last``, none if ``first > last``."""

    first: Point
    last: Point

    @property
    def is_point(self) -> bool:
        """Whether it is exactly one value, where -0.0 and 0.0 are two."""
        # Elasticsearch 9.5.3: a term 0.0 misses a stored -0.0.
        return repr(self.first) == repr(self.last)


@dataclass(frozen=True, slots=True)
class Scale:
    """How to compare on an ordered mapping type.

    ``read`` turns a text into a span (ValueError says what a text should look like), whose points may lie outside what
    the field stores, ``lowest`` to ``highest``; ``write`` turns a point that it stores into JSON, and ``options`` go
    into a range.
    """

    read: Callable[[str], Span]
    lowest: Point
    highest: Point
    write: Callable[[Point], Point | str] = lambda point: point
    options: Mapping[str, str] = field(default_factory=dict)


_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DATE = re.compile(
    r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2})"
    r"(?P<time>[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?)?)?)?"
)
_SECOND = 10**9
_DAY = 86_400 * _SECOND
_EPOCH = date(1970, 1, 1).toordinal()


def _number(text: str) -> str:
    if not _NUMBER.fullmatch(text):
        raise ValueError("a number, like 2020, -1.5 or 1e6")
    return text


def _integers(bits: int) -> Scale:
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def read(text: str) -> Span:
        try:
            value = Decimal(_number(text))
        except InvalidOperation:
            raise ValueError("a number with an exponent that can be computed with, like 1e6") from None
        # Clamped first: int(Decimal("1e999999999")) would take all memory.
        value = min(max(value, Decimal(lowest - 1)), Decimal(highest + 1))
        return Span(int(value.to_integral_value(ROUND_CEILING)), int(value.to_integral_value(ROUND_FLOOR)))

    return Scale(read, lowest, highest)


def _floats(codes: str, highest: float) -> Scale:
    """A scale that rounds through the ``struct`` codes in turn: Elasticsearch reads a half_float as a float first."""

    def read(text: str) -> Span:
        value = float(_number(text))
        for code in codes:
            try:
                value = struct.unpack(code, struct.pack(code, value))[0]
            except OverflowError:
                value = inf if value > 0 else -inf
        return Span(-0.0, 0.0) if value == 0 else Span(value, value)

    return Scale(read, -highest, highest)


def _instants(grain: int, lowest: Point, highest: Point) -> Scale:
    """A scale whose points are UTC instants, in units of ``grain`` nanoseconds since 1970."""

    def read(text: str) -> Span:
        start, end = _nanoseconds(text)
        return Span(-(-start // grain), -(-end // grain) - 1)

    def write(point: Point) -> str:
        days, rest = divmod(int(point) * grain, _DAY)
        seconds, fraction = divmod(rest, _SECOND)
        digits = f"{fraction:09d}"[: 3 if grain == 10**6 else 9]
        day = date.fromordinal(days + _EPOCH).isoformat()
        return f"{day}T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{digits}Z"

    return Scale(read, lowest, highest, write, {"format": "strict_date_optional_time_nanos"})


def _nanoseconds(text: str) -> tuple[int, int]:
    """The instants that a date covers, as nanoseconds since 1970: from the first to before the second."""
    expected = "a date, like 2020-01-31, 2020-01 or 2020, or a datetime, like 2020-01-31T09:30:00+01:00"
    match = _DATE.fullmatch(text)
    if not match:
        raise ValueError(expected)
    year, month, day = int(match["year"]), int(match["month"] or 1), int(match["day"] or 1)
    try:
        start = (date(year, month, day).toordinal() - _EPOCH) * _DAY
        if match["time"]:
            start += _time(match)
            end = start + 1
        elif match["day"]:
            end = start + _DAY
        else:
            last = month if match["month"] else 12
            end = (date(year, last, monthrange(year, last)[1]).toordinal() - _EPOCH + 1) * _DAY
        date.fromordinal(start // _DAY + _EPOCH)  # an offset may have moved it out of the years 1 to 9999
    except (ValueError, OverflowError):
        raise ValueError(f"{expected} (this one is not in the calendar)") from None
    return start, end


def _time(match: re.Match[str]) -> int:
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError
    seconds = hour * 3600 + minute * 60 + second
    if match["zone"] and match["zone"] != "Z":
        hours, minutes = int(match["zone"][1:3]), int(match["zone"][-2:])
        if hours > 18 or minutes > 59:
            raise ValueError
        seconds -= (hours * 3600 + minutes * 60) * (-1 if match["zone"][0] == "-" else 1)
    return seconds * _SECOND + int((match["fraction"] or "0").ljust(9, "0"))


SCALES: Mapping[str, Scale] = {
    "byte": _integers(8),
    "short": _integers(16),
    "integer": _integers(32),
    "long": _integers(64),
    "half_float": _floats("fe", 65504.0),
    "float": _floats("f", 3.4028234663852886e38),
    "double": _floats("d", 1.7976931348623157e308),
    "date": _instants(10**6, -inf, inf),
    # Elasticsearch 9.5.3 answers 400 to a bound outside these: signed nanoseconds in a long, and none before 1970.
    "date_nanos": _instants(1, 0, 2**63 - 1),
}


def read_boolean(text: str) -> bool:
    """``true`` or ``false`` in any case; ValueError says so for anything else."""
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return text.lower() == "true"


def read_address(text: str) -> str:
    """An address or a network (``10.0.0.0/8``), as Elasticsearch reads it; ValueError says what it should look like."""
    try:
        if "/" in text:
            network = ip_network(text, strict=False)
            if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
                # Elasticsearch 9.5.3 refuses a network of mapped addresses: "introduces ambiguity".
                return f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}"
            return str(network)
        address = ip_address(text)
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise ValueError
    except ValueError:
        raise ValueError("an address or a network, like 10.0.0.1, 2001:db8::1 or 10.0.0.0/8") from None
    return str(address)
