"""Options that several commands share, and the client that they lead to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = [
    "filter_options",
    "node_home",
    "open_client",
    "output_option",
    "parse_raw_filter",
    "query_cache_option",
    "server_option",
    "state_option",
    "wants_json",
]

_F = TypeVar("_F", bound=Callable[..., Any])


def server_option(command: _F) -> _F:
    """Add ``--url``; a URL never holds credentials."""
    return click.option("--url", metavar="URL", help="Address of Elasticsearch [default: ESVECTOR_URL, else local].")(
        command
    )


def output_option(command: _F) -> _F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout, as when it is piped.")(command)


def filter_options(command: _F) -> _F:
    """Add ``--where``, ``--filter`` and ``-k``."""
    for option in (
        click.option("--filter", "raw_filter", metavar="JSON", help="A filter in Query DSL, as JSON."),
        click.option("--where", metavar="EXPR", help='A filter, such as "year >= 2020 and lang in (en, fr)".'),
        click.option("-k", type=int, default=10, show_default=True, help="How many hits."),
    ):
        command = option(command)
    return command


def query_cache_option(command: _F) -> _F:
    """Add ``--query-cache``."""
    return click.option(
        "--query-cache",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="ESVECTOR_QUERY_CACHE",
        help="Folder of exported query encoders [default: ESVECTOR_QUERY_CACHE, else the user's cache].",
    )(command)


def state_option(command: _F) -> _F:
    """Add ``--state``."""
    return click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="ESVECTOR_STATE",
        help="Folder of checkpoints [default: ESVECTOR_STATE, else the user's].",
    )(command)


def wants_json(as_json: bool) -> bool:
    """Whether to write JSON lines: asked for, or stdout is no terminal."""
    return as_json or not sys.stdout.isatty()


def open_client(url: str | None) -> Elasticsearch:
    """Return a client for ``url``, else ESVECTOR_URL, else the local node where it runs, else the default port."""
    from esvector.client import connect

    if url is None and not os.environ.get("ESVECTOR_URL"):
        from esvector.local import running_url

        url = running_url(node_home())
    return connect(url)


def node_home() -> Path | None:
    """Return the folder of the local node: ESVECTOR_HOME, None for the default one."""
    home = os.environ.get("ESVECTOR_HOME")
    return Path(home) if home else None


def parse_raw_filter(raw: str | None) -> dict[str, Any] | list[dict[str, Any]] | None:
    """Read ``--filter``. Raises click.BadParameter where it is no JSON object or list."""
    import json

    if raw is None:
        return None
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--filter") from error
    if not isinstance(value, dict | list):
        raise click.BadParameter("not a query or a list of queries", param_hint="--filter")
    return value
