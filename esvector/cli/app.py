"""The group of all commands: loads each only when asked for, and says what went wrong in one place."""

from __future__ import annotations

import logging
import signal
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from esvector.cli.progress import tell
from esvector.errors import ConfigError, ConnectError, EsvectorError, InterruptedRun

__all__ = [
    "EXIT_CONFIG",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_NO_SERVER",
    "EXIT_REJECTED",
    "EXIT_TERMINATED",
    "app",
    "main",
]

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_REJECTED = 3
EXIT_NO_SERVER = 4
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_COMMANDS = {
    "demo": "esvector.cli.demo:demo",
    "doctor": "esvector.cli.doctor:doctor",
    "duplicates": "esvector.cli.duplicates:duplicates",
    "estimate": "esvector.cli.estimate:estimate",
    "evaluate": "esvector.cli.evaluate:evaluate",
    "index": "esvector.cli.index:index",
    "models": "esvector.cli.models:models",
    "node": "esvector.cli.node:node",
    "prune": "esvector.cli.versions:prune",
    "recall": "esvector.cli.recall:recall",
    "rollback": "esvector.cli.versions:rollback",
    "reembed": "esvector.cli.reembed:reembed",
    "retry": "esvector.cli.retry:retry",
    "search": "esvector.cli.search:search",
    "similar": "esvector.cli.search:similar",
    "status": "esvector.cli.status:status",
    "tune": "esvector.cli.tune:tune",
    "versions": "esvector.cli.versions:versions",
}


class _Group(click.Group):
    """Imports a command when it is used, and turns every known error into a message and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        _mark_paragraphs(command)
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        try:
            return super().invoke(ctx)
        except EsvectorError as error:
            raise _Failure(error.message, error.remedy, _exit_status(error)) from error
        except KeyboardInterrupt as error:
            raise _Failure("interrupted", "", _interrupted_status(error)) from error
        except BrokenPipeError:
            _leave_quietly()
        except click.exceptions.Exit:
            raise
        except Exception as error:
            if (failure := _server_said(error)) is None:
                raise
            raise failure from error


def _mark_paragraphs(command: click.Command) -> None:
    """Give click the character that keeps the lines of a paragraph apart: a raw docstring can only spell it."""
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _mark_paragraphs(inner)


class _Failure(click.ClickException):
    """A message, a remedy and an exit status."""

    def __init__(self, message: str, remedy: str, exit_code: int) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it on the class and reads it of the error

    def show(self, file: Any = None) -> None:  # noqa: ANN401
        click.echo(f"{click.style('error:', fg='red', bold=True)} {self.message}", err=True, file=file)
        if self.remedy:
            click.echo(f"{click.style('   try:', fg='cyan', bold=True)} {self.remedy}", err=True, file=file)


class _Echo(logging.Handler):
    """Shows what the library has to say, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        label = click.style("warning: ", fg="yellow", bold=True) if record.levelno >= logging.WARNING else ""
        tell(label + record.getMessage())


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="esvector")
def app() -> None:
    """Semantic search on Elasticsearch with your own open model, on your own GPU.

    The server is ESVECTOR_URL, else the local node where it runs, else http://localhost:9200. Credentials:
    ESVECTOR_API_KEY, or ESVECTOR_USERNAME and ESVECTOR_PASSWORD, or the same with _FILE naming a file that holds them.

    Exit status: 0 done, 1 failed, 2 wrong option or setting, 3 done but some records were rejected (see the dead
    letters), 4 Elasticsearch cannot be used, 130 interrupted, 143 terminated.
    """
    signal.signal(signal.SIGTERM, _terminate)
    log = logging.getLogger("esvector")
    if not any(isinstance(handler, _Echo) for handler in log.handlers):
        log.addHandler(_Echo())
        log.setLevel(logging.INFO)
        log.propagate = False


def main() -> None:
    """Run the command line."""
    app(prog_name="esvector")


class _Terminated(KeyboardInterrupt):
    """SIGTERM: handled like Ctrl-C, but for the exit status."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


def _interrupted_status(error: BaseException | None) -> int:
    return EXIT_TERMINATED if isinstance(error, _Terminated) else EXIT_INTERRUPTED


def _exit_status(error: EsvectorError) -> int:
    match error:
        case InterruptedRun():
            return _interrupted_status(error.__cause__)
        case ConfigError():
            return EXIT_CONFIG
        case ConnectError():
            return EXIT_NO_SERVER
        case _:
            return EXIT_FAILED


def _server_said(error: Exception) -> _Failure | None:
    """What Elasticsearch answered, where esvector knows no more than that."""
    import elasticsearch

    from esvector.client import error_reason

    if isinstance(error, elasticsearch.ApiError):
        return _Failure(f"Elasticsearch answered {error.status_code}: {error_reason(error)}", "", EXIT_FAILED)
    if isinstance(error, elasticsearch.TransportError):
        return _Failure(f"the connection to Elasticsearch failed: {error.message}", "", EXIT_NO_SERVER)
    return None


def _leave_quietly() -> NoReturn:
    """End without a word when the reader of our output is gone, as in ``esvector search ... | head -1``."""
    sys.stdout = None  # nothing is left to flush to
    sys.exit(0)
