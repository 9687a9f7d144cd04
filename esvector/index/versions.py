"""Versions of an index behind an alias: create beside the live one, verify, swap in one atomic step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esvector.client import error_reason, error_type, explain_errors
from esvector.errors import ConfigError, IndexingError
from esvector.index.inspect import PREVIOUS_KEY
from esvector.passport import Passport

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = [
    "Version",
    "begin_loading",
    "create_version",
    "delete_version",
    "end_loading",
    "list_versions",
    "live_index",
    "loading_alias",
    "move_alias",
    "serve_version",
]

HIGHEST_KEY = "esvector_highest"  # in the live index's _meta: highest number of the versions deleted so far

_ALIAS = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,199}")


@dataclass(frozen=True, slots=True)
class Version:
    """One index of an alias; ``live`` is what readers see."""

    index: str
    live: bool


def loading_alias(index: str) -> str:
    """Return the alias that a load writes through: gone with its index, so a write can never create one by itself."""
    return f"{index}-loading"


def begin_loading(client: Elasticsearch, index: str) -> None:
    """Let ``index`` be written to through its loading alias."""
    with explain_errors(client):
        client.indices.put_alias(index=index, name=loading_alias(index))


def end_loading(client: Elasticsearch, index: str) -> None:
    """Take the loading alias away again; one that is gone already is fine."""
    with explain_errors(client):
        client.options(ignore_status=404).indices.delete_alias(index=index, name=loading_alias(index))


def check_alias(alias: str) -> None:
    """Raise ConfigError for a name that Elasticsearch would refuse."""
    if not _ALIAS.fullmatch(alias):
        raise ConfigError(
            f"{alias!r} cannot be the name of an index",
            "use lower-case letters, digits, - _ and . (at most 200 characters, a letter or digit first)",
        )


def live_index(client: Elasticsearch, alias: str) -> str | None:
    """Return the index behind ``alias``, None where there is no such alias.

    Raises IndexingError when the name is a concrete index or an alias of several.
    """
    with explain_errors(client):
        if not client.indices.exists_alias(name=alias):
            if client.indices.exists(index=alias):
                raise IndexingError(
                    f"{alias} is an index, not an alias, so it cannot be replaced without a gap",
                    "index into another name, or delete that index first",
                )
            return None
        indices = sorted(client.indices.get_alias(name=alias))
    if len(indices) > 1:
        raise IndexingError(f"the alias {alias} points to {', '.join(indices)}", "let it point to one index only")
    return indices[0]


def list_versions(client: Elasticsearch, alias: str) -> list[Version]:
    """Every version of ``alias``, oldest first."""
    with explain_errors(client):
        found = client.indices.get(index=f"{alias}-*", features="aliases", expand_wildcards="open,hidden")
    pattern = re.compile(re.escape(alias) + r"-\d{6,}")
    return [
        Version(name, alias in facts["aliases"]) for name, facts in sorted(found.items()) if pattern.fullmatch(name)
    ]


def create_version(
    client: Elasticsearch, alias: str, body: Mapping[str, Any], in_the_end: Mapping[str, Any] | None = None
) -> str:
    """Create the next version of ``alias`` with ``body`` (settings and mappings) and return its name.

    ``in_the_end`` is what the index shall become once it is loaded, where that is another body (from
    ``esvector.index.graph.loading_body``) and not known to be taken: the server is asked for that first, so that it
    refuses it now and not when everything is loaded. A name is not used again after its index was deleted. Raises
    ConfigError when the server refuses the mapping.
    """
    import elasticsearch

    number = _highest_number(client, alias)
    while True:
        number += 1
        index = f"{alias}-{number:06d}"
        try:
            with explain_errors(client):
                if in_the_end is not None and in_the_end != body:
                    client.indices.create(index=index, body=dict(in_the_end))
                    client.indices.delete(index=index)  # empty, and nobody has seen it
                client.indices.create(index=index, body={**body, "aliases": {loading_alias(index): {}}})
        except elasticsearch.BadRequestError as error:
            if error_type(error) == "resource_already_exists_exception":
                continue  # another run took the number in this moment
            raise ConfigError(
                f"the server refuses the mapping of {index}: {error_reason(error)}", "check --mapping and --field"
            ) from error
        return index


def serve_version(
    client: Elasticsearch,
    alias: str,
    index: str,
    previous: str | None,
    passport: Passport,
    settings: Mapping[str, Any],
) -> None:
    """Make ``index`` the one that readers of ``alias`` see, in place of ``previous``, in one atomic step.

    Raises IndexingError when the alias was moved by somebody else meanwhile; readers then see what they saw.
    """
    facts = passport.ready().to_meta()
    with explain_errors(client):
        meta = _meta(client, index)
        client.indices.put_settings(index=index, body={"index": dict(settings)})
        client.indices.put_mapping(index=index, body={"_meta": {PREVIOUS_KEY: previous} | meta | facts})
    done = {"remove": {"index": index, "alias": loading_alias(index), "must_exist": True}}
    move_alias(client, alias, previous, index, [done])


def move_alias(
    client: Elasticsearch, alias: str, previous: str | None, index: str, more: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Let ``alias`` point to ``index`` instead of ``previous`` (None: to nothing), with ``more`` actions, all or none.

    Raises IndexingError when the alias was moved by somebody else meanwhile; then nothing has changed.
    """
    import elasticsearch

    # Of two that add the first index at once, the server refuses the second: an alias has one index to write to.
    actions: list[Mapping[str, Any]] = [{"add": {"index": index, "alias": alias, "is_write_index": True}}, *more]
    if previous is not None:
        # Without must_exist a failing remove is answered 200 and the rest applied (9.5.3).
        actions.insert(0, {"remove": {"index": previous, "alias": alias, "must_exist": True}})
    with explain_errors(client):
        try:
            client.indices.update_aliases(actions=actions)
        except (elasticsearch.ApiError, elasticsearch.TransportError) as error:
            if live_index(client, alias) == index:
                return  # it was applied, and only its answer was lost; a repeated attempt then finds nothing to remove
            if isinstance(error, elasticsearch.NotFoundError) or _two_write_indices(error):
                raise IndexingError(
                    f"the alias {alias} no longer points to {previous or 'nothing'}: another run moved it meanwhile",
                    "check 'esvector status', then run the same command again",
                ) from error
            raise


def delete_version(client: Elasticsearch, index: str) -> None:
    """Delete an index that is not live; one that is gone already is fine. Its number is not given to another one."""
    alias, _, number = index.rpartition("-")
    with explain_errors(client):
        live = live_index(client, alias)
        if live == index:
            raise IndexingError(f"readers of {alias} see {index}, so it cannot be deleted", "roll back first")
        # The numbers below the live one's are never given again as it is.
        if live is not None and _number(live) < int(number) > (_meta(client, live).get(HIGHEST_KEY) or 0):
            client.indices.put_mapping(index=live, body={"_meta": _meta(client, live) | {HIGHEST_KEY: int(number)}})
        client.options(ignore_status=404).indices.delete(index=index)


def _highest_number(client: Elasticsearch, alias: str) -> int:
    """Return the highest number that a version of ``alias`` has or, as its live version remembers, has had."""
    with explain_errors(client):
        live = live_index(client, alias)
        remembered = int(_meta(client, live).get(HIGHEST_KEY) or 0) if live else 0
    return max([remembered, *(_number(version.index) for version in list_versions(client, alias))])


def _number(index: str) -> int:
    number = index.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _two_write_indices(error: Exception) -> bool:
    import elasticsearch

    return isinstance(error, elasticsearch.ApiError) and "more than one write index" in error_reason(error)


def _meta(client: Elasticsearch, index: str) -> dict[str, Any]:
    mapping = client.indices.get_mapping(index=index)
    return dict(mapping[index]["mappings"].get("_meta", {}))
