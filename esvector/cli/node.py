"""``esvector node``: the local Elasticsearch."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from esvector.cli.options import node_home

if TYPE_CHECKING:
    from esvector.local.node import Node, NodeStatus

__all__ = ["local_node", "node"]


def _say(message: str) -> None:
    click.echo(message, err=True)


def local_node() -> Node:
    """Return the node of this user, as the environment names it; what it has to say goes to stderr."""
    from esvector.local.node import Node

    return Node(node_home(), say=_say)


@click.group()
def node() -> None:
    r"""Run a real Elasticsearch on this machine, for demos, development and tests.

    One node, without password, reachable from this machine only. It is fetched once (132 MB); a JDK 21 or newer is
    found or fetched. Everything is kept below ESVECTOR_HOME (default: your data folder; /var/lib/esvector for root).
    It is the distribution that Elastic publishes for integration tests: no Kibana, and fewer modules than a full one.

    \b
    Example:
      esvector node start
    """


@node.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port [default: the one used last, 9200, or a free one].")
@click.option(
    "--heap-mb", type=click.IntRange(min=128), help="Java heap in MB [default: by the memory of the machine]."
)
@click.option(
    "--setting", "settings", multiple=True, metavar="KEY=VALUE", help="A line for elasticsearch.yml; repeatable."
)
@click.option("--wait/--no-wait", default=True, help="Whether to wait until it is healthy.", show_default=True)
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=60, show_default=True, help="Seconds to wait for that."
)
def start(port: int | None, heap_mb: int | None, settings: Sequence[str], wait: bool, timeout: float) -> None:
    r"""Start the node unless it runs, and print its URL.

    \b
    Example:
      export ESVECTOR_URL=$(esvector node start)
    """
    from esvector.local.node import Node
    from esvector.local.ports import DEFAULT_PORT

    local = Node(node_home(), port=port, heap_mb=heap_mb, settings=_pairs(settings), say=_say)
    before = local.status()
    if before.state not in ("running", "starting"):
        _say("Starting Elasticsearch ...")
    status = local.start(wait=wait, timeout=timeout)
    if port is None and status.started_here and status.port != (before.port or DEFAULT_PORT):
        _say(f"Port {before.port or DEFAULT_PORT} is taken by another program; using {status.port}.")
    already = "" if status.started_here else "already "
    _say(f"Elasticsearch {status.version} is {already}{status.state} (heap {status.heap_mb} MB, home {status.home}).")
    click.echo(status.url)


def _pairs(settings: Sequence[str]) -> dict[str, str]:
    pairs = [setting.partition("=") for setting in settings]
    wrong = [setting for setting, (key, sign, _) in zip(settings, pairs, strict=True) if not key or not sign]
    if wrong:
        raise click.BadParameter(f"not KEY=VALUE: {', '.join(wrong)}", param_hint="--setting")
    return {key.strip(): value.strip() for key, _, value in pairs}


@node.command()
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=30, show_default=True, help="Seconds before it is killed."
)
def stop(timeout: float) -> None:
    r"""Stop the node; its data is kept.

    \b
    Example:
      esvector node stop
    """
    local = local_node()
    was_up = local.status().state in ("running", "starting")
    local.stop(timeout=timeout)
    _say("Stopped; the data is kept." if was_up else "The node was not running.")


@node.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as when the output is not a terminal.")
def status(as_json: bool) -> None:
    r"""Show the node. Exit status 0 when it is running, 1 when it is starting, stopped or dead.

    \b
    Example:
      esvector node status --json
    """
    now = local_node().status()
    if as_json or not sys.stdout.isatty():
        click.echo(json.dumps(asdict(now), default=str))
    else:
        _print_table(now)
    if now.state != "running":
        sys.exit(1)


def _print_table(now: NodeStatus) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("state", now.state)
    table.add_row("url", now.url or "-")
    table.add_row("pid", str(now.pid or "-"))
    table.add_row("version", now.version)
    table.add_row("heap", f"{now.heap_mb} MB" if now.heap_mb else "-")
    table.add_row("data", f"{now.data_bytes / 1e6:.1f} MB")
    table.add_row("home", str(now.home))
    Console().print(table)


@node.command()
@click.option(
    "--lines", "-n", type=click.IntRange(min=1), default=50, show_default=True, help="How many, from the end."
)
def logs(lines: int) -> None:
    r"""Print the end of the node's log; the file's name goes to stderr.

    \b
    Example:
      esvector node logs -n 200
    """
    local = local_node()
    text = local.logs(lines)
    _say(f"{local.log_path}:" if text else f"There is no log yet ({local.log_path}).")
    if text:
        click.echo(text)


@node.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> None:
    r"""Stop the node and delete its data and logs. What was downloaded is kept.

    \b
    Example:
      esvector node reset --yes
    """
    local = local_node()
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("this deletes all data of the node; confirm with --yes")
        click.confirm(
            f"Delete all data below {local.home} ({local.status().data_bytes / 1e6:.1f} MB)?", abort=True, err=True
        )
    freed = local.reset()
    _say(f"Deleted {freed / 1e6:.1f} MB of data.")
