"""What a filter means, by brute force on raw documents: shares nothing with the compiler but the tree."""

from __future__ import annotations

import ipaddress
import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from esvector.search.filters import And, Comparison, Exists, Filter, Membership, Nested, Not, Or, Prefix

Raw: TypeAlias = dict[str, list[Any]]

TEXTS = ("venue", "short note", "title", "meta.kind", "kind", "authors.name", "authors.at", "authors.papers.title")
KINDS = {
    **dict.fromkeys(TEXTS, "text"),
    **dict.fromkeys(("meta.n", "year", "size", "tiny", "authors.year", "authors.papers.n"), "integer"),
    "ratio": "float",
    "weight": "double",
    "half": "half",
    "published": "millis",
    "born": "millis",
    "seen": "nanos",
    "authors.born": "millis",
    "open": "boolean",
    "host": "ip",
}
# Nested fields: lists of objects, which are like documents.
NESTED = ("authors", "authors.papers")
# The longest text that is indexed, in UTF-16 code units.
LIMITS = {"short note": 8, "title": 12}
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def indexed(name: str, text: str) -> bool:
    return len(text.encode("utf-16-le")) <= 2 * LIMITS.get(name, 10**6)


def written(value: Any) -> str:
    return str(value.text)


def holds(tree: Filter, document: Raw, path: str = "") -> bool:  # noqa: C901  # one case a construct
    """Whether ``tree`` is true for ``document``, which is an object of the nested field ``path`` ("authors.", say)."""
    match tree:
        case And(parts):
            return all(holds(part, document, path) for part in parts)
        case Or(parts):
            return any(holds(part, document, path) for part in parts)
        case Not(part):
            return not holds(part, document, path)
        case Nested(name, part):
            return any(holds(part, each, f"{path}{name}.") for each in objects(name, document))
        case Exists(name) if path + name in NESTED:
            return bool(objects(name, document))
        case Exists(name):
            return bool(values(name, document, path, exists=True))
        case Prefix(name, text):
            return any(value.startswith(written(text)) for value in values(name, document, path))
        case Membership(name, texts):
            found = values(name, document, path)
            return any(compare(path + name, value, "=", written(text)) for value in found for text in texts)
        case Comparison(name, "!=", text):
            return not holds(Comparison(name, "=", text), document, path)
        case Comparison(name, op, text):
            return any(compare(path + name, value, op, written(text)) for value in values(name, document, path))


def objects(name: str, document: Raw) -> list[Raw]:
    first, _, rest = name.partition(".")
    found = document.get(first, [])
    return [inner for each in found for inner in objects(rest, each)] if rest else found


def values(name: str, document: Raw, path: str = "", exists: bool = False) -> list[Any]:
    for nested in reversed(NESTED):  # the innermost first
        if f"{path}{name}".startswith(f"{nested}.") and len(nested) > len(path):
            inside = nested.removeprefix(path)
            rest = name.removeprefix(f"{inside}.")
            return [value for each in objects(inside, document) for value in each.get(rest, [])]
    raw = document.get("meta.kind" if name == "kind" else name, [])
    if name == "short note" or (name == "title" and not path and not exists):
        return [value for value in raw if indexed(name, value)]
    return raw


@cache  # the same few values meet again and again
def compare(name: str, stored: Any, op: str, text: str) -> bool:
    match KINDS[name]:
        case "text":
            return order(op, stored.encode(), text.encode())
        case "integer":
            return order(op, Fraction(stored), fraction(text))
        case "float" | "double" | "half" as kind:
            return order(op, rounded(kind, stored), rounded(kind, float(text)))
        case "boolean":
            return bool(stored == (text.lower() == "true"))
        case "ip":
            return address(stored, op, text)
        case kind:
            return moment(stored, kind, op, text)


def order(op: str, left: Any, right: Any) -> bool:
    return bool(left == right) if op == "=" else ORDERS[op](left, right)


def fraction(text: str) -> Fraction:
    # Far beyond every stored integer, or next to zero, it is only the sign and the size that matter.
    number = float(text)
    if number in (float("inf"), float("-inf")):
        return Fraction(10**400 if number > 0 else -(10**400))
    return Fraction(text) if "-99" not in text and "-400" not in text else Fraction(1, 10**400)


def rounded(kind: str, number: float) -> Any:
    with np.errstate(over="ignore", under="ignore"):
        match kind:
            case "float":
                return np.float32(number)
            case "half":
                return np.float16(np.float32(number))
            case _:
                return number


def address(stored: str, op: str, text: str) -> bool:
    def number(one: str) -> int:
        parsed = ipaddress.ip_address(one)
        return int(parsed) + (0xFFFF << 32 if parsed.version == 4 else 0)

    if "/" not in text:
        return order(op, number(stored), number(text))
    host, _, bits = text.partition("/")
    free = (128 if ":" in host else 32) - int(bits)
    return number(stored) >> free == number(host) >> free


def instant(text: str) -> int:
    """Nanoseconds since 1970."""
    match = re.fullmatch(r"(.*?)(?:[.,](\d+))?(Z|[+-]\d\d:?\d\d)?", text)
    assert match
    base = datetime.fromisoformat(match[1] + (match[3] or "Z"))
    return (base - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) * 10**9 + int(
        (match[2] or "0").ljust(9, "0")
    )


def moment(stored: str, kind: str, op: str, text: str) -> bool:
    if "/" in stored:
        stored = "-".join(reversed(stored.split("/")))
    at = instant(stored if "T" in stored else stored + "T00:00:00")
    if kind == "millis":
        at = at // 10**6 * 10**6
    pieces = text.split("-")
    if len(text) > 10:
        start = instant(text)
        end = start + 1
    elif len(pieces) == 3:
        start = instant(f"{text}T00:00:00")
        end = start + 86400 * 10**9
    elif len(pieces) == 2:
        start = instant(f"{text}-01T00:00:00")
        year, month = int(pieces[0]), int(pieces[1])
        end = instant(f"{year + month // 12:04d}-{month % 12 + 1:02d}-01T00:00:00")
    else:
        start, end = instant(f"{text}-01-01T00:00:00"), instant(f"{int(text) + 1:04d}-01-01T00:00:00")
    return {"=": start <= at < end, "<": at < start, "<=": at < end, ">": at >= end, ">=": at >= start}[op]
