"""Reading a filter expression: the grammar, and the tree that is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from esvector.errors import FilterError
from esvector.search.filter_messages import located, syntax_error
from esvector.search.filter_tree import (
    And,
    Comparison,
    Exists,
    Filter,
    Literal,
    Membership,
    Nested,
    Not,
    Or,
    Prefix,
    flat,
)

if TYPE_CHECKING:
    from lark import Lark, Token

__all__ = ["MAX_CHARACTERS", "MAX_DEPTH", "MAX_VALUES", "explained", "parse_expression"]

MAX_CHARACTERS = 100_000
MAX_DEPTH = 50
MAX_VALUES = 10_000

# Reserved in bare words: delimiters, and what other languages use as operators or patterns, so that `a = 1 && b = 2` or
# `name = gra*` is an error instead of a comparison with an unexpected text.
_BARE = r"[^\s()'\"`,=!<>*&|;\[\]{}\\]"

GRAMMAR = rf"""
?start: either
?either: every (_OR every)*
?every: one (_AND one)*
?one: _NOT one                                     -> negated
    | _OPEN either _CLOSE
    | (FIELD | NAME) OPERATOR (WORD | STRING)      -> comparison
    | (FIELD | NAME) _IN _list                     -> member
    | (FIELD | NAME) _NOT _IN _list                -> stranger
    | (FIELD | NAME) _HAS_ALL _list                -> each
    | (FIELD | NAME) _STARTS (WORD | STRING)       -> prefix
    | (FIELD | NAME) _NOT _STARTS (WORD | STRING)  -> other
    | _EXISTS (FIELD | NAME)                       -> exists
    | _MISSING (FIELD | NAME)                      -> missing
    | _ANY (FIELD | NAME) _WITHIN either _CLOSE    -> nested
_list: _OPEN (WORD | STRING) (_COMMA (WORD | STRING))* _CLOSE

_AND.2: /and(?!{_BARE})/i
_OR.2: /or(?!{_BARE})/i
_NOT.2: /not(?!{_BARE})/i
_IN.2: /in(?!{_BARE})/i
_EXISTS.2: /exists(?!{_BARE})/i
_MISSING.2: /missing(?!{_BARE})/i
_ANY.2: /any(?!{_BARE})/i
_HAS_ALL.2: /has\s+all(?!{_BARE})/i
_STARTS.2: /startswith(?!{_BARE})/i
OPERATOR: "==" | "!=" | "<=" | ">=" | "=" | "<" | ">"
_OPEN: "("
_WITHIN: "("
_CLOSE: ")"
_COMMA: ","
NAME: /`[^`]+`/
STRING: /'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/s
FIELD: /(?!(and|or|not|in|exists|missing|any)(?!{_BARE})){_BARE}+/i
WORD: /{_BARE}+/
%ignore /\s+/
"""

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}


def parse_expression(expression: str) -> Filter:
    """The tree of ``expression``, with the place of every field and value.

    Raises FilterError, with ``position`` and a caret line, where it cannot be read or passes MAX_CHARACTERS characters,
    MAX_DEPTH levels of nesting, or MAX_VALUES values in a list.
    """
    from lark.exceptions import UnexpectedInput

    if len(expression) > MAX_CHARACTERS:
        raise FilterError(
            f"the filter has {len(expression):,} characters; at most {MAX_CHARACTERS:,} are read",
            "Ask for less at once, or pass the clause itself as Query DSL.",
            MAX_CHARACTERS,
        )
    try:
        # One embedded builder and an automaton: no recursion, whatever the nesting.
        tree: Filter = _parser().parse(expression)  # type: ignore[assignment]
    except UnexpectedInput as error:
        raise located(syntax_error(error, expression), expression) from None
    except FilterError as error:
        raise located(error, expression) from None
    _check_depth(tree, expression)
    return tree


@contextmanager
def explained(where: str | Filter) -> Iterator[Filter]:
    """The tree of ``where``, for a block whose errors get a caret under their place in it.

    Raises FilterError where it is no tree and no expression that can be read.
    """
    if isinstance(where, str):
        tree = parse_expression(where)
        try:
            yield tree
        except FilterError as error:
            raise located(error, where) from None
    elif isinstance(where, Filter):
        yield where
    else:
        raise FilterError(
            f"a {type(where).__name__} is not a filter",
            'Write an expression, year >= 2020, or build one: Field("year") >= 2020.',
        )


@cache
def _parser() -> Lark:
    from lark import Lark

    return Lark(GRAMMAR, parser="lalr", transformer=_Builder(), maybe_placeholders=False)


class _Builder:
    """Makes a node when the parser has read one; the methods are named after the rules of the grammar."""

    def either(self, parts: list[Filter]) -> Filter:
        return Or(tuple(node for part in parts for node in flat(Or, part)))

    def every(self, parts: list[Filter]) -> Filter:
        return And(tuple(node for part in parts for node in flat(And, part)))

    def negated(self, parts: list[Filter]) -> Filter:
        return Not(parts[0])

    def nested(self, parts: list[Any]) -> Filter:
        return Nested(_name(parts[0]), parts[1], parts[0].start_pos)

    def prefix(self, tokens: list[Token]) -> Filter:
        return Prefix(_name(tokens[0]), _value(tokens[1]), tokens[0].start_pos)

    def other(self, tokens: list[Token]) -> Filter:
        return Not(self.prefix(tokens))

    def comparison(self, tokens: list[Token]) -> Filter:
        operator = "=" if tokens[1] == "==" else str(tokens[1])
        return Comparison(_name(tokens[0]), operator, _value(tokens[2]), tokens[0].start_pos)

    def each(self, tokens: list[Token]) -> Filter:
        listed = self.member(tokens)
        parts = tuple(Comparison(listed.field, "=", value, listed.position) for value in listed.values)
        return parts[0] if len(parts) == 1 else And(parts)

    def member(self, tokens: list[Token]) -> Membership:
        if len(tokens) > MAX_VALUES + 1:
            raise FilterError(
                f"the list has {len(tokens) - 1:,} values; at most {MAX_VALUES:,} are allowed",
                "Ask for fewer at once: venue in ('ACL', 'EMNLP').",
                tokens[MAX_VALUES + 1].start_pos,
            )
        return Membership(_name(tokens[0]), tuple(_value(token) for token in tokens[1:]), tokens[0].start_pos)

    def stranger(self, tokens: list[Token]) -> Filter:
        return Not(self.member(tokens))

    def exists(self, tokens: list[Token]) -> Filter:
        return Exists(_name(tokens[0]), tokens[0].start_pos)

    def missing(self, tokens: list[Token]) -> Filter:
        return Not(self.exists(tokens))


def _name(token: Token) -> str:
    return str(token[1:-1]) if token.type == "NAME" else str(token)


def _value(token: Token) -> Literal:
    if token.type == "STRING":
        return Literal(_unescaped(token), token.start_pos)
    if token.lower() == "null":
        raise FilterError(
            "null is not a value that a document can have",
            "Ask with: missing doi, or: exists doi. For the four letters, write 'null' in quotes.",
            token.start_pos,
        )
    return Literal(str(token), token.start_pos)


def _unescaped(token: Token) -> str:
    body = str(token[1:-1])
    parts = []
    at = 0
    while (slash := body.find("\\", at)) >= 0:
        parts.append(body[at:slash])
        character = body[slash + 1]
        if character not in _ESCAPES:
            raise FilterError(
                f"\\{character} is not an escape",
                r"In quotes \' \" \\ \n \r \t are escapes; a backslash itself is written twice: path = 'C:\\data'.",
                (token.start_pos or 0) + 1 + slash,
            )
        parts.append(_ESCAPES[character])
        at = slash + 2
    return "".join([*parts, body[at:]])


def _check_depth(tree: Filter, expression: str) -> None:
    waiting = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        match node:
            case Not() | Nested():
                waiting.append((node.part, depth + 1))
            case And() | Or():
                waiting.extend((part, depth + 1) for part in node.parts)
            case _ if depth > MAX_DEPTH:
                error = FilterError(
                    f"the filter is nested more than {MAX_DEPTH} levels deep",
                    "Write it flatter: a = 1 and b = 2 and c = 3 is one level.",
                    node.position,
                )
                raise located(error, expression)
