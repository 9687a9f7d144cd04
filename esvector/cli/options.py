"""Options that several commands share, and the client that they lead to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from esvector.encode.advice import Task
    from esvector.encode.calibrate import BackendName
    from esvector.encode.profile import EncoderProfile, Similarity
    from esvector.types import PassageOptions
    from esvector.vectors import ElementType

__all__ = [
    "BACKENDS",
    "DocumentOptions",
    "EncoderOptions",
    "document_options",
    "encoder_options",
    "node_home",
    "open_client",
    "output_option",
    "parse_raw_filter",
    "query_cache_option",
    "read_passages",
    "server_option",
    "state_option",
    "wants_json",
]

_F = TypeVar("_F", bound=Callable[..., Any])
_Option = Callable[[Callable[..., Any]], Callable[..., Any]]

BACKENDS = ["torch", "onnx", "openvino", "openvino-int8", "auto"]


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """What ``encoder_options`` read. ``model`` is None only where a command does without."""

    model: str | None
    revision: str | None
    query_prompt: str | None
    document_prompt: str | None
    similarity: Similarity | None
    max_length: int | None
    dims: int | None
    query_model: str | None
    family: str | None
    dtype: str | None
    devices: tuple[str, ...]
    backend: BackendName | Literal["auto"]
    task: Task | None

    def profile(self) -> EncoderProfile | None:
        """Return the profile that was asked for; None without a model. Raises ConfigError as ``EncoderProfile``."""
        from esvector.encode.profile import EncoderProfile

        stated = {name: value for name in _OF_A_MODEL if (value := getattr(self, name)) is not None}
        if self.model is not None:
            return EncoderProfile(self.model, **stated)
        if stated:
            raise click.UsageError(f"--{next(iter(stated)).replace('_', '-')} says how a model is used: name --model")
        return None


_OF_A_MODEL = (
    "revision",
    "query_prompt",
    "document_prompt",
    "similarity",
    "max_length",
    "dims",
    "query_model",
    "family",
    "dtype",
)


@dataclass(frozen=True, slots=True)
class DocumentOptions:
    """What ``document_options`` read: how records become documents, and documents an index.

    What was not stated is empty or None: the index, or else the default, decides.
    """

    text_fields: tuple[str, ...]
    id_field: str | None
    mapping: Path | None
    field_types: dict[str, str]
    vector_field: str | None
    passages: PassageOptions | Literal[False] | None
    given: str | None
    element_type: ElementType | None


def encoder_options(*, model_required: bool = True) -> Callable[[_F], _F]:
    """Add the options that say what encodes, and where; the command gets them as ``encoder``, an EncoderOptions."""
    return _grouped(
        "encoder",
        EncoderOptions,
        (
            click.option(
                "--model",
                required=model_required,
                metavar="NAME_OR_PATH",
                help="Hub name, or folder of a model" + ("." if model_required else " [default: what made ALIAS]."),
            ),
            click.option("--revision", metavar="COMMIT", help="Revision of the hub repository."),
            click.option("--query-prompt", metavar="TEXT", help="Text before every query [default: the model's]."),
            click.option(
                "--document-prompt", metavar="TEXT", help="Text before every document [default: the model's]."
            ),
            click.option(
                "--similarity", type=click.Choice(["cosine", "dot"]), help="Similarity [default: the model's]."
            ),
            click.option(
                "--max-length", type=click.IntRange(min=1), help="Tokens read of a text [default: the model's]."
            ),
            click.option("--dims", type=click.IntRange(min=1), help="Cut vectors to so many dims (Matryoshka models)."),
            click.option("--query-model", metavar="NAME_OR_PATH", help="Model of the queries, of a dual encoder."),
            click.option(
                "--family", metavar="NAME", help="Preset for what the model leaves open, see 'esvector models'."
            ),
            click.option(
                "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Number format to encode in."
            ),
            click.option(
                "--devices",
                metavar="NAMES",
                callback=_split_devices,
                help="Where to encode, such as cuda:0,cuda:1 [default: a GPU, else cpu].",
            ),
            click.option(
                "--backend",
                type=click.Choice(BACKENDS),
                default="torch",
                show_default=True,
                help="What encodes on a CPU.",
            ),
            click.option(
                "--task", type=click.Choice(["search", "similar"]), help="Questions to passages, or like with like."
            ),
        ),
    )


def document_options(command: _F) -> _F:
    """Add the options of records and mappings; the command gets them as ``document``, a DocumentOptions."""
    return _grouped(
        "document",
        DocumentOptions,
        (
            click.option(
                "--text",
                "text_fields",
                multiple=True,
                metavar="FIELD",
                help="Field to encode; repeatable [default: title, text].",
            ),
            click.option(
                "--id", "id_field", metavar="FIELD", help="Field with the id [default: _id, else id, else by content]."
            ),
            click.option(
                "--mapping",
                type=click.Path(path_type=Path, dir_okay=False),
                help="A copy of mappings/documents.json.",
            ),
            click.option(
                "--field",
                "field_types",
                multiple=True,
                metavar="NAME:TYPE",
                callback=_field_types,
                help="Type of a field, such as year:integer.",
            ),
            click.option("--vector-field", metavar="FIELD", help="Field that holds the vector [default: vector]."),
            click.option(
                "--passages",
                metavar="auto|TOKENS[:OVERLAP]|off",
                callback=_passages,
                help="Cut long texts into passages [default: one vector a document].",
            ),
            click.option(
                "--given", metavar="FIELD", help="Field with each record's own vector; --model says what made them."
            ),
            click.option(
                "--element-type",
                type=click.Choice(["float", "bfloat16", "byte"]),
                help="How vectors are kept [default: float].",
            ),
        ),
    )(command)


def _grouped(name: str, record: type[Any], options: Sequence[_Option]) -> Callable[[_F], _F]:
    """Return what adds ``options`` to a command, in this order, and hands it their values as one ``record``."""

    def decorate(command: _F) -> _F:
        def collected(**values: Any) -> Any:  # noqa: ANN401  # click's own; each is an option of the command
            own = {field.name: values.pop(field.name) for field in fields(record)}
            return command(**values, **{name: record(**own)})

        wrapped: Callable[..., Any] = update_wrapper(collected, command)
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[return-value]

    return decorate


def _split_devices(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(value.split(",")) if value else ()


def read_passages(said: str) -> PassageOptions | Literal[False]:
    """Read ``--passages``: False for "off". Raises click.BadParameter for what is none of its forms."""
    from esvector.types import PassageOptions

    if said in ("auto", "off"):
        return PassageOptions() if said == "auto" else False
    tokens, colon, overlap = said.partition(":")
    if not tokens.isdecimal() or (colon and not overlap.isdecimal()):
        raise click.BadParameter(f"{said!r} is not auto, off, TOKENS or TOKENS:OVERLAP", param_hint="--passages")
    return PassageOptions(int(tokens), int(overlap) if colon else None)


def _passages(_: click.Context, __: click.Parameter, value: str | None) -> PassageOptions | Literal[False] | None:
    return None if value is None else read_passages(value)


def _field_types(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    from esvector.mapping import parse_field_types

    return parse_field_types(value)


def server_option(command: _F) -> _F:
    """Add ``--url``; a URL never holds credentials."""
    return click.option("--url", metavar="URL", help="Address of Elasticsearch [default: ESVECTOR_URL, else local].")(
        command
    )


def output_option(command: _F) -> _F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout, as when it is piped.")(command)


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
