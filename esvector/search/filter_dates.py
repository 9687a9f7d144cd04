"""Dates that depend on the server's clock: Elasticsearch's date math, of which a strict part is read and passed on.

``now-1M/M`` is the whole of last month, as ``2020-03`` is the whole of that month. Elasticsearch rounds a bound up or
down by the comparison it is in, and up to milliseconds only, which is wrong by up to one on a ``date_nanos`` field
(9.5.3). So only the comparisons that round down are sent, with the end of a unit written as the start of the next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["date_math"]

_MATH = re.compile(r"now(?P<steps>(?:[+-][0-9]{1,6}[yMwdhHms]){0,10})(?:/(?P<unit>[yMwdhHms]))?")
_STEP = re.compile(r"([+-][0-9]+)([yMwdhHms])")
_EXPECTED = (
    "a date, or one counted from now: now-30d, now-1M/M (last month), now/d (today), with the units y M w d h m s, "
    "the rounding last"
)
_DAYS = {"y": 366, "M": 31, "w": 7, "d": 1, "h": 1 / 24, "H": 1 / 24, "m": 1 / 1440, "s": 1 / 86_400}
# Elasticsearch 9.5.3 answers 400 to a bound that a date_nanos field cannot store (1970 to 2262), and to one beyond the
# years that it counts.
_YEARS = {"date": (5000, 5000), "date_nanos": (50, 200)}


def date_math(kind: str, operator: str, text: str) -> Mapping[str, str] | None:
    """The bounds of a range on a field of type ``kind`` for ``operator text``; None where ``text`` is no date math.

    Raises ValueError, which says what a text should look like, for what begins like one but is none.
    """
    if kind not in _YEARS or not text.lower().startswith("now"):
        return None
    match = _MATH.fullmatch(text)
    if not match:
        raise ValueError(_EXPECTED)
    _check_reach(kind, match["steps"])
    if not match["unit"]:
        instant = {"=": {"gte": text, "lte": text}, ">": {"gt": text}, "<=": {"lte": text}}
        return instant.get(operator) or _from_start(operator, text)
    after = f"{text}+1{match['unit']}"
    whole = {"=": {"gte": text, "lt": after}, ">": {"gte": after}, "<=": {"lt": after}}
    return whole.get(operator) or _from_start(operator, text)


def _from_start(operator: str, text: str) -> Mapping[str, str]:
    return {"gte" if operator == ">=" else "lt": text}


def _check_reach(kind: str, steps: str) -> None:
    back = ahead = 0.0
    for number, unit in _STEP.findall(steps):
        days = int(number) * _DAYS[unit]
        back, ahead = back - min(days, 0), ahead + max(days, 0)
    past, future = _YEARS[kind]
    if back > past * 366 or ahead > future * 366:
        raise ValueError(f"a date from {past:,} years before now to {future:,} years after it")
