"""What to say where a filter expression breaks, and pointing at the place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esvector.errors import FilterError

if TYPE_CHECKING:
    from lark.exceptions import UnexpectedInput

__all__ = ["located", "syntax_error"]

_MISSING_FIELD = (
    "Start a condition with a field: year >= 2020. A name with odd characters goes in backticks: `my field` = 1."
)
_MISSING_OPERATOR = (
    "After a field comes a comparison (= != < <= > >=), startswith, in (...) or has all (...): year >= 2020, "
    "venue in ('ACL', 'EMNLP'). "
    "To ask whether there is a value, write: exists doi, or: missing doi."
)
_MISSING_VALUE = (
    "Compare with a value: year >= 2020. Quote one with spaces or other special characters: venue = 'New York'."
)
_MISSING_JOINT = (
    "Join conditions with and, or: year >= 2020 and venue = ACL. "
    "Quote a value with spaces or other special characters: venue = 'New York'."
)
_MISSING_LIST = "Write the values in parentheses, with commas between: venue in ('ACL', 'EMNLP')."
_MISSING_OBJECT = (
    "After any and a nested field come the conditions that one of its objects satisfies: any authors (name = 'X'). "
    "A field that is itself called any goes in backticks."
)
_UNCLOSED_QUOTE = (
    r"Close it with the same quote; a quote inside is written with a backslash: title = 'Alzheimer\'s disease'."
)

# What could have come next decides what to say; the first row with a terminal that was possible is used.
_EXPLANATIONS = (
    ("_AND", "expected and, or, or the end", _MISSING_JOINT),
    ("OPERATOR", "expected a comparison", _MISSING_OPERATOR),
    ("NAME", "expected a field", _MISSING_FIELD),
    ("STRING", "expected a value", _MISSING_VALUE),
    ("_COMMA", "expected a comma or a closing parenthesis", _MISSING_LIST),
    ("_WITHIN", "expected conditions in parentheses", _MISSING_OBJECT),
    ("_OPEN", "expected a list of values in parentheses", _MISSING_LIST),
)


def located(error: FilterError, expression: str) -> FilterError:
    """``error`` with a caret under its place in ``expression``; unchanged if it has no place."""
    if error.position is None:
        return error
    at = error.position
    start = max(expression.rfind("\n", 0, at) + 1, at - 70)
    end = min(len(expression), at + 40)
    line = "".join(c if c.isprintable() else " " for c in expression[start:end].split("\n")[0])
    return type(error)(
        f"{error.message} (at character {at})\n  {line}\n  {' ' * (at - start)}^", error.remedy, error.position
    )


def syntax_error(error: UnexpectedInput, expression: str) -> FilterError:
    """What ``error`` of the parser means, with its place in ``expression``."""
    from lark.exceptions import UnexpectedToken

    if not expression.strip():
        return FilterError("the filter is empty", "Write a condition: year >= 2020 and venue in ('ACL', 'EMNLP').", 0)
    if isinstance(error, UnexpectedToken):
        at_end, at, possible = error.token.type == "$END", error.token.start_pos or 0, set(error.expected)
    else:
        at_end, at, possible = False, error.pos_in_stream or 0, set(getattr(error, "allowed", None) or ())
    if at_end:
        at = len(expression)
    elif possible & {"'": {"STRING"}, '"': {"STRING"}, "`": {"NAME"}}.get(expression[at], set()):
        return FilterError("this quote is not closed", _UNCLOSED_QUOTE, at)
    found = "the filter ends here" if at_end else f"found {_excerpt(expression, at)!r}"
    if at_end and "_CLOSE" in possible:
        return FilterError("a parenthesis is not closed", "Write as many ) as (: (year = 2020 or year = 2021).", at)
    if "$END" in possible and expression[at] == ")":
        return FilterError("this parenthesis closes nothing", "Write as many ( as ): (year = 2020 or year = 2021).", at)
    for terminal, message, remedy in _EXPLANATIONS:
        if terminal in possible:
            return FilterError(f"{message}; {found}", remedy, at)
    return FilterError(f"the filter cannot be read; {found}", _MISSING_JOINT, at)


def _excerpt(expression: str, at: int) -> str:
    words = expression[at : at + 40].split()
    return words[0][:20] if words else expression[at]
