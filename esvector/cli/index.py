"""``esvector index``: the twin of ``Indexer.run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from esvector.cli.options import open_client, output_option, query_cache_option, server_option, wants_json

if TYPE_CHECKING:
    from esvector.encode.advice import Task
    from esvector.encode.calibrate import BackendName
    from esvector.encode.profile import Similarity
    from esvector.types import PassageOptions
    from esvector.vectors import ElementType

__all__ = ["index"]

BACKENDS = ["torch", "onnx", "openvino", "openvino-int8", "auto"]


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--into", "alias", required=True, metavar="ALIAS", help="Name to search under.")
@click.option("--model", required=True, metavar="NAME_OR_PATH", help="Hub name, or folder of a model.")
@click.option("--revision", metavar="COMMIT", help="Revision of the hub repository.")
@click.option(
    "--text", "text_fields", multiple=True, metavar="FIELD", help="Field to encode; repeatable [default: title, text]."
)
@click.option("--id", "id_field", metavar="FIELD", help="Field with the id [default: _id, else id, else by content].")
@click.option("--mapping", type=click.Path(path_type=Path, dir_okay=False), help="A copy of one in mappings/.")
@click.option("--field", "fields", multiple=True, metavar="NAME:TYPE", help="Type of a field, such as year:integer.")
@click.option("--vector-field", default="vector", show_default=True, help="Field that holds the vector.")
@click.option("--query-prompt", metavar="TEXT", help="Text before every query [default: the model's].")
@click.option("--document-prompt", metavar="TEXT", help="Text before every document [default: the model's].")
@click.option("--similarity", type=click.Choice(["cosine", "dot"]), help="Similarity [default: the model's].")
@click.option("--max-length", type=click.IntRange(min=1), help="Tokens read of a text [default: the model's].")
@click.option("--dims", type=click.IntRange(min=1), help="Cut vectors to so many dims (Matryoshka models).")
@click.option("--query-model", metavar="NAME_OR_PATH", help="Model of the queries, of a dual encoder.")
@click.option("--family", metavar="NAME", help="Preset for what the model leaves open, see 'esvector models'.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Number format to encode in.")
@click.option("--devices", metavar="NAMES", help="Where to encode, such as cuda:0,cuda:1 [default: a GPU, else cpu].")
@click.option(
    "--backend", type=click.Choice(BACKENDS), default="torch", show_default=True, help="What encodes on a CPU."
)
@click.option("--task", type=click.Choice(["search", "similar"]), help="Questions to passages, or like with like.")
@click.option(
    "--passages", metavar="auto|TOKENS[:OVERLAP]", help="Cut long texts into passages [default: one vector a document]."
)
@click.option("--given", metavar="FIELD", help="Field with each record's own vector; --model says what made them.")
@click.option(
    "--element-type", type=click.Choice(["float", "bfloat16", "byte"]), help="How vectors are kept [default: float]."
)
@query_cache_option
@click.option("--senders", type=click.IntRange(1, 32), default=4, show_default=True, help="Bulk requests at once.")
@click.option(
    "--dead-letters", type=click.Path(path_type=Path), help="File for rejected records [default: ALIAS.dead.jsonl]."
)
@server_option
@output_option
def index(
    sources: tuple[str, ...],
    alias: str,
    model: str,
    revision: str | None,
    text_fields: tuple[str, ...],
    id_field: str | None,
    mapping: Path | None,
    fields: tuple[str, ...],
    vector_field: str,
    query_prompt: str | None,
    document_prompt: str | None,
    similarity: Similarity | None,
    max_length: int | None,
    dims: int | None,
    query_model: str | None,
    family: str | None,
    dtype: str | None,
    devices: str | None,
    backend: BackendName | Literal["auto"],
    task: Task | None,
    passages: str | None,
    given: str | None,
    element_type: ElementType | None,
    query_cache: Path | None,
    senders: int,
    dead_letters: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    r"""Encode documents and load them into a new version of ALIAS, which readers see once it is verified.

    A SOURCE is a file of JSON lines (also gzipped), CSV or Parquet, a pattern such as 'data/*.jsonl', or - for stdin.

    \b
    Example:
      esvector index papers.jsonl --into papers --model sentence-transformers/all-MiniLM-L6-v2
    """
    from esvector.cli.progress import show_progress
    from esvector.cli.report import print_report
    from esvector.encode.profile import EncoderProfile
    from esvector.index.documents import TEXT_FIELDS
    from esvector.index.indexer import Indexer
    from esvector.index.sources import read_documents
    from esvector.mapping import parse_field_types

    documents = read_documents(*sources)
    profile = EncoderProfile(
        model,
        revision=revision,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        similarity=similarity,
        max_length=max_length,
        dims=dims,
        query_model=query_model,
        family=family,
        dtype=dtype,
    )
    indexer = Indexer(
        open_client(url),
        alias,
        profile=profile,
        text_fields=text_fields or TEXT_FIELDS,
        id_field=id_field,
        mapping=mapping,
        field_types=parse_field_types(fields),
        vector_field=vector_field,
        dead_letters=dead_letters,
        senders=senders,
        devices=tuple(devices.split(",")) if devices else (),
        backend=backend,
        task=task,
        passages=_read_passages(passages),
        given=given,
        element_type=element_type,
        query_cache=query_cache,
    )
    with show_progress(documents) as progress:
        report = indexer.run(documents, progress)
    print_report(report, as_json=wants_json(as_json))
    if report.dead:
        from esvector.cli.app import EXIT_REJECTED

        sys.exit(EXIT_REJECTED)


def _read_passages(said: str | None) -> PassageOptions | None:
    from esvector.types import PassageOptions

    if said is None or said == "auto":
        return None if said is None else PassageOptions()
    tokens, colon, overlap = said.partition(":")
    if not tokens.isdecimal() or (colon and not overlap.isdecimal()):
        raise click.BadParameter(f"{said!r} is not auto, TOKENS or TOKENS:OVERLAP", param_hint="--passages")
    return PassageOptions(int(tokens), int(overlap) if colon else None)
